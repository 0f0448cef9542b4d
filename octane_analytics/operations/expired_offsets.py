"""Detects a group whose worker would insert events a second time, because of its committed offsets.

Kafka deletes the offsets of a group that had no members for offsets.retention.minutes (seven days by
default), and has none for a mistyped KAFKA_GROUP_ID. The worker then starts at the earliest record and
inserts every retained event again, under tokens that ClickHouse has never seen. The same holds for the
records after an offset that another tool has moved back (`start_positions`). The check depends on
neither a date nor a row count: a sample of the retained records is looked up in the table, row by row.
A new broker with an old table, or another topic into the same table, therefore starts normally.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.events.decode import decode_all
from octane_analytics.pipeline.start_positions import StartPosition, start_position
from octane_analytics.types import (
    Committed,
    LogIdentity,
    OffsetRange,
    Polled,
    Record,
    TopicPartition,
)

_SAMPLES = 8
"""Positions at which a partition is sampled, evenly spaced from its beginning: rows may have left the
table by TTL or by a DELETE, and records that the group had not yet reached were never in it."""
_SAMPLED_PARTITIONS = 64
"""Partitions that get all samples; each partition of a larger topic gets fewer, at least two."""
_SAMPLE_OFFSETS = 4
SAMPLE_FETCH_BYTES = 65_536
"""Bytes fetched of a partition at once for a few records."""
_POLL_RECORDS = 1000
_POLL_SECONDS = 0.2


class RetainedLog(Protocol):
    """Methods of `kafka.topic_reader.TopicReader` that the check needs."""

    @property
    def topic(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def is_done(self) -> bool: ...
    def partitions(self) -> list[int]: ...
    def retained_ranges(self, partitions: Sequence[int]) -> Mapping[int, OffsetRange]: ...
    def log_ends(self, partitions: Sequence[int]) -> Mapping[int, int]: ...
    def committed(self, partitions: Sequence[int]) -> Mapping[int, Committed]: ...
    def identity(self) -> LogIdentity: ...
    def start_reading(self, spans: Mapping[int, OffsetRange]) -> None: ...
    def poll(self, max_records: int, timeout_seconds: float) -> Polled: ...


class Table(Protocol):
    """Methods of `clickhouse.inserts.ClickHouseSink` that the check needs."""

    @property
    def table(self) -> object: ...
    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]: ...


_CHOICES = (
    "Run `octane-analytics offsets set --to end{drop}` and then `octane-analytics replay --from-offset "
    "beginning`, which inserts only what is missing; or `octane-analytics offsets set --to "
    "{where}{drop}` to read {what} again, at the price of duplicates"
)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """Retained record that the table has, although its partition would be read from before it."""

    partitions: tuple[int, ...]
    """All partitions that the group would read from the first retained record, or, if `moved` is not
    empty, from an offset that another tool has set."""
    partition: TopicPartition
    offset: int
    moved: Mapping[int, int] = field(default_factory=dict)
    """Offset by partition of those that another tool has set within the log."""

    def explain(self, group: str, table: object) -> str:
        """Return one line: what is wrong, why, and the operator's options."""
        found = f"for example {self.partition} offset {self.offset}"
        if self.moved:
            return (
                f"another tool has set the committed offsets of group {group} in "
                f"{self.partition.topic} ({_listed(self.moved)}), and {table} already has records after "
                f"them ({found}): the worker would insert them again. " + _choices(self.moved)
            )
        numbers = ", ".join(map(str, self.partitions))
        return (
            f"group {group} has no committed offset that is valid for partitions {numbers} of "
            f"{self.partition.topic}, and {table} already has records that are retained there "
            f"({found}): the worker would insert them again. The offsets have expired "
            "(offsets.retention.minutes of the broker) or KAFKA_GROUP_ID is wrong. "
            + _CHOICES.format(where="beginning", what="everything", drop="")
        )


@dataclass(frozen=True, slots=True)
class MovedWithinBatch:
    """Partitions of a pending batch of which another tool has set the offsets, or deleted them: the
    batch is inserted whole for its other partitions, and these would be read again."""

    topic: str
    moved: Mapping[int, int]
    """Position by partition from which it would be read."""
    batch: tuple[int, ...]
    """Partitions of the pending batches that name them."""

    def explain(self, group: str, table: object) -> str:
        """Return one line: what is wrong, why, and the operator's options."""
        return (
            f"another tool has set or deleted committed offsets of group {group} in {self.topic} "
            f"({_listed(self.moved)}) while a batch of partitions {', '.join(map(str, self.batch))} is "
            f"pending that holds records after them: the worker would insert them into {table} twice. "
            + _choices(self.moved)
        )


def _listed(offsets: Mapping[int, int]) -> str:
    return ", ".join(f"partition {number} to {offset}" for number, offset in offsets.items())


def _choices(moved: Mapping[int, int]) -> str:
    where = ",".join(f"{number}:{offset}" for number, offset in moved.items())
    return _CHOICES.format(where=where, what="them", drop=" --drop-intents")


def find_stored_record(
    log: RetainedLog, table: Table, seconds: float, now: Callable[[], float] = time.monotonic
) -> StoredRecord | MovedWithinBatch | None:
    """Return the first sampled record that the table has; None if all committed offsets are valid, if
    nothing is retained, or if none of the sampled records is in the table.

    Blocks for up to `seconds`, plus requests to the broker. Raise Unavailable if the records could not
    be read in that time.
    """
    doubtful = _doubtful(log)
    if doubtful.within_batch is not None:
        return doubtful.within_batch
    spans = doubtful.spans
    if not spans:
        return None
    deadline = now() + seconds
    count = max(2, min(_SAMPLES, _SAMPLED_PARTITIONS // len(spans)))
    for index in range(count):
        log.start_reading({number: _sample(span, index, count) for number, span in spans.items()})
        records: list[Record] = []
        try:
            while not log.is_done:
                if now() >= deadline:
                    raise Unavailable(
                        f"could not read the retained records of {log.topic} within {seconds:g} s, to "
                        "see whether the table has them"
                    )
                records += log.poll(_POLL_RECORDS, _POLL_SECONDS).records
        except Unavailable:
            raise
        except OctaneError:
            continue  # retention was faster: the next sample is later in the log
        while (found := _first_stored(records, table)) is not None:
            # A worker that has inserted it since the offsets were read had committed its intent before.
            left = _doubtful(log)
            spans = {number: span for number, span in spans.items() if number in left.spans}
            number = found.partition() or 0
            if number in spans:
                moved = left.moved if number in left.moved else {}
                same = (n for n in sorted(spans) if (n in left.moved) == bool(moved))
                where = TopicPartition(log.topic, number)
                return StoredRecord(tuple(same), where, found.offset() or 0, moved)
            records = [record for record in records if record.partition() in spans]
    return None


class _Doubtful(NamedTuple):
    """Partitions whose position does not show that the records after it were never inserted."""

    spans: Mapping[int, OffsetRange]
    """Retained records that would be read, none empty."""
    moved: Mapping[int, int]
    """Offset of those that another tool has set within the log; of the others all of it is read."""
    within_batch: MovedWithinBatch | None


def _doubtful(log: RetainedLog) -> _Doubtful:
    committed = log.committed(log.partitions())
    identity = log.identity()
    starts = {
        number: start_position(log.topic, number, offset, identity)
        for number, offset in committed.items()
    }
    absent = [number for number, offset in committed.items() if offset.offset is None]
    foreign = [
        number
        for number, start in starts.items()
        if start.offset is not None and start.pending is None and not start.is_of_log
    ]
    ends = log.log_ends(foreign) if foreign else {}
    after_end = [number for number in foreign if (starts[number].offset or 0) > ends[number]]
    moved = {
        number: starts[number].offset or 0
        for number in foreign
        if starts[number].is_moved and number not in after_end
    }
    held = log.retained_ranges([*absent, *after_end, *moved])
    spans = {
        number: OffsetRange(min(max(span.first, moved.get(number, 0)), span.end), span.end)
        for number, span in held.items()
    }
    return _Doubtful(
        {number: span for number, span in spans.items() if span.first < span.end},
        moved,
        _within_batch(log.topic, starts, spans),
    )


def _within_batch(
    topic: str, starts: Mapping[int, StartPosition], spans: Mapping[int, OffsetRange]
) -> MovedWithinBatch | None:
    found: dict[int, int] = {}
    batches: set[int] = set()
    for intent in {start.pending for start in starts.values() if start.pending is not None}:
        for number, _, end in intent.ranges:
            if number in spans and spans[number].first < end:
                found[number] = spans[number].first
                batches.update(intent.partitions)
    if not found:
        return None
    return MovedWithinBatch(topic, dict(sorted(found.items())), tuple(sorted(batches)))


def _sample(span: OffsetRange, index: int, count: int) -> OffsetRange:
    first = span.first + (span.end - span.first) * index // count
    return OffsetRange(first, min(first + _SAMPLE_OFFSETS, span.end))


def _first_stored(records: Sequence[Record], table: Table) -> Record | None:
    decoded = decode_all([record.value() for record in records])
    invalid = {index for index, _, _ in decoded.invalid}
    events = [record for index, record in enumerate(records) if index not in invalid]
    if not events:
        return None
    counts = table.count_equal([list(column) for column in decoded.columns])
    return next((record for record, count in zip(events, counts, strict=True) if count), None)
