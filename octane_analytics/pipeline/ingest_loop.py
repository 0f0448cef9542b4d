"""Ingest loop: polls, decodes, batches and writes records, and handles rebalances.

One iteration is one `run_once`. No step waits for an outage to end: unfinished batches stay in the
writer and are retried in a later iteration, so that the member stays in the group (Kafka is the buffer
meanwhile). Depends on neither Kafka nor ClickHouse, only on the Protocols of `interfaces`.
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
"""Records per poll. Few enough that records and rows stay in the processor's cache: fetching took half
as long again in polls of 10,000. Enough that the cost of each poll matters little."""
_REBALANCE_RETRY_SECONDS = 0.05
_ASSIGN_ATTEMPTS_SECONDS = 60.0
_CONTEXTS = 128
"""Limit of producers' contexts that a batch keeps; tracing backends accept about as many links."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    topic: str
    limits: BatchLimits
    delivery: Delivery = Delivery.EXACTLY_ONCE
    dlq_limit: DlqLimitConfig = field(default_factory=DlqLimitConfig)
    poll_seconds: float = 0.1
    quiet_poll_seconds: float = 0.1
    """Timeout of a poll if the last one returned nothing and no batch is open or pending."""
    idle_seconds: float = 1.0
    """Time without a record after which a partition's offset is committed without an intent."""
    max_bytes: int = 32 << 20
    """Payload bytes of all open batches above which the largest of them are written."""


class IngestLoop:
    """Group member with its insert connection. Runs on one thread."""

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
        self._dlq_limit = DlqLimit(options.dlq_limit)
        self._writer = BatchWriter(
            source,
            sink,
            dead_letters,
            self._ledger,
            clock,
            observer,
            self._outages,
            self._dlq_limit,
            delivery=options.delivery,
            max_rows=options.limits.max_rows,
            tracer=tracer,
        )
        self._open: dict[TopicPartition, Batch] = {}
        self._active_at: dict[TopicPartition, float] = {}
        """Time of the last record of each partition with a completion to commit."""
        self._positions = Positions(
            options.topic,
            source,
            self._ledger,
            self._open,
            self._writer,
            clock,
            observer,
            self._outages,
        )
        self._retry_at: float | None = None
        self._is_paused = False
        self._is_quiet = False

    def run(self, should_stop: Callable[[], bool], drain_seconds: float) -> bool:
        """Run until `should_stop`, then drain. Return whether everything read is stored.

        Raise AssignmentLost if another process has replaced this member for good, or TooManyRejected;
        the source is not closed then, because the process must end as it is.
        """
        self._source.subscribe(self)
        while not should_stop():
            self.run_once()
        is_drained = self.drain(drain_seconds)
        self._source.close()
        return is_drained

    def run_once(self) -> None:
        """Run one iteration: write pending batches, poll, then write the batches that are due."""
        self._flush_pending()
        if self._writer.is_empty and self._retry_at is None:
            self._resume()  # also if the pending batches were revoked
        self._poll()
        if self._writer.is_empty and self._retry_at is None:
            self._write(self._due())
        if self._writer.is_empty and self._retry_at is None:
            self._complete_idle()
        elif self._is_full():
            self._pause()

    def drain(self, seconds: float) -> bool:
        """Insert everything read and leave nothing pending; blocks for up to `seconds`.

        Return whether that succeeded; otherwise the next owner of the partitions inserts the rest.
        """
        deadline = self._clock.now() + seconds
        self._pause()
        while self._clock.now() < deadline:
            left = [b for b in self._open.values() if not b.is_empty and b.fixed_end is None]
            if self._writer.is_empty and left:
                self._write(left)
            self._flush_pending()
            if self._writer.is_empty and not left and self._complete(self._ledger.partitions()):
                return all(batch.fixed_end is None for batch in self._open.values())
            self._pause()
            if not self._writer.is_empty or self._retry_at is not None or not left:
                self._receive(self._options.poll_seconds)
        return False

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Take the partitions over; see `interfaces.RebalanceListener`."""
        starts = self._retry_assign(partitions) if partitions else {}
        self._observer.assigned(partitions, len(self._ledger.partitions()))
        return starts

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish and give up the partitions; see `interfaces.RebalanceListener`."""
        if self._backoff.attempts == 0:  # in an outage, the next owner finishes them
            self._retry_at = None
            self._flush_pending()
        self._complete([p for p in partitions if p in self._ledger])
        self._forget(partitions)
        self._observer.revoked(partitions, len(self._ledger.partitions()))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up the partitions; see `interfaces.RebalanceListener`."""
        self._forget(partitions)
        self._observer.lost(partitions, len(self._ledger.partitions()))

    def _retry_assign(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        # An assignment needs positions, so this is the only place that blocks during an outage.
        deadline = self._clock.now() + _ASSIGN_ATTEMPTS_SECONDS
        pauses = self._backoff.fresh()
        while True:
            try:
                return self._positions.assign(partitions)
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
        self._writer.forget(partitions)

    def _poll(self) -> None:
        """Poll once; under backlog, until a limit is reached."""
        deadline = self._clock.now() + self._options.limits.flush_seconds
        received = self._receive(
            self._options.quiet_poll_seconds if self._is_quiet else self._options.poll_seconds
        )
        self._is_quiet = (
            not received
            and self._retry_at is None
            and self._writer.is_empty
            and all(batch.is_empty for batch in self._open.values())
        )
        while (
            received >= _POLL_RECORDS
            and not self._is_paused
            and not self._is_full()
            and self._clock.now() < deadline
        ):
            received = self._receive(0.0)

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
        consumed = 0
        end = 0
        for number, run in groupby([record.partition() for record in records]):
            begin, end = end, end + len(list(run))
            of_partition = records[begin:end]
            assert number is not None, "a record that was read has a partition"
            batch = self._open.get(TopicPartition(self._options.topic, number))
            if batch is None or batch.is_complete:
                continue  # no longer assigned, or after the announced range: will be read again
            before, first = len(batch.rejected), batch.end
            accepted = batch.append(of_partition, self._decode, now)
            room = _CONTEXTS - len(batch.contexts)
            if self._tracer is not None and room:
                if accepted < len(of_partition):
                    of_partition = [
                        r for r in of_partition if first <= (r.offset() or 0) < batch.end
                    ]
                batch.contexts += self._tracer.contexts(of_partition, room)
            if batch.keeps_records:
                continue  # read and counted before
            consumed += accepted
            if len(batch.rejected) > before:
                self._observer.rejected(batch.rejected[before:])
            if batch.fixed_end is None:  # an announced range has passed the limit before
                batch.is_counted = True
                self._dlq_limit.record(accepted, len(batch.rejected) - before)
        self._observer.consumed(consumed)
        self._observer.call_finished("decode", self._clock.now() - now)

    def _reached_end(self, end: EndOfPartition) -> None:
        batch = self._open.get(end.partition)
        if batch is not None and end.offset > batch.end:
            # The log ends without a visible record (a transaction's marker, a compacted record).
            batch.skip_to(end.offset, self._clock.now())

    def _recover_lost_position(self, gone: OffsetGone) -> None:
        try:
            self._positions.recover(gone)
        except Unavailable:
            # Reading there again reports the lost position again.
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
        """Return the largest batches if all together exceed the limit: enough to halve the total."""
        total_bytes = sum(batch.payload_bytes for batch in self._open.values())
        if total_bytes < self._options.max_bytes:
            return []
        found = []
        for batch in sorted(self._open.values(), key=lambda b: b.payload_bytes, reverse=True):
            if total_bytes <= self._options.max_bytes // 2:
                break
            if batch.fixed_end is None:
                found.append(batch)
                total_bytes -= batch.payload_bytes
        return found

    def _write(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._open[batch.partition] = Batch(batch.partition, batch.end)
            if batch.fixed_end is not None:
                # Records after the range were ignored: read them again.
                self._source.seek(batch.partition, batch.end)
            self._active_at[batch.partition] = self._clock.now()
        self._writer.enqueue(batches)
        self._flush_pending()

    def _flush_pending(self) -> None:
        """Write pending batches, unless a retry is scheduled for later."""
        if self._retry_at is None:
            if self._writer.is_empty and not self._positions.replaced:
                return
        elif self._clock.now() < self._retry_at:
            return
        try:
            self._positions.confirm_log()
            self._writer.write_pending()
            if self._writer.is_empty and self._positions.restart_replaced():
                self._forget(self._ledger.partitions())
                self._source.recreate_client()
        except Rebalancing:
            self._backoff.reset()
            self._retry_at = self._clock.now() + _REBALANCE_RETRY_SECONDS
        except Unavailable:
            self._retry_at = self._clock.now() + self._backoff.next_seconds()
            if self._backoff.attempts > 1:  # a pause discards prefetched records
                self._pause()
        else:
            self._backoff.reset()
            self._retry_at = None
        finally:
            for batch, reason in self._writer.pop_rejected():
                self._reread(batch, reason)

    def _reread(self, batch: Batch, reason: str) -> None:
        """Seek back to read a refused range again, with its records, to isolate the bad rows."""
        self._observer.bisecting_rejected_rows(batch.partition, batch.span, reason)
        self._open[batch.partition] = Batch(
            batch.partition,
            batch.first,
            fixed_end=batch.end,
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
            self._writer.complete(partitions)
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
