"""Whether a group without committed offsets would insert events that the table already has.

Kafka deletes the offsets of a group that had no members for offsets.retention.minutes (seven days by
default), and has none for a mistyped KAFKA_GROUP_ID. The worker then starts at the earliest record and
inserts every retained event again, under tokens that ClickHouse has never seen. What decides is neither
a date nor a row count: a sample of the retained records is looked up in the table, row by row. A new
broker beside an old table, or another topic into the same table, therefore starts as ever.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.events.decode import decode_all
from octane_analytics.pipeline.delivery_ledger import DeliveryLedger
from octane_analytics.types import (
    Committed,
    LogIdentity,
    OffsetRange,
    Polled,
    Record,
    TopicPartition,
)

_SAMPLES = 8
"""Places of a partition where records are read, evenly spaced from its beginning: rows may have left
the table by TTL or by a DELETE, and what the group had not yet reached was never in it."""
_SAMPLED_PARTITIONS = 64
"""A topic of more partitions has fewer places in each, two at least."""
_SAMPLE_OFFSETS = 4
SAMPLE_FETCH_BYTES = 65_536
"""What is fetched of a partition for a few records."""
_POLL_RECORDS = 1000
_POLL_SECONDS = 0.2


class RetainedLog(Protocol):
    """`kafka.log.KafkaLog`, as far as it is needed here."""

    @property
    def topic(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def is_done(self) -> bool: ...
    def partitions(self) -> list[int]: ...
    def held(self, partitions: Sequence[int]) -> Mapping[int, OffsetRange]: ...
    def log_ends(self, partitions: Sequence[int]) -> Mapping[int, int]: ...
    def committed(self, partitions: Sequence[int]) -> Mapping[int, Committed]: ...
    def identity(self) -> LogIdentity: ...
    def begin(self, spans: Mapping[int, OffsetRange]) -> None: ...
    def poll(self, max_records: int, timeout_seconds: float) -> Polled: ...


class Table(Protocol):
    """`clickhouse.inserts.ClickHouseSink`, as far as it is needed here."""

    @property
    def table(self) -> object: ...
    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A retained record that the table has although its partition is about to be read from the start."""

    partitions: tuple[int, ...]
    """All partitions that the group would read from the first retained record."""
    where: TopicPartition
    offset: int

    def explain(self, group: str, table: object) -> str:
        """One line: what is wrong, why, and what to choose."""
        numbers = ", ".join(map(str, self.partitions))
        return (
            f"group {group} has no committed offset that is valid for partitions {numbers} of "
            f"{self.where.topic}, and {table} already has records that are retained there (for example "
            f"{self.where} offset {self.offset}): the worker would insert them again. The offsets have "
            "expired (offsets.retention.minutes of the broker) or KAFKA_GROUP_ID is wrong. Run "
            "`octane-analytics offsets set --to end` and then `octane-analytics replay --from-offset "
            "beginning`, which inserts only what is missing; or `octane-analytics offsets set --to "
            "beginning` to read everything again, at the price of duplicates"
        )


def find_stored_record(
    log: RetainedLog, table: Table, seconds: float, now: Callable[[], float] = time.monotonic
) -> StoredRecord | None:
    """The first sampled record that the table has; None where all committed offsets are valid, where
    nothing is retained, or where none of the sampled records is in the table.

    Blocks for `seconds` at most, and some more for requests to the broker. Raises Unavailable where the
    records could not be read in that time.
    """
    spans = _read_from_beginning(log)
    if not spans:
        return None
    deadline = now() + seconds
    places = max(2, min(_SAMPLES, _SAMPLED_PARTITIONS // len(spans)))
    for place in range(places):
        log.begin({number: _sample(span, place, places) for number, span in spans.items()})
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
            continue  # retention was faster: the next place is later in the log
        found = _first_stored(records, table)
        if found is not None:
            where = TopicPartition(log.topic, found.partition() or 0)
            return StoredRecord(tuple(sorted(spans)), where, found.offset() or 0)
    return None


def _read_from_beginning(log: RetainedLog) -> dict[int, OffsetRange]:
    """The retained offsets of the partitions whose committed offset is absent or of another log."""
    committed = log.committed(log.partitions())
    identity = log.identity()
    starts = {
        number: DeliveryLedger().assign(TopicPartition(log.topic, number), told, identity)
        for number, told in committed.items()
    }
    absent = [number for number, told in committed.items() if told.offset is None]
    foreign = [
        number
        for number, start in starts.items()
        if start.offset is not None and start.recovering is None and not start.is_of_log
    ]
    ends = log.log_ends(foreign) if foreign else {}
    after_end = [number for number in foreign if (starts[number].offset or 0) > ends[number]]
    held = log.held([*absent, *after_end])
    return {number: span for number, span in held.items() if span.first < span.end}


def _sample(span: OffsetRange, place: int, places: int) -> OffsetRange:
    first = span.first + (span.end - span.first) * place // places
    return OffsetRange(first, min(first + _SAMPLE_OFFSETS, span.end))


def _first_stored(records: Sequence[Record], table: Table) -> Record | None:
    decoded = decode_all([record.value() for record in records])
    invalid = {index for index, _, _ in decoded.invalid}
    events = [record for index, record in enumerate(records) if index not in invalid]
    if not events:
        return None
    counts = table.count_equal([list(column) for column in decoded.columns])
    return next((record for record, count in zip(events, counts, strict=True) if count), None)
