"""Batches on their way out: announced, their bad records dead-lettered, inserted, done.

Owns the order of these steps and what is left of them when one fails: `push` goes on where the last
one stopped. Refuses to know where batches come from and when to try again.
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
"""After so long in inserts the loop gets its turn, however many are left."""


class Delivery(Enum):
    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"


@dataclass(slots=True)
class _PendingBatch:
    """One batch; a step is left behind once it is known to be done."""

    batch: Batch
    started_at: float
    is_announced: bool
    are_rejects_sent: bool
    is_repeat: bool
    """Whether it may have been inserted before: by the last owner, or by a call that failed."""
    trace: Trace | None
    refused: set[int] = field(default_factory=set)
    """Offsets of rows that ClickHouse refused and the dead-letter topic has taken."""
    data_errors: dict[OffsetRange, str] = field(default_factory=dict)
    """Ranges that ClickHouse refused as they are. They stay divided even if it would take them later:
    parts of them may be in the table."""
    unknown: list[OffsetRange] = field(default_factory=list)
    """Ranges that may be in the table: from the last owner, or a call that failed."""
    counted: set[int] = field(default_factory=set)
    """First offsets of the parts that the dead-letter limit has counted: each counts once, however
    often an outage interrupts."""


class BatchWriter:
    """At most one batch of each partition at a time."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        dead_letters: DeadLetters,
        ledger: DeliveryLedger,
        clock: Clock,
        observer: Observer,
        outages: Outages,
        breaker: DlqLimit,
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
        self._breaker = breaker
        self._delivery = delivery
        self._max_rows = max_rows
        self._tracer = tracer
        self._flights: list[_PendingBatch] = []
        self._refused: list[tuple[Batch, str]] = []

    @property
    def is_empty(self) -> bool:
        return not self._flights

    def enqueue(self, batches: Iterable[Batch]) -> None:
        """Takes the batches over; a range that was announced before is not announced again."""
        now = self._clock.now()
        for batch in batches:
            trace = None
            if self._tracer is not None:
                trace = self._tracer.begin(batch.partition, batch.span, batch.contexts)
            self._flights.append(
                _PendingBatch(
                    batch,
                    now,
                    is_announced=batch.fixed_end is not None
                    or self._delivery is Delivery.AT_LEAST_ONCE,
                    # A batch that keeps its records is read again, after its rejects were sent.
                    are_rejects_sent=batch.keeps_records,
                    is_repeat=batch.fixed_end is not None,
                    trace=trace,
                    unknown=[batch.span] if batch.may_be_inserted else [],
                )
            )

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        gone = set(partitions)
        self._keep([f for f in self._flights if f.batch.partition not in gone])

    def discard(self, partitions: Iterable[TopicPartition]) -> None:
        """Forgets batches that may hold records of another log than the one they are for.

        What was announced from the first was read before its log went; a range that was read a
        second time may not have been.
        """
        gone = set(partitions)
        self._keep(
            [
                f
                for f in self._flights
                if f.batch.partition not in gone or (f.is_announced and f.batch.fixed_end is None)
            ]
        )

    def _keep(self, flights: list[_PendingBatch]) -> None:
        for flight in self._flights:
            if flight.trace is not None and flight not in flights:
                flight.trace.end(None)
        self._flights = flights

    def pop_rejected(self) -> list[tuple[Batch, str]]:
        """Batches that ClickHouse refused for their data since the last call, each with the reason.

        They have left the outbox: each is to be read once more with its records.
        """
        refused, self._refused = self._refused, []
        return refused

    def push(self) -> None:
        """Does what can be done in one turn. Blocks for some seconds, or one insert if that is longer.

        Raises Unavailable (Rebalancing for one that passes by itself): nothing is lost, call again.
        Raises TooManyRejected once ClickHouse has refused too many rows; those of the last one are
        not in the dead-letter topic, and nothing is committed past them.
        """
        deadline = self._clock.now() + _TURN_SECONDS
        self._announce()
        self._send_rejects()
        if self._delivery is Delivery.AT_LEAST_ONCE:
            self._insert_together()
        while self._flights:
            self._insert_first()
            if self._clock.now() >= deadline:
                break
        if self._delivery is Delivery.AT_LEAST_ONCE:
            self.complete(self._ledger.partitions())

    def complete(self, partitions: Iterable[TopicPartition]) -> None:
        """Commits what is inserted of these partitions, with nothing pending. Raises Unavailable."""
        commits = self._ledger.completions(partitions)
        if commits:
            with self._outages.track(KAFKA, "complete"):
                self._source.commit(commits)
            self._ledger.completed(commits)

    def _announce(self) -> None:
        flights = [f for f in self._flights if not f.is_announced]
        spans = {f.batch.partition: f.batch.span for f in flights}
        if not spans:
            return
        with _step(flights, "intent"), self._outages.track(KAFKA, "announce"):
            self._source.commit(self._ledger.announce(spans))
        self._ledger.accept(spans)
        for flight in flights:
            flight.is_announced = True

    def _send_rejects(self) -> None:
        flights = [f for f in self._flights if not f.are_rejects_sent]
        self._send([rejected for f in flights for rejected in f.batch.rejected])
        for flight in flights:
            flight.are_rejects_sent = True

    def _send(self, rejected: Sequence[RejectedRecord]) -> None:
        if rejected:
            with self._outages.track(DEAD_LETTERS, "send"):
                self._dead_letters.send(rejected)
            self._observer.dead_lettered(len(rejected))

    def _insert_together(self) -> None:
        """One insert for all that has no token of its own; on bad data each goes by itself."""
        flights = [
            f
            for f in self._flights
            if not f.batch.keeps_records and self._ledger.token(f.batch.partition) is None
        ]
        rows = sum(f.batch.rows for f in flights)
        if len(flights) < 2 or rows > self._max_rows:
            return
        columns = new_columns()
        for flight in flights:
            for column, more in zip(columns, flight.batch.columns, strict=True):
                column.extend(more)
        try:
            if rows:
                with _step(flights, "insert"), self._outages.track(CLICKHOUSE, "insert"):
                    self._sink.insert(columns, None)
        except DataRejected:
            return
        for flight in flights:
            self._flights.remove(flight)
            self._arrived(flight, flight.batch.rows)

    def _insert_first(self) -> None:
        flight = self._flights[0]
        batch, token = flight.batch, self._ledger.token(flight.batch.partition)
        rows = batch.rows
        try:
            if rows:
                with _step([flight], "insert"):
                    self._insert(batch.columns, token, flight, batch.span)
        except DataRejected as error:
            if not batch.keeps_records:
                batch.may_be_inserted = bool(flight.unknown)
                self._flights.pop(0)
                if flight.trace is not None:
                    flight.trace.end(None)
                self._refused.append((batch, str(error)))
                return
            with _step([flight], "insert in parts"):
                rows = self._insert_in_parts(flight, batch.span, token, error)
        self._flights.pop(0)
        self._arrived(flight, rows)

    def _insert(
        self,
        columns: Sequence[Sequence[object]],
        token: str | None,
        flight: _PendingBatch,
        span: OffsetRange,
    ) -> None:
        """Raises DataRejected also where ClickHouse has refused the range before."""
        if span in flight.data_errors:
            raise DataRejected(flight.data_errors[span])
        try:
            with self._outages.track(CLICKHOUSE, "insert"):
                self._sink.insert(
                    columns,
                    token,
                    is_repeat=flight.is_repeat,
                    not_before=flight.batch.appended_at,
                    may_overlap=token is not None
                    and any(_is_part(span, whole) for whole in flight.unknown),
                )
        except Unavailable:
            flight.is_repeat = True
            flight.unknown.append(span)
            raise
        except DataRejected as error:
            flight.data_errors[span] = str(error)
            raise

    def _insert_in_parts(
        self, flight: _PendingBatch, span: OffsetRange, token: str | None, error: DataRejected
    ) -> int:
        """Halves a refused range until the bad rows are alone; answers how many rows went in.

        The offsets decide where, not the rows, so that another process, with another decoder even,
        cuts at the same places.
        """
        if span.end - span.first == 1:
            self._send_refused(flight, span, error)
            return 0
        middle = (span.first + span.end) // 2
        inserted = 0
        for half in (OffsetRange(span.first, middle), OffsetRange(middle, span.end)):
            columns, records = flight.batch.rows_within(half)
            if not records:
                continue
            try:
                self._insert(columns, token and protocol.part_token(token, half), flight, half)
                inserted += len(records)
                if half.first not in flight.counted:
                    flight.counted.add(half.first)
                    self._breaker.saw_inserted(0 if flight.batch.is_counted else len(records))
            except DataRejected as refused:
                inserted += self._insert_in_parts(flight, half, token, refused)
        return inserted

    def _send_refused(self, flight: _PendingBatch, span: OffsetRange, error: DataRejected) -> None:
        if span.first in flight.refused:
            return  # sent before something else could not be reached
        _, records = flight.batch.rows_within(span)
        if span.first not in flight.counted:
            flight.counted.add(span.first)
            self._breaker.saw_refused(len(records), is_counted=flight.batch.is_counted)
        bad = [RejectedRecord(record, "refused_by_clickhouse", str(error)) for record in records]
        self._send(bad)
        self._observer.rejected(bad)
        flight.refused.add(span.first)

    def _arrived(self, flight: _PendingBatch, rows: int) -> None:
        batch, seconds = flight.batch, self._clock.now() - flight.started_at
        if rows and not batch.keeps_records:
            self._breaker.saw_inserted(0)
        token = self._ledger.token(batch.partition)
        self._ledger.inserted(batch.partition, batch.span)
        with nullcontext() if flight.trace is None else flight.trace.entered():
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
        if flight.trace is not None:
            flight.trace.end(rows)


def _is_part(span: OffsetRange, whole: OffsetRange) -> bool:
    return span != whole and whole.first <= span.first and span.end <= whole.end


def _step(flights: Sequence[_PendingBatch], name: str) -> AbstractContextManager[object]:
    """Around a step that these batches take together; what it calls belongs to the last one's trace."""
    traces = [flight.trace for flight in flights if flight.trace is not None]
    if not traces:
        return nullcontext()
    steps = ExitStack()
    for trace in traces:
        steps.enter_context(trace.step(name))
    return steps
