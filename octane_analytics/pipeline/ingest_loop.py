"""The loop: poll, decode, batch, send out; and what happens when partitions come and go.

One turn of the loop is one `step`. Nothing in it waits for an outage to end: what could not be done
stays in the outbox and is tried again in a later turn, so that the member keeps its place in the group
(Kafka is the buffer meanwhile). Knows neither Kafka nor ClickHouse, only the Protocols of `types`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from octane_analytics.errors import Rebalancing, Unavailable
from octane_analytics.events.event import Decode
from octane_analytics.interfaces import Clock, DeadLetters, Observer, Sink, Source, Tracer
from octane_analytics.pipeline.batch import Batch, BatchLimits
from octane_analytics.pipeline.batch_writer import BatchWriter, Delivery
from octane_analytics.pipeline.delivery_ledger import DeliveryLedger
from octane_analytics.pipeline.dlq_limit import DlqLimit, DlqLimitConfig
from octane_analytics.pipeline.outages import KAFKA, Outages
from octane_analytics.pipeline.positions import Positions
from octane_analytics.runtime.timing import Backoff
from octane_analytics.types import EndOfPartition, OffsetGone, Record, TopicPartition

_POLL_RECORDS = 1_000
"""So few that records and what is made of them stay in the processor's cache: in polls of 10,000 each
took half as long again to fetch. Enough that what is done for each poll counts for little."""
_REBALANCE_RETRY_SECONDS = 0.05
_ASSIGN_ATTEMPTS_SECONDS = 60.0
_CONTEXTS = 128
"""Producers' contexts that one batch remembers; tracing backends take about as many links."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    topic: str
    limits: BatchLimits
    delivery: Delivery = Delivery.EXACTLY_ONCE
    breaker: DlqLimitConfig = field(default_factory=DlqLimitConfig)
    poll_seconds: float = 0.1
    quiet_poll_seconds: float = 0.1
    """How long a poll waits where nothing came in before and nothing waits to leave."""
    idle_seconds: float = 1.0
    """After this long without a record a partition's offset is committed without an intent."""
    max_bytes: int = 32 << 20
    """Payload bytes over all open batches beyond which the largest of them go out."""


class IngestLoop:
    """One member of the consumer group and its insert connection. Runs on one thread."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        dead_letters: DeadLetters,
        decode: Decode,
        clock: Clock,
        observer: Observer,
        options: IngestOptions,
        backoff: Backoff,
        tracer: Tracer | None = None,
    ) -> None:
        self._source = source
        self._decode = decode
        self._clock = clock
        self._observer = observer
        self._options = options
        self._backoff = backoff
        self._tracer = tracer
        self._ledger = DeliveryLedger()
        self._outages = Outages(clock, observer)
        self._breaker = DlqLimit(options.breaker)
        self._outbox = BatchWriter(
            source,
            sink,
            dead_letters,
            self._ledger,
            clock,
            observer,
            self._outages,
            self._breaker,
            delivery=options.delivery,
            max_rows=options.limits.max_rows,
            tracer=tracer,
        )
        self._open: dict[TopicPartition, Batch] = {}
        self._active_at: dict[TopicPartition, float] = {}
        """When each partition with something to complete last had traffic."""
        self._positions = Positions(
            options.topic,
            source,
            self._ledger,
            self._open,
            self._outbox,
            clock,
            observer,
            self._outages,
        )
        self._retry_at: float | None = None
        self._is_paused = False
        self._is_quiet = False

    def run(self, should_stop: Callable[[], bool], drain_seconds: float) -> bool:
        """Works until told to stop, then drains. Answers whether all that was read is stored.

        Raises AssignmentLost when another process has taken this member's place for good, and
        TooManyRejected; the source is not closed then, for the process is to end as it stands.
        """
        self._source.subscribe(self)
        while not should_stop():
            self.run_once()
        is_drained = self.drain(drain_seconds)
        self._source.close()
        return is_drained

    def run_once(self) -> None:
        """One turn: what is on its way goes on, records come in, what is due leaves."""
        self._flush_pending()
        if self._outbox.is_empty and self._retry_at is None:
            self._resume()  # also where what had filled the outbox was taken away
        self._poll()
        if self._outbox.is_empty and self._retry_at is None:
            self._send_out(self._due())
        if self._outbox.is_empty and self._retry_at is None:
            self._complete_idle()
        elif self._is_full():
            self._pause()

    def drain(self, seconds: float) -> bool:
        """Inserts all that was read and leaves nothing pending, for at most `seconds`.

        Answers whether that worked; what is left is inserted by whoever owns the partitions next.
        """
        deadline = self._clock.now() + seconds
        self._pause()
        while self._clock.now() < deadline:
            left = [b for b in self._open.values() if not b.is_empty and b.fixed_end is None]
            if self._outbox.is_empty and left:
                self._send_out(left)
            self._flush_pending()
            if self._outbox.is_empty and not left and self._complete(self._ledger.partitions()):
                return all(batch.fixed_end is None for batch in self._open.values())
            self._pause()
            if not self._outbox.is_empty or self._retry_at is not None or not left:
                self._receive(self._options.poll_seconds)
        return False

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """See `types.RebalanceListener`."""
        starts = self._persist(lambda: self._positions.assign(partitions)) if partitions else {}
        self._observer.assigned(partitions, len(self._ledger.partitions()))
        return starts

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """See `types.RebalanceListener`."""
        if self._backoff.attempts == 0:  # else something is away, and the next owner finishes it
            self._retry_at = None
            self._flush_pending()
        self._complete([p for p in partitions if p in self._ledger])
        self._forget(partitions)
        self._observer.revoked(partitions, len(self._ledger.partitions()))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """See `types.RebalanceListener`."""
        self._forget(partitions)
        self._observer.lost(partitions, len(self._ledger.partitions()))

    def _persist(self, call: Callable[[], dict[TopicPartition, int]]) -> dict[TopicPartition, int]:
        # There is no assignment without positions, so this one place waits where it stands.
        deadline = self._clock.now() + _ASSIGN_ATTEMPTS_SECONDS
        pauses = self._backoff.fresh()
        while True:
            try:
                return call()
            except Unavailable:
                if self._clock.now() >= deadline:
                    raise
                self._clock.sleep(pauses.next_seconds())

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._ledger.forget(partition)
            self._open.pop(partition, None)
            self._active_at.pop(partition, None)
        self._positions.forget(partitions)
        self._outbox.forget(partitions)

    def _poll(self) -> None:
        """Takes what is there: under backlog as much as the limits allow, else one poll's worth."""
        deadline = self._clock.now() + self._options.limits.flush_seconds
        taken = self._receive(
            self._options.quiet_poll_seconds if self._is_quiet else self._options.poll_seconds
        )
        self._is_quiet = (
            not taken
            and self._retry_at is None
            and self._outbox.is_empty
            and all(batch.is_empty for batch in self._open.values())
        )
        while (
            taken >= _POLL_RECORDS
            and not self._is_paused
            and not self._is_full()
            and self._clock.now() < deadline
        ):
            taken = self._receive(0.0)

    def _receive(self, timeout_seconds: float) -> int:
        try:
            with self._outages.track(KAFKA, "poll"):
                polled = self._source.poll(_POLL_RECORDS, timeout_seconds)
        except Unavailable:
            return 0
        if polled.records:
            self._add_records(polled.records)
        for end in polled.ends:
            self._reached_end(end)
        for gone in polled.gone:
            self._recover_lost_position(gone)
        return len(polled.records)

    def _add_records(self, records: Sequence[Record]) -> None:
        now = self._clock.now()
        taken = 0
        end = 0
        for number, run in groupby([record.partition() for record in records]):
            begin, end = end, end + len(list(run))
            of_partition = records[begin:end]
            assert number is not None, "a record that was read has a partition"
            batch = self._open.get(TopicPartition(self._options.topic, number))
            if batch is None or batch.is_complete:
                continue  # not ours any more, or behind the announced range: it will be read again
            before, first = len(batch.rejected), batch.end
            of_batch = batch.append(of_partition, self._decode, now)
            room = _CONTEXTS - len(batch.contexts)
            if self._tracer is not None and room:
                if of_batch < len(of_partition):
                    of_partition = [
                        r for r in of_partition if first <= (r.offset() or 0) < batch.end
                    ]
                batch.contexts += self._tracer.contexts(of_partition, room)
            if batch.keeps_records:
                continue  # all of it was seen before
            taken += of_batch
            if len(batch.rejected) > before:
                self._observer.rejected(batch.rejected[before:])
            if batch.fixed_end is None:  # what was announced before was let through before
                batch.is_counted = True
                self._breaker.record(of_batch, len(batch.rejected) - before)
        self._observer.consumed(taken)
        self._observer.call_finished("decode", self._clock.now() - now)

    def _reached_end(self, end: EndOfPartition) -> None:
        batch = self._open.get(end.partition)
        if batch is not None and end.offset > batch.end:
            # The log ends with what is no record (a transaction's marker, a compacted record).
            batch.skip_to(end.offset, self._clock.now())

    def _recover_lost_position(self, gone: OffsetGone) -> None:
        try:
            self._positions.find(gone)
        except Unavailable:
            # Asks again, and is told again.
            self._source.seek(gone.partition, self._open[gone.partition].end)

    def _is_full(self) -> bool:
        limits = self._options.limits
        batches = self._open.values()
        return any(batch.is_full(limits) for batch in batches) or (
            sum(batch.payload_bytes for batch in batches) >= self._options.max_bytes
        )

    def _due(self) -> list[Batch]:
        now, limits = self._clock.now(), self._options.limits
        batches = self._open.values()
        due = [
            batch
            for batch in batches
            if batch.is_due(limits, now)
            or (batch.partition in self._positions.replaced and not batch.is_empty)
        ]
        due += [batch for batch in self._excess() if batch not in due]
        if self._options.delivery is Delivery.AT_LEAST_ONCE and (
            due or sum(batch.rows for batch in batches) >= limits.size
        ):
            return [b for b in batches if not b.is_empty and (b.fixed_end is None or b.is_complete)]
        return due

    def _excess(self) -> list[Batch]:
        """The largest batches, where all of them together hold too much: half of it is to go."""
        held = sum(batch.payload_bytes for batch in self._open.values())
        if held < self._options.max_bytes:
            return []
        found = []
        for batch in sorted(self._open.values(), key=lambda b: b.payload_bytes, reverse=True):
            if held <= self._options.max_bytes // 2:
                break
            if batch.fixed_end is None:
                found.append(batch)
                held -= batch.payload_bytes
        return found

    def _send_out(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._open[batch.partition] = Batch(batch.partition, batch.end)
            if batch.fixed_end is not None:
                # Records behind the range were not taken: they are still to be read.
                self._source.seek(batch.partition, batch.end)
            self._active_at[batch.partition] = self._clock.now()
        self._outbox.enqueue(batches)
        self._flush_pending()

    def _flush_pending(self) -> None:
        """Goes on with what is on its way, unless it is to wait."""
        if self._retry_at is None:
            if self._outbox.is_empty and not self._positions.replaced:
                return
        elif self._clock.now() < self._retry_at:
            return
        try:
            self._positions.confirm()
            self._outbox.push()
            if self._outbox.is_empty and self._positions.start_anew():
                self._forget(self._ledger.partitions())
                self._source.recreate_client()
        except Rebalancing:
            self._backoff.reset()
            self._retry_at = self._clock.now() + _REBALANCE_RETRY_SECONDS
        except Unavailable:
            self._retry_at = self._clock.now() + self._backoff.next_seconds()
            if self._backoff.attempts > 1:  # pausing throws away what is prefetched
                self._pause()
        else:
            self._backoff.reset()
            self._retry_at = None
        finally:
            for batch, reason in self._outbox.pop_rejected():
                self._read_again(batch, reason)

    def _read_again(self, batch: Batch, reason: str) -> None:
        """Has a refused range come in once more, with its records, to tell the bad rows apart."""
        self._observer.bisecting_rejected_rows(batch.partition, batch.span, reason)
        self._open[batch.partition] = Batch(
            batch.partition,
            batch.first,
            until=batch.end,
            keeps_records=True,
            is_counted=batch.is_counted,
            may_be_inserted=batch.may_be_inserted,
        )
        self._source.seek(batch.partition, batch.first)

    def _complete_idle(self) -> None:
        now, idle_seconds = self._clock.now(), self._options.idle_seconds
        self._complete(
            [
                partition
                for partition, active_at in self._active_at.items()
                if now - active_at >= idle_seconds and self._open[partition].is_empty
            ]
        )

    def _complete(self, partitions: Sequence[TopicPartition]) -> bool:
        try:
            self._outbox.complete(partitions)
        except Unavailable:
            return False
        for partition in partitions:
            self._active_at.pop(partition, None)
        return True

    def _pause(self) -> None:
        if not self._is_paused:
            self._source.pause()
            self._is_paused = True

    def _resume(self) -> None:
        if self._is_paused:
            self._source.resume()
            self._is_paused = False
