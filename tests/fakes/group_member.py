"""In-memory group member and range reader over the broker of `tests.fakes.kafka`."""

from collections.abc import Mapping, Sequence

from octane_analytics.errors import Rebalancing, Unavailable
from octane_analytics.interfaces import RebalanceListener
from octane_analytics.types import (
    Commit,
    CommitOutcome,
    Committed,
    LogIdentity,
    PartitionRange,
    Polled,
    Record,
    TopicPartition,
)
from tests.fakes.kafka import FakeBroker, FakeSource


class Resent(Rebalancing):
    """Refusal of the second of two requests; with `is_done` the first one was stored."""


class FakeMember:
    """Implements `interfaces.GroupMember`."""

    def __init__(self, source: FakeSource) -> None:
        self.source = source

    def subscribe(self, listener: RebalanceListener) -> None:
        self.source.subscribe(listener)

    def poll(self, max_records: int, timeout_seconds: float, gather_seconds: float = 0.0) -> Polled:
        return self.source.poll(max_records, timeout_seconds)

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return self.source.committed(partitions)

    def commit(self, commits: Sequence[Commit]) -> CommitOutcome:
        try:
            self.source.commit(commits)
        except Rebalancing as error:
            return CommitOutcome(may_be_stored=isinstance(error, Resent), error=error)
        except Unavailable as error:
            return CommitOutcome(is_unknown=True, error=error)
        return CommitOutcome(frozenset(commit.partition.partition for commit in commits))

    def log_identity(self, topic: str) -> LogIdentity:
        return self.source.log_identity(topic)

    def earliest(self, partition: TopicPartition) -> int:
        return self.source.earliest(partition)

    def latest(self, partition: TopicPartition) -> int:
        return self.source.latest(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.source.seek(partition, offset)

    def recreate_client(self) -> None:
        self.source.recreate_client()

    def pause(self) -> None:
        self.source.pause()

    def resume(self) -> None:
        self.source.resume()

    def close(self) -> None:
        self.source.close()


class FakeRangeReader:
    """Implements `interfaces.RangeReader`. Partitions in `leaderless` cannot be read."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._left: dict[int, tuple[int, int]] = {}
        self.leaderless: set[int] = set()
        self.readings = 0
        self.is_closed = False

    def begin(self, ranges: Sequence[PartitionRange]) -> Sequence[PartitionRange]:
        self.readings += 1
        gone = []
        self._left = {}
        for number, first, end in ranges:
            log = self._broker.logs.get(TopicPartition(self._broker.topic, number))
            if log is None:
                gone.append(PartitionRange(number, first, end))
                continue
            if first < log.low:
                gone.append(PartitionRange(number, first, min(log.low, end)))
            if max(first, log.low) < end:
                self._left[number] = (max(first, log.low), end)
        return gone

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record]:
        if self.leaderless & self._left.keys():
            self._broker.clock.sleep(timeout_seconds)
            raise Unavailable("no leader")
        found: list[Record] = []
        while self._left and len(found) < max_records:
            number, (first, end) = self._left.popitem()
            log = self._broker.logs[TopicPartition(self._broker.topic, number)]
            while first < end and len(found) < max_records:
                if first in log.records:
                    found.append(log.records[first])
                first += 1
            if first < end:
                self._left[number] = (first, end)
        return found

    @property
    def is_done(self) -> bool:
        return not self._left

    def close(self) -> None:
        self.is_closed = True
