"""Partitions assigned to a group member: their positions, pauses, committed offsets and lag."""

from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.kafka.conversions import from_confluent
from octane_analytics.kafka.stall_detector import StallDetector
from octane_analytics.types import Commit, EndOfPartition, TopicPartition


class PartitionAssignment:
    """State of the assigned partitions; changes the consumer's assignment, and sends no request."""

    def __init__(self, detector: StallDetector) -> None:
        self.detector = detector
        self.waited_seconds = 0.0
        """Seconds spent waiting in polls. The detector measures with these, since a partition cannot
        return records while no poll waits for them."""
        self.version = 0
        """Incremented by each change that may affect a position or the end of a partition."""
        self._committed: dict[TopicPartition, int] = {}
        """Committed offset of each assigned partition; its start position until a commit."""
        self._lag: int | None = None
        self._lag_version = 0

    def add(self, consumer: Consumer, raw: list[RawPartition], *, is_paused: bool) -> None:
        """Assign the partitions, from the offsets that they carry."""
        for r in raw:
            self._committed[from_confluent(r)] = r.offset
        self._assign(consumer, raw, is_paused)

    def remove(self, consumer: Consumer, raw: list[RawPartition]) -> None:
        partitions = [from_confluent(r) for r in raw]
        self.detector.unassign(partitions)
        for partition in partitions:
            self._committed.pop(partition, None)
        self.version += 1
        _unassign(consumer, raw)

    def reassign(self, consumer: Consumer, raw: list[RawPartition], *, is_paused: bool) -> None:
        """Unassign the partitions and assign them again, from the offsets that they carry."""
        _unassign(consumer, raw)
        self._assign(consumer, raw, is_paused)

    def _assign(self, consumer: Consumer, raw: list[RawPartition], is_paused: bool) -> None:
        if raw and not is_paused:
            # librdkafka keeps a pause beyond the assignment in which it was made: one that ended while
            # another member had the partition would last for good.
            consumer.resume(raw)
        consumer.incremental_assign(raw)
        if raw and is_paused:
            consumer.pause(raw)
        for r in raw:
            self.detector.assign(from_confluent(r), r.offset, self.waited_seconds)
        self.version += 1

    def sought(self, partition: TopicPartition, offset: int) -> None:
        self.detector.assign(partition, offset, self.waited_seconds)
        self.version += 1

    def records_received(self, messages: Sequence[Message]) -> None:
        self.version += 1
        if self.detector.awaiting_first_record:
            # Done for each record until one has come from each partition: plain pairs.
            self.detector.records_received(
                {(m.topic(), m.partition()) for m in messages if m.error() is None}
            )

    def reached_end(self, end: EndOfPartition) -> None:
        self.detector.reached_end(end.partition, end.offset, self.waited_seconds)

    def restart_stall_detection(self) -> None:
        self.detector.restart(self.waited_seconds)

    def committed(self, commits: Sequence[Commit]) -> None:
        self._committed |= {commit.partition: commit.offset for commit in commits}
        self.version += 1

    def lag(self, client: Callable[[], Consumer]) -> int | None:
        """Return the uncommitted messages, by the ends of the last fetches; None if one is not known.

        As `types.UncommittedLag` for a log of which nothing was removed, at a third of the cost.
        """
        if self._lag != 0 or self._lag_version != self.version:
            self._lag_version = self.version
            self._lag = self._count_lag(client())
        return self._lag

    def _count_lag(self, consumer: Consumer) -> int | None:
        total = 0
        try:
            for raw in consumer.assignment():
                _, end = consumer.get_watermark_offsets(raw, cached=True)
                committed = self._committed.get(from_confluent(raw))
                if committed is None or end < 0:
                    return None
                total += max(0, end - committed)
        except KafkaException:
            return None
        return total


def _unassign(consumer: Consumer, raw: Sequence[RawPartition]) -> None:
    # librdkafka refuses the whole call for a partition that it has not: its assignment may have failed.
    assigned = {from_confluent(r) for r in consumer.assignment()}
    consumer.incremental_unassign([r for r in raw if from_confluent(r) in assigned])
