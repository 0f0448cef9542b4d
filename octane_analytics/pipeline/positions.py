"""Read positions of partitions: at the assignment, and after a position left the log.

Keeps which committed offsets may belong to another log, and which partitions lost their tail. Raises
Unavailable if the broker does not answer; the caller then repeats the call.
"""

from collections.abc import Iterable, Sequence

from octane_analytics.interfaces import GroupMember
from octane_analytics.pipeline.context import PipelineContext
from octane_analytics.pipeline.delivery import BatchDelivery
from octane_analytics.pipeline.intake import RecordIntake
from octane_analytics.pipeline.outages import KAFKA
from octane_analytics.pipeline.refused_offsets import RefusedOffsets
from octane_analytics.pipeline.start_positions import (
    StartPosition,
    is_another_log,
    start_position,
)
from octane_analytics.runtime.timing import Backoff
from octane_analytics.types import LogIdentity, OffsetGone, OffsetRange, TopicPartition


class Positions:
    """Positions of one member's partitions."""

    def __init__(
        self,
        topic: str,
        member: GroupMember,
        delivery: BatchDelivery,
        intake: RecordIntake,
        context: PipelineContext,
        backoff: Backoff,
    ) -> None:
        self._topic = topic
        self._member = member
        self._delivery = delivery
        self._intake = intake
        self._context = context
        self.refused = RefusedOffsets(context, backoff)
        self._truncated: set[int] = set()
        """Partitions whose log lost its tail: read on from its end once everything read is inserted."""
        self._unproven: dict[int, int] = {}
        """Committed offsets that may belong to another log, until a record at or after one is read."""

    def assign(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Take the partitions over; return the offset from which the client reads each."""
        with self._context.outages.track(KAFKA, "assign"):
            log = self._member.log_identity(self._topic)
            starts, unproven = {}, {}
            for partition, committed in self._member.committed(partitions).items():
                start = start_position(self._topic, partition.partition, committed, log)
                offset = start.offset
                if offset is None:
                    offset = self._member.earliest(partition)
                    if committed.offset is not None and log != self._delivery.reported_log:
                        self._context.observer.log_replaced(partition, committed.offset)
                elif not start.is_of_log:
                    offset = self._within_log(partition, start, offset)
                    if offset == start.offset:
                        unproven[partition.partition] = _read_from(partition, start, offset)
                        if start.is_moved:
                            self._context.observer.offset_moved(partition, offset)
                starts[partition] = (offset, start)
        numbers = [partition.partition for partition in partitions]
        self._delivery.drop(numbers)
        self.forget(numbers)
        self._unproven.update(unproven)
        self._delivery.reported_log = log
        for partition, (offset, start) in starts.items():
            self._delivery.assign(partition.partition, log, offset, start.pending)
        return {p: _read_from(p, start, offset) for p, (offset, start) in starts.items()}

    def _within_log(self, partition: TopicPartition, start: StartPosition, offset: int) -> int:
        """Return the start offset for a committed offset whose log is not known."""
        if start.pending is None and offset > (end := self._member.latest(partition)):
            earliest = self._member.earliest(partition)
            self._context.observer.foreign_offset(partition, offset, earliest, end)
            return earliest
        return offset

    def forget(self, partitions: Iterable[int]) -> None:
        numbers = list(partitions)
        self.refused.forget(numbers)
        for number in numbers:
            self._truncated.discard(number)
            self._unproven.pop(number, None)

    def recover(self, gone: OffsetGone) -> None:
        """Continue after the missing offsets of a lost position, or prepare a restart; report it."""
        partition, state = gone.partition, self._delivery.state
        number = partition.partition
        if number not in state:
            return
        if not state.is_readable(number):
            self._intake.read_from_position([number])  # reported again then
            return
        with self._context.outages.track(KAFKA, "position"):
            log = self._member.log_identity(self._topic)
            earliest, latest = self._member.earliest(partition), self._member.latest(partition)
        position = state.position(number)
        if state.log is not None and is_another_log(log, state.log):
            self._delivery.replace_log(log)
        elif latest < position:
            self._report_truncated(partition, log, earliest, latest)
            self._truncated.add(number)
        else:
            if earliest > position:
                self._skip_to(partition, earliest)
            elif gone.offset == position:
                self.refused.add(partition, position, OffsetRange(earliest, latest))
            # Also for an error about an earlier position: librdkafka may repeat one.
            self._intake.read_from_position([number])

    def _skip_to(self, partition: TopicPartition, earliest: int) -> None:
        number, state = partition.partition, self._delivery.state
        position = state.position(number)
        self._intake.pass_offsets(number, earliest, state)
        if state.position(number) > position:
            self._context.observer.offsets_gone(partition, position, state.position(number))

    def _report_truncated(
        self, partition: TopicPartition, log: LogIdentity, earliest: int, latest: int
    ) -> None:
        position = self._delivery.state.position(partition.partition)
        if not log.topic_id:
            self._context.observer.log_replaced(partition, position)
        elif self._is_proven(partition.partition):
            self._context.observer.log_truncated(partition, position, latest)
        else:
            self._context.observer.foreign_offset(partition, position, earliest, latest)

    @property
    def must_flush(self) -> bool:
        """True if the open batch must be inserted before a partition is read on from its log's end."""
        if not self._truncated:
            return False
        return any(r.partition in self._truncated for r in self._delivery.state.open_ranges)

    def restart_truncated(self) -> None:
        """Continue partitions whose log lost its tail at its end; call without a pending batch.

        A position that may be of another log does not prove a lost tail: the log is then read from its
        beginning.
        """
        if not self._truncated or self.must_flush:
            return
        state = self._delivery.state
        self._truncated.intersection_update(state.partitions)
        with self._context.outages.track(KAFKA, "position"):
            log = self._member.log_identity(self._topic)
            if state.log is not None and is_another_log(log, state.log):
                self._delivery.replace_log(log)
                return
            for number in sorted(self._truncated):
                partition = TopicPartition(self._topic, number)
                has_lost_tail = log.topic_id and log == state.log and self._is_proven(number)
                bound = self._member.latest if has_lost_tail else self._member.earliest
                start = bound(partition)
                self._delivery.drop([number])
                self.forget([number])
                self._delivery.assign(number, log, start, None)
                self._intake.read_from_position([number])

    def _is_proven(self, number: int) -> bool:
        """Return whether the position is one of this log: committed for it or read from it."""
        return self._unproven.get(number) != self._delivery.state.position(number)


def _read_from(partition: TopicPartition, start: StartPosition, offset: int) -> int:
    """Return the offset after the pending range, which is read by another client."""
    own = None if start.pending is None else start.pending.range_of(partition.partition)
    return offset if own is None else own.end
