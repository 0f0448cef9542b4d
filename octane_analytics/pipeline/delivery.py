"""Execution of the delivery state's decisions: commits, inserts and recoveries.

Owns the rows of the pending batch beside the state that knows its ranges. A failed step leaves
everything as it is, and the next call continues there. Does not depend on the time of calls.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import Enum

from octane_analytics.errors import ConfigError, DataRejected, Unavailable
from octane_analytics.interfaces import GroupMember, Trace
from octane_analytics.pipeline.batch import Batch
from octane_analytics.pipeline.batch_writer import BatchWriter, WriteProgress
from octane_analytics.pipeline.context import PipelineContext
from octane_analytics.pipeline.delivery_state import DeliveryState
from octane_analytics.pipeline.intake import RecordIntake
from octane_analytics.pipeline.intents import Intent
from octane_analytics.pipeline.log_confirmation import LogConfirmation
from octane_analytics.pipeline.outages import CLICKHOUSE, DEAD_LETTERS, KAFKA
from octane_analytics.pipeline.rereads import Reread, Rereads, WrittenBatch, step
from octane_analytics.pipeline.start_positions import is_another_log
from octane_analytics.types import (
    Commit,
    CommitOutcome,
    InsertedBatch,
    LogIdentity,
    TopicPartition,
)

_FRESH_SECONDS = 5.0
"""Age of an announcement after which it is made again before the insert. Shorter than a session timeout,
after which another worker may have inserted the batch, and statements may have dropped its token."""


class Delivery(Enum):
    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"


@dataclass(slots=True)
class _Outgoing:
    """Rows of the pending batch, with the completed steps of their insert."""

    batch: Batch
    frozen_at: float
    trace: Trace | None
    progress: WriteProgress = field(default_factory=WriteProgress)
    announced_at: float | None = None
    """Time before the first attempt of the announcement."""
    fresh_seconds: float = _FRESH_SECONDS
    """Age up to which the announcement counts; doubled each time, for a coordinator that is slow."""


class BatchDelivery:
    """Batches of one worker. Partitions are numbers of one topic."""

    def __init__(
        self,
        topic: str,
        delivery: Delivery,
        member: GroupMember,
        writer: BatchWriter,
        rereads: Rereads,
        intake: RecordIntake,
        context: PipelineContext,
        confirmation: LogConfirmation,
    ) -> None:
        self._topic = topic
        self._has_intents = delivery is Delivery.EXACTLY_ONCE
        self._member = member
        self._writer = writer
        self._rereads = rereads
        self._intake = intake
        self._context = context
        self.state = DeliveryState(topic, self._has_intents)
        self.reported_log: LogIdentity | None = None
        """Identity of the log whose replacement of another one is already reported to the observer."""
        self._outgoing: _Outgoing | None = None
        self._confirmation = confirmation

    @property
    def is_idle(self) -> bool:
        """True if no batch is pending."""
        return self.state.pending is None

    @property
    def recovery_wait_seconds(self) -> float | None:
        """Time until a batch can be read again; None if there is none."""
        return self._rereads.wait_seconds(self._context.clock.now())

    # Changes of the assignment and of the log.

    def assign(self, partition: int, log: LogIdentity, start: int, pending: Intent | None) -> None:
        """Take the partition over at offset `start`, or with a batch to recover first."""
        self.state.assign(partition, log, start, pending)
        self._forget_voided()

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget partitions that were revoked or lost."""
        gone = set(partitions)
        before = {number: self.state.position(number) for number in self.state.partitions}
        rewound = self.state.drop(gone)
        self._intake.rewind({number: before[number] for number in rewound})
        self._intake.forget(gone)
        self._forget_voided()

    def replace_log(self, log: LogIdentity) -> None:
        """Record that the topic was recreated: everything read and not announced is void."""
        if log != self.reported_log:
            self.reported_log = log
            for number in self.state.partitions:
                where = TopicPartition(self._topic, number)
                self._context.observer.log_replaced(where, self.state.position(number))
        self.state.replace_log()
        self._intake.clear()
        self._forget_voided()

    def restart(self) -> None:
        """Forget everything; the partitions are assigned again from what is committed."""
        self.state = DeliveryState(self._topic, self._has_intents)
        self._rereads.clear()
        self._intake.clear()
        self._forget_voided()

    def _forget_voided(self) -> None:
        self._intake.forget_voided(self.state)
        if self.state.pending is None and self._outgoing is not None:
            if self._outgoing.trace is not None:
                self._outgoing.trace.end(None)
            self._outgoing = None

    # Delivery of batches.

    def freeze(self) -> bool:
        """Close the open batch if none is pending; return whether there was one."""
        intent = self.state.freeze()
        if intent is None:
            return False
        batch, tracer = self._intake.close_batch(self.state), self._context.tracer
        trace = None if tracer is None else tracer.begin(self._topic, intent.ranges, batch.contexts)
        self._outgoing = _Outgoing(batch, self._context.clock.now(), trace)
        return True

    def push(self) -> None:
        """Continue with the pending batch and with the first commits of partitions.

        Blocks for an insert at most. Raise Unavailable (Rebalancing during a rebalance): nothing is
        lost, call again. Raise ConfigError if an operator must set the offsets.
        """
        self._raise_stop()
        if self.state.restart_reason is None:
            self._check_log()
            self._withdraw()
            self._announce()
            self._confirm()
        self._insert_pending()

    def _raise_stop(self) -> None:
        if self.state.stop_reason is not None:
            raise ConfigError(self.state.stop_reason)

    def _withdraw(self) -> None:
        if commits := self.state.withdrawal():
            outcome = self._commit("withdraw", commits)
            positions = {n: self.state.position(n) for n in self.state.partitions}
            rewound = self.state.withdrawn(outcome)
            self._intake.rewind({number: positions[number] for number in rewound})
            self._forget_voided()
            self._raise_stop()

    def _announce(self) -> None:
        pending = self.state.pending
        if pending is not None and pending.must_be_placed:
            with self._context.outages.track(CLICKHOUSE, "choose shard"):
                pending.place(self._writer.choose_shard())
        if not (commits := self.state.announcement()):
            return
        if self._outgoing is not None and self._outgoing.announced_at is None:
            self._outgoing.announced_at = self._context.clock.now()
        with step(None if self._outgoing is None else self._outgoing.trace, "intent"):
            outcome = self._commit("announce", commits)
        self.state.announced(outcome)
        self._raise_unless(self.state.pending is None or self.state.pending.is_announced, outcome)

    def _confirm(self) -> None:
        if commits := self.state.completion(self.state.unconfirmed):
            outcome = self._commit("complete", commits)
            self.state.completed(outcome)
            self._raise_unless(len(outcome.accepted) == len(commits), outcome)

    def complete(self, partitions: Iterable[int] | None = None) -> bool:
        """Leave partitions (all by default) with nothing pending; return whether that is committed.

        Raise Unavailable.
        """
        if self.state.restart_reason is not None or self.state.stop_reason is not None:
            return False
        while commits := self.state.completion(partitions):
            outcome = self._commit("complete", commits)
            self.state.completed(outcome)
            if len(outcome.accepted) < len(commits):
                return False
        return True

    def recover(self) -> bool:
        """Continue with batches that are read again; return whether one is in the table now.

        Blocks for some seconds, and never raises Unavailable.
        """
        pending = self.state.pending
        wanted = self.state.recoveries()
        if pending is not None and pending.intent in self._rereads:
            wanted.append(pending.intent)
        self._rereads.keep(wanted)
        job = self._rereads.read()
        if job is None:
            return False
        try:
            self._check_log(is_forced=True)
        except Unavailable:
            return False
        if self.state.restart_reason is not None:
            self._abandon(job)
            return False
        written = self._rereads.write(job, self.state.completing(job.intent))
        if written is not None:
            self._finish(written, is_recovered=not job.is_own)
        return written is not None

    def _abandon(self, job: Reread) -> None:
        if job.is_own:
            self.state.abandon()  # the log that it was read from is gone
            self._forget_voided()

    def _insert_pending(self) -> None:
        pending, outgoing, context = self.state.pending, self._outgoing, self._context
        if pending is None or not pending.is_announced or pending.intent in self._rereads:
            return
        assert outgoing is not None, "a pending batch has rows or none to insert"
        batch, intent = outgoing.batch, pending.intent
        # Also of a partition that was lost and came back: it waits for this batch.
        owned = self.state.completing(intent)
        with context.outages.track(DEAD_LETTERS, "send"):
            sent = self._writer.send_rejected(batch.rejected, owned, outgoing.progress)
        context.observer.dead_lettered(sent)
        if not self._is_announcement_fresh(outgoing):
            return
        try:
            with step(outgoing.trace, "insert"), context.outages.track(CLICKHOUSE, "insert"):
                self._writer.insert(
                    batch.columns,
                    intent if self._has_intents else None,
                    is_repeat=pending.is_repeat,
                    not_before=batch.not_before,
                )
        except Unavailable:
            self.state.insert_failed()
            raise
        except DataRejected as error:
            context.observer.bisecting_rejected_rows(intent.ranges, str(error))
            self._rereads.add_refused(
                intent, outgoing.progress, outgoing.trace, is_repeat=pending.is_repeat
            )
            self.state.insert_failed()
            return
        if batch.rows:
            context.dlq_limit.record_inserted(0)
        self._finish(
            WrittenBatch(
                intent,
                batch.rows_by_partition,
                batch.payload_bytes,
                batch.columns[0],
                outgoing.frozen_at,
                outgoing.trace,
            )
        )

    def _is_announcement_fresh(self, outgoing: _Outgoing) -> bool:
        """Return whether the batch may be inserted. If it is late, as after a suspension of the process,
        announce it again. Raise Unavailable.

        The coordinator accepts it only from a member that has kept its partitions: then no other worker
        has inserted the batch, and it needs no count, which equal rows of other batches would distort.
        """
        now = self._context.clock.now()
        if outgoing.announced_at is None or now - outgoing.announced_at < outgoing.fresh_seconds:
            return True
        if not self.state.renew_announcement():
            return True
        outgoing.announced_at = None
        outgoing.fresh_seconds *= 2
        self._announce()
        return self.state.pending is not None and self.state.pending.is_announced

    def _finish(self, written: WrittenBatch, *, is_recovered: bool = False) -> None:
        intent, rows = written.intent, sum(written.rows_by_partition.values())
        completing = self.state.completing(intent)
        has_token = self._has_intents or is_recovered
        with nullcontext() if written.trace is None else written.trace.entered():
            # Counted first: see telemetry.inserted_counter.
            self._context.observer.inserted(
                InsertedBatch(
                    intent.ranges,
                    {n: written.rows_by_partition.get(n, 0) for n in sorted(completing)},
                    rows,
                    written.payload_bytes,
                    written.timestamps,
                    intent.token() if has_token else None,
                    self._context.clock.now() - written.started_at,
                )
            )
            if is_recovered:
                self._context.observer.recovered(intent.ranges, intent.token())
        if written.trace is not None:
            written.trace.end(rows)
        if is_recovered:
            self._intake.read_from_position(completing)
        elif self._outgoing is not None:
            self._outgoing.trace = None
        self.state.inserted(intent)
        self._forget_voided()

    def _commit(self, call: str, commits: Sequence[Commit]) -> CommitOutcome:
        """Commit; an error ends in the outcome, not in an exception."""
        outcome = CommitOutcome()
        try:
            with self._context.outages.track(KAFKA, call):
                outcome = self._member.commit(commits)
                if outcome.error is not None:
                    raise outcome.error
        except Unavailable:
            if outcome.error is None:
                raise
        return outcome

    def _raise_unless(self, is_accepted: bool, outcome: CommitOutcome) -> None:
        if not is_accepted and outcome.error is not None:
            raise outcome.error

    def _check_log(self, *, is_forced: bool = False) -> None:
        """Verify that the records read are of the log for which they are announced. Raise Unavailable.

        A recreated topic may have grown past the positions before anything is fetched there. Then no
        offset is out of range, and its first records would be skipped.
        """
        known, now = self.state.log, self._context.clock.now()
        if known is None or (self.state.pending is None and not is_forced):
            return
        if not is_forced and self._confirmation.is_fresh(known, now):
            return
        with self._context.outages.track(KAFKA, "identity"):
            log = self._member.log_identity(self._topic)
        if is_another_log(log, known):
            self.replace_log(log)
        else:
            self._confirmation.record(known, now)
