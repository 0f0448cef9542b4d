"""Writer of batches: announces them, dead-letters their invalid records, inserts them, commits.

Keeps the order of these steps and the progress of each batch: after a failure, `write_pending` continues
at the step that failed. Does not depend on the source of batches or on the time of retries.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from enum import Enum

from octane_analytics.errors import DataRejected, Unavailable
from octane_analytics.events.packed_columns import new_columns
from octane_analytics.interfaces import Clock, DeadLetters, Observer, Sink, Source, Trace, Tracer
from octane_analytics.pipeline import delivery_ledger as protocol
from octane_analytics.pipeline.batch import Batch
from octane_analytics.pipeline.delivery_ledger import DeliveryLedger
from octane_analytics.pipeline.dlq_limit import DlqLimit
from octane_analytics.pipeline.outages import CLICKHOUSE, DEAD_LETTERS, KAFKA, Outages
from octane_analytics.types import InsertedBatch, OffsetRange, RejectedRecord, TopicPartition

_TURN_SECONDS = 5.0
"""Time of inserts after which `write_pending` returns, however many batches are left."""


class Delivery(Enum):
    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"


@dataclass(slots=True)
class _PendingBatch:
    """Batch with its completed steps."""

    batch: Batch
    started_at: float
    is_announced: bool
    are_rejects_sent: bool
    is_repeat: bool
    """True if it may have been inserted before: by the last owner, or by a call that failed."""
    trace: Trace | None
    dead_lettered: set[int] = field(default_factory=set)
    """Offsets of rows that ClickHouse refused and that are in the dead-letter topic."""
    data_errors: dict[OffsetRange, str] = field(default_factory=dict)
    """Ranges that ClickHouse refused as they are. They stay divided even if it would accept them later:
    parts of them may be in the table."""
    unknown: list[OffsetRange] = field(default_factory=list)
    """Ranges that may be in the table: from the previous owner, or from a call that failed."""
    counted: set[int] = field(default_factory=set)
    """First offsets of the parts that the dead-letter limit has counted: each counts once, however
    often an outage interrupts."""


class BatchWriter:
    """Queue of pending batches, at most one of each partition."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        dead_letters: DeadLetters,
        ledger: DeliveryLedger,
        clock: Clock,
        observer: Observer,
        outages: Outages,
        dlq_limit: DlqLimit,
        *,
        delivery: Delivery,
        max_rows: int,
        tracer: Tracer | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._dead_letters = dead_letters
        self._ledger = ledger
        self._clock = clock
        self._observer = observer
        self._outages = outages
        self._dlq_limit = dlq_limit
        self._delivery = delivery
        self._max_rows = max_rows
        self._tracer = tracer
        self._pending: list[_PendingBatch] = []
        self._rejected: list[tuple[Batch, str]] = []

    @property
    def is_empty(self) -> bool:
        return not self._pending

    def enqueue(self, batches: Iterable[Batch]) -> None:
        """Add the batches; a range that was announced before is not announced again."""
        now = self._clock.now()
        for batch in batches:
            trace = None
            if self._tracer is not None:
                trace = self._tracer.begin(batch.partition, batch.span, batch.contexts)
            self._pending.append(
                _PendingBatch(
                    batch,
                    now,
                    is_announced=batch.fixed_end is not None
                    or self._delivery is Delivery.AT_LEAST_ONCE,
                    # A batch that keeps its records was read before, and its rejects were sent then.
                    are_rejects_sent=batch.keeps_records,
                    is_repeat=batch.fixed_end is not None,
                    trace=trace,
                    unknown=[batch.span] if batch.may_be_inserted else [],
                )
            )

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        gone = set(partitions)
        self._keep([p for p in self._pending if p.batch.partition not in gone])

    def discard(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop the batches that may hold records of another log than the one they are for.

        A batch that was announced after its only reading was read before its log was replaced; a range
        that was read a second time may not have been.
        """
        gone = set(partitions)
        self._keep(
            [
                p
                for p in self._pending
                if p.batch.partition not in gone or (p.is_announced and p.batch.fixed_end is None)
            ]
        )

    def _keep(self, pending_batches: list[_PendingBatch]) -> None:
        for pending in self._pending:
            if pending.trace is not None and pending not in pending_batches:
                pending.trace.end(None)
        self._pending = pending_batches

    def pop_rejected(self) -> list[tuple[Batch, str]]:
        """Return and remove the batches that ClickHouse refused for their data, with the reasons.

        The caller must read each again, with its records.
        """
        rejected, self._rejected = self._rejected, []
        return rejected

    def write_pending(self) -> None:
        """Write pending batches. Blocks for up to some seconds, or for one insert if that is longer.

        Raise Unavailable (Rebalancing during a rebalance): nothing is lost, call again. Raise
        TooManyRejected once ClickHouse has refused too many rows; the last of them are not in the
        dead-letter topic, and nothing is committed past them.
        """
        deadline = self._clock.now() + _TURN_SECONDS
        self._announce()
        self._send_rejects()
        if self._delivery is Delivery.AT_LEAST_ONCE:
            self._insert_together()
        while self._pending:
            self._insert_first()
            if self._clock.now() >= deadline:
                break
        if self._delivery is Delivery.AT_LEAST_ONCE:
            self.complete(self._ledger.partitions())

    def complete(self, partitions: Iterable[TopicPartition]) -> None:
        """Commit what is inserted of these partitions, with nothing pending. Raise Unavailable."""
        commits = self._ledger.completions(partitions)
        if commits:
            with self._outages.track(KAFKA, "complete"):
                self._source.commit(commits)
            self._ledger.completed(commits)

    def _announce(self) -> None:
        pending_batches = [p for p in self._pending if not p.is_announced]
        spans = {p.batch.partition: p.batch.span for p in pending_batches}
        if not spans:
            return
        with _step(pending_batches, "intent"), self._outages.track(KAFKA, "announce"):
            self._source.commit(self._ledger.announce(spans))
        self._ledger.accept(spans)
        for pending in pending_batches:
            pending.is_announced = True

    def _send_rejects(self) -> None:
        pending_batches = [p for p in self._pending if not p.are_rejects_sent]
        self._send([rejected for p in pending_batches for rejected in p.batch.rejected])
        for pending in pending_batches:
            pending.are_rejects_sent = True

    def _send(self, rejected: Sequence[RejectedRecord]) -> None:
        if rejected:
            with self._outages.track(DEAD_LETTERS, "send"):
                self._dead_letters.send(rejected)
            self._observer.dead_lettered(len(rejected))

    def _insert_together(self) -> None:
        """Insert all batches without a token in one block; after DataRejected each goes separately."""
        pending_batches = [
            p
            for p in self._pending
            if not p.batch.keeps_records and self._ledger.token(p.batch.partition) is None
        ]
        rows = sum(p.batch.rows for p in pending_batches)
        if len(pending_batches) < 2 or rows > self._max_rows:
            return
        columns = new_columns()
        for pending in pending_batches:
            for column, more in zip(columns, pending.batch.columns, strict=True):
                column.extend(more)
        try:
            if rows:
                with _step(pending_batches, "insert"), self._outages.track(CLICKHOUSE, "insert"):
                    self._sink.insert(columns, None)
        except DataRejected:
            return
        for pending in pending_batches:
            self._pending.remove(pending)
            self._batch_inserted(pending, pending.batch.rows)

    def _insert_first(self) -> None:
        pending = self._pending[0]
        batch, token = pending.batch, self._ledger.token(pending.batch.partition)
        rows = batch.rows
        try:
            if rows:
                with _step([pending], "insert"):
                    self._insert(batch.columns, token, pending, batch.span)
        except DataRejected as error:
            if not batch.keeps_records:
                batch.may_be_inserted = bool(pending.unknown)
                self._pending.pop(0)
                if pending.trace is not None:
                    pending.trace.end(None)
                self._rejected.append((batch, str(error)))
                return
            with _step([pending], "insert in parts"):
                rows = self._insert_in_parts(pending, batch.span, token, error)
        self._pending.pop(0)
        self._batch_inserted(pending, rows)

    def _insert(
        self,
        columns: Sequence[Sequence[object]],
        token: str | None,
        pending: _PendingBatch,
        span: OffsetRange,
    ) -> None:
        """Insert a range. Raise DataRejected also if ClickHouse has refused the range before."""
        if span in pending.data_errors:
            raise DataRejected(pending.data_errors[span])
        try:
            with self._outages.track(CLICKHOUSE, "insert"):
                self._sink.insert(
                    columns,
                    token,
                    is_repeat=pending.is_repeat,
                    not_before=pending.batch.appended_at,
                    may_overlap=token is not None
                    and any(_is_part(span, whole) for whole in pending.unknown),
                )
        except Unavailable:
            pending.is_repeat = True
            pending.unknown.append(span)
            raise
        except DataRejected as error:
            pending.data_errors[span] = str(error)
            raise

    def _insert_in_parts(
        self, pending: _PendingBatch, span: OffsetRange, token: str | None, error: DataRejected
    ) -> int:
        """Bisect a refused range until the bad rows are isolated; return the number of rows inserted.

        The range is split by offsets, not by rows, so that another process, even with another decoder,
        splits it identically.
        """
        if span.end - span.first == 1:
            self._send_refused(pending, span, error)
            return 0
        middle = (span.first + span.end) // 2
        inserted = 0
        for half in (OffsetRange(span.first, middle), OffsetRange(middle, span.end)):
            columns, records = pending.batch.rows_within(half)
            if not records:
                continue
            try:
                self._insert(columns, token and protocol.part_token(token, half), pending, half)
                inserted += len(records)
                if half.first not in pending.counted:
                    pending.counted.add(half.first)
                    self._dlq_limit.record_inserted(0 if pending.batch.is_counted else len(records))
            except DataRejected as refused:
                inserted += self._insert_in_parts(pending, half, token, refused)
        return inserted

    def _send_refused(self, pending: _PendingBatch, span: OffsetRange, error: DataRejected) -> None:
        if span.first in pending.dead_lettered:
            return  # sent before another step failed
        _, records = pending.batch.rows_within(span)
        if span.first not in pending.counted:
            pending.counted.add(span.first)
            self._dlq_limit.record_refused(len(records), is_counted=pending.batch.is_counted)
        bad = [RejectedRecord(record, "refused_by_clickhouse", str(error)) for record in records]
        self._send(bad)
        self._observer.rejected(bad)
        pending.dead_lettered.add(span.first)

    def _batch_inserted(self, pending: _PendingBatch, rows: int) -> None:
        batch, seconds = pending.batch, self._clock.now() - pending.started_at
        if rows and not batch.keeps_records:
            self._dlq_limit.record_inserted(0)
        token = self._ledger.token(batch.partition)
        self._ledger.inserted(batch.partition, batch.span)
        with nullcontext() if pending.trace is None else pending.trace.entered():
            self._observer.inserted(
                InsertedBatch(
                    batch.partition,
                    batch.span,
                    rows,
                    batch.payload_bytes,
                    batch.columns[0],
                    token,
                    seconds,
                )
            )
            if batch.fixed_end is not None and not batch.keeps_records:
                self._observer.recovered(batch.partition, batch.span)
        if pending.trace is not None:
            pending.trace.end(rows)


def _is_part(span: OffsetRange, whole: OffsetRange) -> bool:
    return span != whole and whole.first <= span.first and span.end <= whole.end


def _step(pending_batches: Sequence[_PendingBatch], name: str) -> AbstractContextManager[object]:
    """Return the context of a step that these batches share; calls inside belong to the last trace."""
    traces = [pending.trace for pending in pending_batches if pending.trace is not None]
    if not traces:
        return nullcontext()
    steps = ExitStack()
    for trace in traces:
        steps.enter_context(trace.step(name))
    return steps
