"""The loop: poll, decode, batch, announce, insert, done; and what happens when partitions move.

One turn of the loop is one `step`. Nothing in it waits for an outage to end: what could not be done
stays in flight and is tried again in a later turn, so that the member keeps its place in the group
(Kafka is the buffer meanwhile). Knows neither Kafka nor ClickHouse, only the Protocols of `types`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from operator import methodcaller

from octane_analytics import ledger as protocol
from octane_analytics.batch import Batch, Limits
from octane_analytics.breaker import Breaker, BreakerLimits
from octane_analytics.errors import AssignmentLost, DataRejected, Rebalancing, Unavailable
from octane_analytics.ledger import Ledger
from octane_analytics.timing import Backoff
from octane_analytics.types import (
    Clock,
    Committed,
    DeadLetters,
    EndOfPartition,
    Observer,
    OffsetGone,
    Record,
    Rejected,
    Row,
    Sink,
    Source,
    Span,
    TopicPartition,
)

_POLL_RECORDS = 10_000
_REBALANCE_RETRY_SECONDS = 0.05
_ASSIGN_ATTEMPTS_SECONDS = 60.0


class Delivery(Enum):
    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"


@dataclass(frozen=True, slots=True)
class Options:
    topic: str
    limits: Limits
    delivery: Delivery = Delivery.EXACTLY_ONCE
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    poll_seconds: float = 0.1
    idle_seconds: float = 1.0
    """After this long without a record a partition's offset is committed without an intent."""
    max_bytes: int = 32 << 20
    """Payload bytes over all open batches beyond which nothing more is read before an insert."""


@dataclass(slots=True)
class _Flight:
    """A batch on its way out; each stage is left behind once it is known to be done."""

    batch: Batch
    started_at: float
    is_announced: bool
    are_rejects_sent: bool = False


class Ingest:
    """One member of the consumer group and its insert connection. Runs on one thread."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        dead_letters: DeadLetters,
        decode: Callable[[bytes | None], Row],
        clock: Clock,
        observer: Observer,
        options: Options,
        backoff: Backoff,
    ) -> None:
        self._source = source
        self._sink = sink
        self._dead_letters = dead_letters
        self._decode = decode
        self._clock = clock
        self._observer = observer
        self._options = options
        self._backoff = backoff
        self._ledger = Ledger()
        self._breaker = Breaker(options.breaker)
        self._open: dict[TopicPartition, Batch] = {}
        self._flights: list[_Flight] = []
        self._last_insert_at: dict[TopicPartition, float] = {}
        self._replaced: set[TopicPartition] = set()
        self._retry_at: float | None = None
        self._failing: str | None = None
        self._is_paused = False

    def run(self, should_stop: Callable[[], bool], drain_seconds: float) -> bool:
        """Works until told to stop, then drains. Answers whether all that was read is stored.

        Raises AssignmentLost when another process has taken this member's place for good, and
        TooManyRejected; the source is not closed then, for the process is to end as it stands.
        """
        self._source.subscribe(self)
        while not should_stop():
            self.step()
        is_drained = self.drain(drain_seconds)
        self._source.close()
        return is_drained

    def step(self) -> None:
        """One turn: what is in flight goes on, records come in, what is due takes off."""
        self._deliver()
        self._poll()
        if self._flights and self._is_full():
            self._pause()
        if not self._flights and self._failing is None:
            self._take_off(self._due())
            self._complete_idle()

    def drain(self, seconds: float) -> bool:
        """Inserts all that was read and leaves nothing pending, for at most `seconds`.

        Answers whether that worked; what is left is inserted by whoever owns the partitions next.
        """
        deadline = self._clock.now() + seconds
        self._pause()
        while self._clock.now() < deadline:
            if not self._flights:
                left = [b for b in self._open.values() if not b.is_empty and b.until is None]
                if not left:
                    return self._complete(self._ledger.partitions())
                self._take_off(left)
            self._deliver()
            if self._flights:
                self._receive(self._options.poll_seconds)
        return False

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """See `types.RebalanceListener`."""
        starts = self._persist(lambda: self._starts(partitions))
        self._observer.assigned(partitions, len(self._ledger.partitions()))
        return starts

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """See `types.RebalanceListener`."""
        if self._failing is None:
            self._retry_at = None
            self._deliver()
        self._complete([p for p in partitions if p in self._ledger])
        self._forget(partitions)
        self._observer.revoked(partitions, len(self._ledger.partitions()))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """See `types.RebalanceListener`."""
        self._forget(partitions)
        self._observer.lost(partitions, len(self._ledger.partitions()))

    def _starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        log = self._source.log_identity(self._options.topic)
        positions = {}
        for partition, committed in self._source.committed(partitions).items():
            start = self._ledger.assign(partition, committed, log)
            first = self._source.earliest(partition) if start.offset is None else start.offset
            until = None if start.recovering is None else start.recovering.end
            self._open[partition] = Batch(partition, first, until=until)
            positions[partition] = first
        return positions

    def _persist(self, call: Callable[[], dict[TopicPartition, int]]) -> dict[TopicPartition, int]:
        # There is no assignment without positions, so this one place waits where it stands.
        deadline = self._clock.now() + _ASSIGN_ATTEMPTS_SECONDS
        self._backoff.reset()
        while True:
            try:
                return call()
            except Unavailable as error:
                if self._clock.now() >= deadline:
                    raise
                self._observer.failed("kafka", error)
                self._clock.sleep(self._backoff.next_seconds())

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        gone = set(partitions)
        for partition in partitions:
            self._ledger.forget(partition)
            self._open.pop(partition, None)
            self._last_insert_at.pop(partition, None)
        self._replaced -= gone
        self._flights = [f for f in self._flights if f.batch.partition not in gone]

    def _poll(self) -> None:
        """Takes what is there: under backlog as much as the limits allow, else one poll's worth."""
        deadline = self._clock.now() + self._options.limits.flush_seconds
        taken = self._receive(self._options.poll_seconds)
        while (
            taken >= _POLL_RECORDS
            and not self._is_paused
            and not self._is_full()
            and self._clock.now() < deadline
        ):
            taken = self._receive(0.0)

    def _receive(self, timeout_seconds: float) -> int:
        try:
            polled = self._source.poll(_POLL_RECORDS, timeout_seconds)
        except Unavailable as error:
            self._observer.failed("kafka", error)
            self._clock.sleep(min(timeout_seconds, self._options.poll_seconds))
            return 0
        if polled.records:
            self._take(polled.records)
        for end in polled.ends:
            self._reached_end(end)
        for gone in polled.gone:
            self._find_position(gone)
        return len(polled.records)

    def _take(self, records: Sequence[Record]) -> None:
        now = self._clock.now()
        taken = 0
        for number, group in groupby(records, key=methodcaller("partition")):
            batch = self._open.get(TopicPartition(self._options.topic, number))
            if batch is None or batch.is_complete:
                continue  # not ours any more, or behind the announced range: it will be read again
            before = len(batch.rejected)
            of_batch = batch.take(list(group), self._decode, now)
            taken += of_batch
            if len(batch.rejected) > before:
                self._observer.rejected(batch.rejected[before:])
            if batch.until is None:  # what was announced before was let through before
                self._breaker.saw(of_batch, len(batch.rejected) - before)
        self._observer.consumed(taken)

    def _reached_end(self, end: EndOfPartition) -> None:
        batch = self._open.get(end.partition)
        if batch is None or end.offset <= batch.end:
            return
        # The log ends with what is no record (a transaction's marker, a compacted record).
        batch.advance(end.offset)
        if batch.is_empty and batch.until is None:
            batch.opened_at = self._clock.now()

    def _find_position(self, gone: OffsetGone) -> None:
        """The log does not hold what was to be read next: say what is missing, go on behind it."""
        batch = self._open.get(gone.partition)
        if batch is None:
            return
        try:
            earliest = self._source.earliest(gone.partition)
        except Unavailable as error:
            self._observer.failed("kafka", error)
            self._source.seek(gone.partition, batch.end)  # asks again, and is told again
            return
        if earliest > batch.end:
            self._observer.offsets_gone(gone.partition, batch.end, earliest)
            batch.advance(earliest)
            if batch.is_empty:
                batch.opened_at = self._clock.now()
            self._source.seek(gone.partition, batch.end)
        else:
            self._observer.log_replaced(gone.partition, batch.end)
            self._replaced.add(gone.partition)
            if batch.until is not None:
                batch.advance(batch.until)  # the rest of the announced range is no more

    def _start_anew(self, partition: TopicPartition) -> None:
        log = self._source.log_identity(self._options.topic)
        earliest = self._source.earliest(partition)
        self._ledger.assign(partition, Committed(earliest, ""), log)
        self._open[partition] = Batch(partition, earliest)
        self._source.seek(partition, earliest)
        self._replaced.discard(partition)

    def _is_full(self) -> bool:
        limits = self._options.limits
        return any(batch.is_full(limits) for batch in self._open.values()) or (
            sum(batch.payload_bytes for batch in self._open.values()) >= self._options.max_bytes
        )

    def _due(self) -> list[Batch]:
        now, limits = self._clock.now(), self._options.limits
        batches = self._open.values()
        due = [
            b
            for b in batches
            if b.is_due(limits, now) or (b.partition in self._replaced and not b.is_empty)
        ]
        if self._options.delivery is Delivery.EXACTLY_ONCE:
            return due or self._largest()
        if due or self._largest() or sum(batch.rows for batch in batches) >= limits.size:
            return [b for b in batches if not b.is_empty and (b.until is None or b.is_complete)]
        return []

    def _largest(self) -> list[Batch]:
        """The batch to make room with, where all of them together hold too much."""
        batches = [batch for batch in self._open.values() if batch.until is None]
        if sum(batch.payload_bytes for batch in batches) < self._options.max_bytes:
            return []
        return [max(batches, key=lambda batch: batch.payload_bytes)]

    def _take_off(self, batches: Sequence[Batch]) -> None:
        now = self._clock.now()
        for batch in batches:
            is_recovery = batch.until is not None
            is_announced = is_recovery or self._options.delivery is Delivery.AT_LEAST_ONCE
            self._flights.append(_Flight(batch, now, is_announced))
            self._open[batch.partition] = Batch(batch.partition, batch.end)
            if is_recovery:
                # Records behind the range were not taken: they are still to be read.
                self._source.seek(batch.partition, batch.end)
        self._deliver()

    def _deliver(self) -> None:
        """Goes on with what is in flight, until it is all done or something cannot be reached."""
        if self._retry_at is None:
            if not self._flights and not self._replaced:
                return
        elif self._clock.now() < self._retry_at:
            return
        doing = "kafka"
        try:
            self._announce()
            doing = "dead_letters"
            self._send_rejects()
            doing = "clickhouse"
            self._insert()
            doing = "kafka"
            if self._options.delivery is Delivery.AT_LEAST_ONCE:
                self._commit_completions(self._ledger.partitions())
            for partition in [p for p in self._replaced if self._open[p].is_empty]:
                self._start_anew(partition)
        except Rebalancing:
            self._retry_at = self._clock.now() + _REBALANCE_RETRY_SECONDS
        except Unavailable as error:
            self._wait(doing, error)
        else:
            self._go_on()

    def _announce(self) -> None:
        flights = [f for f in self._flights if not f.is_announced]
        spans = {f.batch.partition: f.batch.span for f in flights}
        if not spans:
            return
        self._source.commit(self._ledger.announce(spans))
        self._ledger.accept(spans)
        for flight in flights:
            flight.is_announced = True

    def _send_rejects(self) -> None:
        flights = [f for f in self._flights if not f.are_rejects_sent]
        self._send([rejected for f in flights for rejected in f.batch.rejected])
        for flight in flights:
            flight.are_rejects_sent = True

    def _send(self, rejected: Sequence[Rejected]) -> None:
        if rejected:
            self._dead_letters.send(rejected)
            self._observer.dead_lettered(len(rejected))

    def _insert(self) -> None:
        if self._options.delivery is Delivery.AT_LEAST_ONCE:
            self._insert_together()
        while self._flights:
            flight = self._flights[0]
            self._insert_one(flight.batch)
            self._flights.pop(0)
            if flight.batch.partition in self._ledger and not self._is_isolating(flight.batch):
                self._arrived(flight)

    def _insert_together(self) -> None:
        """One insert for all that has no token of its own; on bad data each goes by itself."""
        flights = [f for f in self._flights if self._ledger.token(f.batch.partition) is None]
        if len(flights) < 2 or any(f.batch.keeps_records for f in flights):
            return
        columns: list[list[object]] = [[] for _ in flights[0].batch.columns]
        for flight in flights:
            for column, more in zip(columns, flight.batch.columns, strict=True):
                column += more
        if len(columns[0]) >= self._options.limits.max_rows:
            return
        try:
            if columns[0]:
                self._sink.insert(columns, None)
        except DataRejected:
            return
        for flight in flights:
            self._flights.remove(flight)
            self._arrived(flight)

    def _arrived(self, flight: _Flight) -> None:
        batch, now = flight.batch, self._clock.now()
        self._ledger.inserted(batch.partition, batch.span)
        self._last_insert_at[batch.partition] = now
        self._observer.inserted(batch.partition, batch.span, batch.rows, now - flight.started_at)
        if batch.until is not None and not batch.keeps_records:
            self._observer.recovered(batch.partition, batch.span)

    def _insert_one(self, batch: Batch) -> None:
        token = self._ledger.token(batch.partition)
        if not batch.rows:
            return
        try:
            self._sink.insert(batch.columns, token)
        except DataRejected as error:
            if batch.keeps_records:
                self._insert_in_parts(batch, batch.span, token, error)
            else:
                self._read_again(batch, str(error))

    def _read_again(self, batch: Batch, reason: str) -> None:
        """Has the range come in once more, with its records, to tell the bad rows from the good."""
        self._observer.isolating(batch.partition, batch.span, reason)
        self._open[batch.partition] = Batch(
            batch.partition, batch.first, until=batch.end, keeps_records=True
        )
        self._source.seek(batch.partition, batch.first)

    def _is_isolating(self, batch: Batch) -> bool:
        successor = self._open.get(batch.partition)
        return successor is not None and successor is not batch and successor.first < batch.end

    def _insert_in_parts(
        self, batch: Batch, span: Span, token: str | None, error: DataRejected
    ) -> None:
        """Halves the range until the bad rows are alone; the offsets decide where, not the rows,
        so that another process, with another decoder even, would cut at the same places."""
        columns, records = batch.rows_within(span)
        if span.end - span.first == 1:
            bad = [Rejected(record, "refused_by_clickhouse", str(error)) for record in records]
            self._observer.rejected(bad)
            self._send(bad)
            return
        middle = (span.first + span.end) // 2
        for half in (Span(span.first, middle), Span(middle, span.end)):
            columns, _ = batch.rows_within(half)
            if not columns[0]:
                continue
            try:
                self._sink.insert(columns, token and protocol.part_token(token, half))
            except DataRejected as refused:
                self._insert_in_parts(batch, half, token, refused)

    def _complete_idle(self) -> None:
        now = self._clock.now()
        self._complete(
            [
                partition
                for partition, inserted_at in self._last_insert_at.items()
                if now - inserted_at >= self._options.idle_seconds
                and self._open[partition].is_empty
            ]
        )

    def _complete(self, partitions: Sequence[TopicPartition]) -> bool:
        try:
            self._commit_completions(partitions)
        except (Unavailable, AssignmentLost) as error:
            if not isinstance(error, Rebalancing):
                self._observer.failed("kafka", error)
            return False
        return True

    def _commit_completions(self, partitions: Sequence[TopicPartition]) -> None:
        commits = self._ledger.completions(partitions)
        if commits:
            self._source.commit(commits)
            self._ledger.completed(commits)
        for partition in partitions:
            self._last_insert_at.pop(partition, None)

    def _wait(self, dependency: str, error: Unavailable) -> None:
        if self._failing is None:
            self._backoff.reset()
        self._failing = dependency
        self._observer.failed(dependency, error)
        self._retry_at = self._clock.now() + self._backoff.next_seconds()
        if self._backoff.attempts > 1:  # pausing throws away what is prefetched
            self._pause()

    def _go_on(self) -> None:
        self._retry_at = None
        if self._failing is not None:
            self._observer.resumed(self._failing)
            self._failing = None
        if self._is_paused:
            self._source.resume()
            self._is_paused = False

    def _pause(self) -> None:
        if not self._is_paused:
            self._source.pause()
            self._is_paused = True
