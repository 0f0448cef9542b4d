"""Rows of one insert, from all partitions of a worker, and the time at which they are due.

Does not depend on offsets: the delivery state has the ranges from which the rows come.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from octane_analytics.events.event import Columns, Decode
from octane_analytics.events.packed_columns import new_columns
from octane_analytics.interfaces import Tracer
from octane_analytics.types import Record, RejectedRecord

_TIMESTAMPS = 8
"""Records of a poll whose timestamps are read, evenly spaced."""
_MAX_CONTEXTS = 128
"""Limit of producers' contexts that a batch keeps; tracing backends accept about as many links."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits at which a batch is due, and which it must not exceed by more than one poll."""

    size: int
    """Records at which a batch is due, if the rate of inserts allows it."""
    flush_seconds: float
    """Age at which a batch is due in any case."""
    max_rows: int
    max_bytes: int
    """Payload bytes. At either maximum a batch is due in any case, and accepts no more."""


class Batch:
    """Packed columns that grow poll by poll, and the records that are not events."""

    __slots__ = (
        "columns",
        "contexts",
        "opened_at",
        "payload_bytes",
        "rejected",
        "rows_by_partition",
        "sampled_at",
    )

    def __init__(self) -> None:
        self.columns: Columns = new_columns()
        self.rejected: list[RejectedRecord] = []
        self.contexts: list[object] = []
        """Trace contexts of its records' producers; empty without tracing."""
        self.rows_by_partition: Counter[int] = Counter()
        self.payload_bytes = 0
        self.opened_at: float | None = None
        """Time of the first record, or of offsets without one; None while there is neither."""
        self.sampled_at: list[float] = []
        """Kafka timestamps of some records, epoch seconds."""

    @property
    def rows(self) -> int:
        return len(self.columns[0])

    @property
    def records(self) -> int:
        return self.rows + len(self.rejected)

    @property
    def not_before(self) -> float | None:
        """Time before which the batch was not inserted, epoch seconds; None if not known.

        The median of its records' timestamps: each is of its producer's clock, and one that is ahead
        must not make the batch appear younger than it is.
        """
        return statistics.median_low(self.sampled_at) if self.sampled_at else None

    def open(self, now: float) -> None:
        """Start the batch's age, also where offsets without a record were passed."""
        if self.opened_at is None:
            self.opened_at = now

    def append(
        self, records: Sequence[Record], partitions: Sequence[int], decode: Decode, now: float
    ) -> Sequence[RejectedRecord]:
        """Decode records of any partitions at once; return those that are not events.

        `partitions` are the records' partition numbers.
        """
        if not records:
            return ()
        self.open(now)
        values = [record.value() for record in records]
        decoded = decode(values)
        for column, more in zip(self.columns, decoded.columns, strict=True):
            column.extend(more)
        if partitions.count(partitions[0]) == len(partitions):
            self.rows_by_partition[partitions[0]] += len(partitions)  # a twentieth of the cost
        else:
            self.rows_by_partition.update(partitions)
        rejected = []
        for index, reason, detail in decoded.invalid:
            rejected.append(RejectedRecord(records[index], reason, detail))
            self.rows_by_partition[partitions[index]] -= 1
        self.rejected += rejected
        self.payload_bytes += sum(map(len, filter(None, values)))
        sampled = map(_timestamp, records[:: -(-len(records) // _TIMESTAMPS)])
        self.sampled_at += [at for at in sampled if at is not None]
        return rejected

    def add_contexts(self, records: Sequence[Record], tracer: Tracer) -> None:
        """Keep the contexts of the records' producers, up to a limit for the batch."""
        room = _MAX_CONTEXTS - len(self.contexts)
        if room > 0:
            self.contexts += tracer.contexts(records, room)

    def is_full(self, limits: BatchLimits) -> bool:
        """Return whether the batch must be inserted before it can accept more records."""
        return self.records >= limits.max_rows or self.payload_bytes >= limits.max_bytes

    def is_due(self, limits: BatchLimits, now: float, *, may_insert: bool) -> bool:
        """Return whether the batch is due; `may_insert` if the rate of inserts allows one now."""
        if self.opened_at is None:
            return False
        if self.is_full(limits) or now - self.opened_at >= limits.flush_seconds:
            return True
        return may_insert and self.records >= limits.size


class InsertPacing:
    """Worker's share of the inserts per second that the service on a host makes."""

    def __init__(self, inserts_per_second: float, processes: Callable[[], int]) -> None:
        """`inserts_per_second` is the rate of all `processes` together; 0 means no limit. Their number
        may change, and is looked up after each insert."""
        self._inserts_per_second = inserts_per_second
        self._processes = processes
        self._next_at: float | None = None

    def wait_seconds(self, now: float) -> float:
        """Return the time until the next insert is allowed, unless a batch must leave earlier."""
        return 0.0 if self._next_at is None else max(0.0, self._next_at - now)

    def record_insert(self, now: float) -> None:
        if self._inserts_per_second > 0:
            self._next_at = now + max(1, self._processes()) / self._inserts_per_second


def partitions_of(records: Iterable[Any]) -> list[int]:
    """Return the partition number of each record, which has one because it was read.

    A comprehension takes a fifth of the time of a map over `operator.methodcaller`.
    """
    return [record.partition() for record in records]


def _timestamp(record: Record) -> float | None:
    kind, milliseconds = record.timestamp()
    return milliseconds / 1000 if kind and milliseconds > 0 else None
