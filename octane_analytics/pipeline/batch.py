"""Batch of one partition's events waiting for their insert: columns, offsets and limits.

Decides when it is full or due; does not depend on what is done with it then.
"""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

from octane_analytics.events.event import Decode, Row
from octane_analytics.events.packed_columns import PackedColumn, new_columns
from octane_analytics.types import OffsetRange, Record, RejectedRecord, TopicPartition


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits at which a batch is due (`size`, `flush_seconds`), and which it must not exceed."""

    size: int
    flush_seconds: float
    max_rows: int
    max_bytes: int


class Batch:
    """Batch of the offsets `[first, end)` of one partition; `end` grows as records are appended.

    With `fixed_end` it covers exactly `[first, fixed_end)`, a range that was announced before, and later
    records are ignored. With `keeps_records` the records are kept beside the rows, for a batch whose bad
    rows may have to be isolated.
    """

    __slots__ = (
        "appended_at",
        "columns",
        "contexts",
        "end",
        "first",
        "fixed_end",
        "is_counted",
        "keeps_records",
        "may_be_inserted",
        "opened_at",
        "partition",
        "payload_bytes",
        "records",
        "rejected",
    )

    def __init__(
        self,
        partition: TopicPartition,
        first: int,
        *,
        fixed_end: int | None = None,
        keeps_records: bool = False,
        is_counted: bool = False,
        may_be_inserted: bool | None = None,
    ) -> None:
        self.partition = partition
        self.first = self.end = first
        self.fixed_end = fixed_end
        self.keeps_records = keeps_records
        self.may_be_inserted = fixed_end is not None if may_be_inserted is None else may_be_inserted
        """True if the range may be in the table, as an announced range of a previous owner may be."""
        self.is_counted = is_counted
        """True if the dead-letter limit has counted its records when they were read."""
        # Isolating bad rows selects rows repeatedly: these columns are not packed.
        self.columns: tuple[MutableSequence[Any] | PackedColumn[Any], ...] = (
            tuple([] for _ in Row._fields) if keeps_records else new_columns()
        )
        self.records: list[Record] = []
        self.rejected: list[RejectedRecord] = []
        self.contexts: list[object] = []
        """Trace contexts of its records' producers; empty without tracing."""
        self.payload_bytes = 0
        self.opened_at: float | None = None
        """Time of the first record; None while there is none."""
        self.appended_at: float | None = None
        """Kafka timestamp of the newest record, epoch seconds: not inserted before. None if
        not known."""

    @property
    def rows(self) -> int:
        return len(self.columns[0])

    @property
    def span(self) -> OffsetRange:
        return OffsetRange(self.first, self.end)

    @property
    def is_empty(self) -> bool:
        return self.opened_at is None

    @property
    def is_complete(self) -> bool:
        """True if the announced range has been read to its end."""
        return self.fixed_end is not None and self.end >= self.fixed_end

    def append(self, records: Sequence[Record], decode: Decode, now: float) -> int:
        """Append records of this partition, in offset order; return the number accepted."""
        if records and _offset(records[0]) < self.end:
            records = [record for record in records if _offset(record) >= self.end]
        if self.fixed_end is not None:
            records = self._records_before(records, self.fixed_end)
        if not records:
            return 0
        if self.opened_at is None:
            self.opened_at = now
        values = [record.value() for record in records]
        decoded = decode(values)
        for column, more in zip(self.columns, decoded.columns, strict=True):
            column.extend(more)
        for index, reason, detail in decoded.invalid:
            self.rejected.append(RejectedRecord(records[index], reason, detail))
        if self.keeps_records:
            bad = {index for index, _, _ in decoded.invalid}
            self.records += [record for n, record in enumerate(records) if n not in bad]
        self.payload_bytes += sum(map(len, filter(None, values)))
        self.appended_at = _timestamp(records[-1])
        self.advance(_offset(records[-1]) + 1)
        return len(records)

    def advance(self, end: int) -> None:
        """Mark every offset before `end` as read, whether or not the partition holds a record there."""
        if self.fixed_end is not None:
            end = min(end, self.fixed_end)
        self.end = max(self.end, end)

    def skip_to(self, end: int, now: float) -> None:
        """Advance to `end`, and make the batch due even without any rows."""
        self.advance(end)
        if self.opened_at is None:
            self.opened_at = now

    def _records_before(self, records: Sequence[Record], end: int) -> Sequence[Record]:
        accepted = [record for record in records if _offset(record) < end]
        if len(accepted) < len(records):
            self.advance(end)
        return accepted

    def is_due(self, limits: BatchLimits, now: float) -> bool:
        if self.fixed_end is not None:
            return self.is_complete
        if self.opened_at is None:
            return False
        return (
            self.rows + len(self.rejected) >= limits.size
            or self.payload_bytes >= limits.max_bytes
            or now - self.opened_at >= self._age_limit(limits)
        )

    def is_full(self, limits: BatchLimits) -> bool:
        """Return whether the batch must be inserted before it can accept more records."""
        return self.is_complete or (
            self.fixed_end is None
            and (
                self.rows + len(self.rejected) >= limits.max_rows
                or self.payload_bytes >= limits.max_bytes
            )
        )

    def _age_limit(self, limits: BatchLimits) -> float:
        # Differs by partition, so that the inserts do not coincide.
        return limits.flush_seconds * (1.0 - (self.partition.partition % 8) / 32.0)

    def rows_within(self, span: OffsetRange) -> tuple[list[list[object]], list[Record]]:
        """Return columns and records of the rows within the range; requires `keeps_records`."""
        indexes = [index for index, record in enumerate(self.records) if _is_within(record, span)]
        return (
            [[column[index] for index in indexes] for column in self.columns],
            [self.records[index] for index in indexes],
        )


def _offset(record: Record) -> int:
    offset = record.offset()
    assert offset is not None, "a record that was read has an offset"
    return offset


def _timestamp(record: Record) -> float | None:
    kind, milliseconds = record.timestamp()
    return milliseconds / 1000 if kind and milliseconds > 0 else None


def _is_within(record: Record, span: OffsetRange) -> bool:
    return span.first <= _offset(record) < span.end
