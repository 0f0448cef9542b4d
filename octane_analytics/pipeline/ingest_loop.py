"""Ingest loop: polls, decodes, batches and writes records, and handles rebalances.

One iteration is one `run_once`. No step waits for an outage to end: what failed is retried in a later
iteration, so that the member stays in the group (Kafka is the buffer meanwhile). Depends on neither
Kafka nor ClickHouse, only on the Protocols of `interfaces`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from octane_analytics.errors import Rebalancing, Unavailable
from octane_analytics.events.event import Decode
from octane_analytics.interfaces import (
    Clock,
    DeadLetters,
    GroupMember,
    Observer,
    RangeReader,
    Shards,
    Tracer,
)
from octane_analytics.pipeline.batch import BatchLimits, InsertPacing
from octane_analytics.pipeline.batch_writer import BatchWriter
from octane_analytics.pipeline.context import PipelineContext
from octane_analytics.pipeline.delivery import BatchDelivery, Delivery
from octane_analytics.pipeline.dlq_limit import DlqLimit, DlqLimitConfig
from octane_analytics.pipeline.intake import RecordIntake
from octane_analytics.pipeline.log_confirmation import LogConfirmation, OwnWord, SharedWord
from octane_analytics.pipeline.outages import KAFKA, Outages
from octane_analytics.pipeline.positions import Positions
from octane_analytics.pipeline.rereads import Rereads
from octane_analytics.runtime.timing import Backoff
from octane_analytics.types import OffsetGone, TopicPartition

_POLL_RECORDS = 1_000
"""Records per poll. Few enough that records and rows stay in the processor's cache: fetching took half
as long again in polls of 10,000. Enough that the cost of each poll matters little."""
_REBALANCE_RETRY_SECONDS = 0.05
_ASSIGN_ATTEMPTS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class IngestOptions:
    topic: str
    limits: BatchLimits
    delivery: Delivery = Delivery.EXACTLY_ONCE
    inserts_per_second: float = 0.0
    """Rate of inserts of all `processes` together; 0 means no limit."""
    processes: Callable[[], int] = lambda: 1
    """Number of workers of the service on this host."""
    confirmation: SharedWord = field(default_factory=OwnWord)
    """Word for `LogConfirmation`, the same for these workers."""
    dlq_limit: DlqLimitConfig = field(default_factory=DlqLimitConfig)
    poll_seconds: float = 0.1
    """Timeout of a poll while something is to be done soon, such as a retry."""
    quiet_poll_seconds: float = 0.1
    """Longest timeout of a poll."""
    idle_seconds: float = 1.0
    """Time without an insert after which offsets are committed without an intent."""
    session_seconds: float = 45.0
    """Session timeout of the group: at most one restart in that time."""


class IngestLoop:
    """Group member with its insert connections. Runs on one thread."""

    def __init__(
        self,
        member: GroupMember,
        reader: RangeReader,
        shards: Shards,
        dead_letters: DeadLetters,
        decode: Decode,
        clock: Clock,
        observer: Observer,
        options: IngestOptions,
        backoff: Backoff,
        tracer: Tracer | None = None,
    ) -> None:
        self._member = member
        self._reader = reader
        self._clock = clock
        self._observer = observer
        self._options = options
        self._backoff = backoff
        self._outages = Outages(clock, observer)
        self._pacing = InsertPacing(options.inserts_per_second, options.processes)
        context = PipelineContext(
            clock, decode, observer, self._outages, DlqLimit(options.dlq_limit), tracer
        )
        writer = BatchWriter(shards, dead_letters)
        rereads = Rereads(reader, writer, context, backoff)
        self._intake = RecordIntake(options.topic, member, context)
        self._delivery = BatchDelivery(
            options.topic,
            options.delivery,
            member,
            writer,
            rereads,
            self._intake,
            context,
            LogConfirmation(options.topic, options.confirmation),
        )
        self._positions = Positions(
            options.topic, member, self._delivery, self._intake, context, backoff
        )
        self._restart_pauses = backoff.fresh(options.session_seconds, 2 * options.session_seconds)
        self._restart_at = 0.0
        self._retry_at: float | None = None
        self._active_at: float | None = None
        """Time of the last insert while it is not completed; None once it is."""
        self._awaits_assignment = False
        """True from a restart to the next assignment."""
        self._is_paused = False
        self._is_quiet = False

    def run(self, should_stop: Callable[[], bool], drain_seconds: float) -> bool:
        """Run until `should_stop`, then drain. Return whether everything read is stored.

        Raise AssignmentLost if another process has replaced this member for good, ConfigError (also
        TooManyRejected) if an operator must act; the member is not closed then, because the process
        must end as it is.
        """
        self._member.subscribe(self)
        while not should_stop():
            self.run_once()
        is_drained = self.drain(drain_seconds)
        self._member.close()
        self._reader.close()
        return is_drained

    def run_once(self) -> None:
        """Run one iteration: continue the pending batch, poll, then write a batch that is due."""
        if self._delivery.state.must_restart:
            self._restart()
        self._flush_pending()
        self._go_back()
        if self._is_free:
            self._resume()  # also if the pending batch was revoked
        self._poll()
        if self._is_free:
            if self._is_due():
                self._write()
            self._complete_idle()
        elif self._is_full():
            self._pause()

    def drain(self, seconds: float) -> bool:
        """Insert everything read and leave nothing pending; blocks for up to `seconds`.

        Return whether that succeeded; otherwise the next owners of the partitions insert the rest.
        """
        deadline = self._clock.now() + seconds
        self._pause()
        while self._clock.now() < deadline:
            state = self._delivery.state
            if state.must_restart:
                self._restart()  # continues with the pending batches, and reads nothing else
            if self._delivery.is_idle and state.open_ranges:
                self._write()
            self._flush_pending()
            state = self._delivery.state
            is_empty = self._delivery.is_idle and not state.open_ranges and not state.recoveries()
            if is_empty and not self._awaits_assignment and self._complete():
                return True
            self._pause()
            if not (self._is_free and state.open_ranges):
                self._receive(_POLL_RECORDS, self._options.poll_seconds)
        return False

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Take the partitions over; see `interfaces.RebalanceListener`."""
        self._awaits_assignment = False
        starts = self._retry_assign(partitions) if partitions else {}
        self._observer.assigned(partitions, len(self._delivery.state.partitions))
        return starts

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish and give up the partitions; see `interfaces.RebalanceListener`."""
        state = self._delivery.state
        if self._backoff.attempts == 0 and state.restart_reason is None:
            numbers = {partition.partition for partition in partitions}
            self._retry_at = None
            self._flush_pending()  # in an outage, the next owner finishes it
            if self._delivery.is_idle and any(r.partition in numbers for r in state.open_ranges):
                self._write()
            if self._delivery.state is state:
                self._complete(numbers)
        self._forget(partitions)
        self._observer.revoked(partitions, len(self._delivery.state.partitions))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up the partitions; see `interfaces.RebalanceListener`."""
        self._forget(partitions)
        self._observer.lost(partitions, len(self._delivery.state.partitions))

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        self._delivery.drop(numbers)
        self._positions.forget(numbers)
        self._active_at = (
            self._clock.now()
        )  # the open batch may be void, and what it would complete

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

    def _restart(self) -> None:
        """Join again with a new client, at most once per session timeout.

        More often, a slow coordinator would make all workers rejoin at once, again and again.
        """
        now = self._clock.now()
        if now < self._restart_at:
            self._pause()
            return
        self._restart_at = now + self._restart_pauses.next_seconds()
        self._restart_pauses.reset()
        self._observer.restarting(self._delivery.state.restart_reason or "")
        self._positions.forget(self._delivery.state.partitions)
        self._delivery.restart()
        self._retry_at = self._active_at = None
        self._awaits_assignment = True
        self._member.recreate_client()

    def _poll(self) -> None:
        """Poll once; under backlog, until a limit is reached."""
        limits = self._options.limits
        deadline = self._clock.now() + limits.flush_seconds
        wanted, timeout_seconds = self._wanted_records(), self._poll_seconds()
        # Records of an open batch are in no hurry: nothing is to be done with them until the timeout.
        is_open = self._intake.batch.opened_at is not None
        received = self._receive(wanted, timeout_seconds, timeout_seconds if is_open else 0.0)
        self._is_quiet = not received and self._is_free and self._intake.batch.opened_at is None
        while (
            received >= wanted
            and not self._is_paused
            and not self._is_full()
            and self._clock.now() < deadline
        ):
            wanted = self._room()
            received = self._receive(wanted, 0.0)

    def _wanted_records(self) -> int:
        """Return the number of records at which the poll must end: with the batch's last ones."""
        if not self._is_free or self._pacing.wait_seconds(self._clock.now()):
            return self._room()
        missing = self._options.limits.size - self._intake.batch.records
        return min(max(1, missing), self._room())

    def _room(self) -> int:
        """Return the number of records that one poll may add to the open batch."""
        room = self._options.limits.max_rows - self._intake.batch.records
        return max(1, min(_POLL_RECORDS, room))

    def _poll_seconds(self) -> float:
        """Return the time for which nothing else is to be done, within bounds."""
        options, now = self._options, self._clock.now()
        opened_at = self._intake.batch.opened_at
        recovery_seconds = self._delivery.recovery_wait_seconds
        if not self._is_free or recovery_seconds is not None:
            return min(options.poll_seconds, recovery_seconds or options.poll_seconds)
        if opened_at is None:
            return options.quiet_poll_seconds if self._is_quiet else options.poll_seconds
        due_at = opened_at + options.limits.flush_seconds
        pacing_seconds = self._pacing.wait_seconds(now)
        if pacing_seconds or self._intake.batch.records >= options.limits.size:
            # After that, fewer records may be enough for an insert.
            due_at = min(due_at, now + pacing_seconds)
        return max(0.0, min(options.quiet_poll_seconds, due_at - now))

    def _receive(
        self, max_records: int, timeout_seconds: float, gather_seconds: float = 0.0
    ) -> int:
        try:
            with self._outages.track(KAFKA, "poll"):
                polled = self._member.poll(max_records, timeout_seconds, gather_seconds)
        except Unavailable:
            return 0
        if polled.records:
            began = self._clock.now()
            self._intake.accept(polled.records, self._delivery.state)
            self._observer.call_finished("decode", self._clock.now() - began)
        for end in polled.ends:
            self._intake.pass_offsets(end.partition.partition, end.offset, self._delivery.state)
        for gone in polled.gone:
            self._recover_lost_position(gone)
        self._positions.refused.note_progress(self._delivery.state)
        return len(polled.records)

    def _recover_lost_position(self, gone: OffsetGone) -> None:
        try:
            self._positions.recover(gone)
        except Unavailable:
            # Reading there again reports the lost position again.
            self._intake.read_from_position([gone.partition.partition])

    def _go_back(self) -> None:
        try:
            waiting = self._positions.refused.waiting()
            if not self._intake.must_go_back(waiting):
                return
            with self._outages.track(KAFKA, "seek"):
                self._intake.go_back(self._delivery.state, waiting)
        except Unavailable:
            return

    @property
    def _is_free(self) -> bool:
        """True if no batch is pending and no retry is scheduled."""
        return self._delivery.is_idle and self._retry_at is None

    def _is_full(self) -> bool:
        return bool(self._intake.held_back) or self._intake.batch.is_full(self._options.limits)

    def _is_due(self) -> bool:
        now = self._clock.now()
        return (
            bool(self._intake.held_back)
            or self._positions.must_flush
            or self._intake.batch.is_due(
                self._options.limits, now, may_insert=not self._pacing.wait_seconds(now)
            )
        )

    def _write(self) -> None:
        if self._delivery.freeze():
            self._pacing.record_insert(self._clock.now())
            self._flush_pending()

    def _flush_pending(self) -> None:
        """Continue with what is pending, unless a retry is scheduled for later."""
        if self._retry_at is not None and self._clock.now() < self._retry_at:
            return
        had_pending = not self._delivery.is_idle
        try:
            self._delivery.push()
            if self._delivery.is_idle:
                self._positions.restart_truncated()
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
        if self._retry_at is None and self._delivery.recover():
            had_pending = True
        if had_pending and self._delivery.is_idle:
            self._active_at = self._clock.now()
            if self._options.delivery is Delivery.AT_LEAST_ONCE and self._complete():
                self._active_at = None

    def _complete_idle(self) -> None:
        """Commit the partitions that the next batch does not complete soon."""
        if self._active_at is None:
            return
        if self._clock.now() - self._active_at >= self._options.idle_seconds:
            open_partitions = {item.partition for item in self._delivery.state.open_ranges}
            if self._complete(set(self._delivery.state.partitions) - open_partitions):
                self._active_at = None

    def _complete(self, partitions: set[int] | None = None) -> bool:
        try:
            return self._delivery.complete(partitions)
        except Unavailable:
            return False

    def _pause(self) -> None:
        if not self._is_paused:
            self._member.pause()
            self._is_paused = True

    def _resume(self) -> None:
        if self._is_paused:
            self._member.resume()
            self._is_paused = False
