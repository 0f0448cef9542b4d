"""In-memory broker and consumers; contract tests compare them with the real ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from octane_analytics.errors import (
    AssignmentLost,
    Rebalancing,
    Unavailable,
)
from octane_analytics.interfaces import RebalanceListener
from octane_analytics.pipeline.intents import parse_intent
from octane_analytics.types import (
    Commit,
    Committed,
    EndOfPartition,
    LogIdentity,
    OffsetGone,
    Polled,
    Record,
    RejectedRecord,
    TopicPartition,
)
from tests.fakes.clock import FakeClock
from tests.fakes.faults import Faults
from tests.fakes.journal import Entry

TOPIC = "octane.events"


@dataclass(frozen=True, slots=True)
class FakeRecord:
    """Implements `types.Record`."""

    where: TopicPartition
    at: int
    payload: bytes | None
    record_key: bytes | None = None
    record_headers: tuple[tuple[str, bytes | None], ...] = ()
    created_ms: int = 1_770_000_000_000

    def topic(self) -> str | None:
        return self.where.topic

    def partition(self) -> int | None:
        return self.where.partition

    def offset(self) -> int | None:
        return self.at

    def key(self) -> bytes | None:
        return self.record_key

    def value(self) -> bytes | None:
        return self.payload

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:
        return list(self.record_headers) or None

    def timestamp(self) -> tuple[int, int]:
        return 1, self.created_ms


@dataclass(slots=True)
class FakeLog:
    """Log of one partition: records by offset, from `low` to `end`, with gaps."""

    records: dict[int, FakeRecord] = field(default_factory=dict)
    low: int = 0
    end: int = 0


def is_pending(metadata: str) -> bool:
    """Return whether a commit's metadata announces an insert."""
    intent = parse_intent(TOPIC, 0, metadata)
    return intent is not None and intent.is_pending


class FakeBroker:
    """Partitions of one topic, coordinator of one group, and the dead-letter topic."""

    def __init__(self, clock: FakeClock, partitions: int = 1, topic: str = TOPIC) -> None:
        self.clock = clock
        self.topic = topic
        self.logs = {TopicPartition(topic, n): FakeLog() for n in range(partitions)}
        self.cluster_id = "cluster"
        self.topic_id = "topic-1"
        self.committed: dict[TopicPartition, Committed] = {}
        self.owners: dict[TopicPartition, FakeSource] = {}
        self.members: list[FakeSource] = []
        self.targets: dict[TopicPartition, FakeSource] = {}
        self.dead_letters: list[RejectedRecord] = []
        self.faults = Faults()
        self.journal: list[Entry] = []
        self.refused: set[tuple[int, int]] = set()
        """Partitions and offsets that a fetch gets refused as out of range."""
        self.is_balancing = True
        """True if joins and leaves redistribute the partitions."""

    @property
    def partitions(self) -> list[TopicPartition]:
        return list(self.logs)

    def append(self, partition: int, *values: bytes | None) -> None:
        where = TopicPartition(self.topic, partition)
        log = self.logs[where]
        for value in values:
            log.records[log.end] = FakeRecord(where, log.end, value)
            log.end += 1

    def skip(self, partition: int, offsets: int) -> None:
        """Append a gap, as a transaction's marker or compaction does."""
        self.logs[TopicPartition(self.topic, partition)].end += offsets

    def delete_before(self, partition: int, offset: int) -> None:
        """Remove records, as retention does."""
        log = self.logs[TopicPartition(self.topic, partition)]
        log.low = offset
        log.end = max(log.end, offset)
        for gone in [at for at in log.records if at < offset]:
            del log.records[gone]

    def recreate(self, topic_id: str, *, keeps_commits: bool = False) -> None:
        """Delete the topic and create it again; Kafka deletes its committed offsets with it."""
        self.topic_id = topic_id
        for where in self.logs:
            self.logs[where] = FakeLog()
        if not keeps_commits:
            self.committed.clear()

    def lag(self) -> int:
        total = 0
        for where, log in self.logs.items():
            committed = self.committed.get(where, Committed(None, "")).offset
            total += log.end - (log.low if committed is None else committed)
        return total

    def is_settled(self) -> bool:
        """Return whether everything is committed and no intent is pending."""
        return self.lag() == 0 and not any(is_pending(c.metadata) for c in self.committed.values())

    def join(self, member: "FakeSource") -> None:
        if member not in self.members:
            self.members.append(member)
        self._spread()

    def leave(self, member: "FakeSource") -> None:
        """Remove the member and free its partitions."""
        if member in self.members:
            self.members.remove(member)
        for where in [w for w, owner in self.owners.items() if owner is member]:
            del self.owners[where]
        self._spread()

    def expire(self, member: "FakeSource") -> None:
        """Expire the session of a member, which notices at its next poll."""
        member.is_expired = True
        self.leave(member)

    def fence(self, member: "FakeSource") -> None:
        """Replace the static member by another process."""
        member.is_fenced = True
        self.leave(member)

    def move(self, partition: int, to: "FakeSource | None") -> None:
        """Move a partition to another member (None: to none) once its owner has given it up."""
        where = TopicPartition(self.topic, partition)
        if to is None:
            self.targets.pop(where, None)
        else:
            self.targets[where] = to

    def _spread(self) -> None:
        if not self.is_balancing:
            self.targets = {w: m for w, m in self.targets.items() if m in self.members}
            return
        self.targets = {
            where: self.members[index % len(self.members)]
            for index, where in enumerate(self.logs)
            if self.members
        }


class FakeSource:
    """Implements `interfaces.Source` as a dynamic member of the broker's group."""

    def __init__(
        self, broker: FakeBroker, *, epoch: str = "", fetch_records: int = 100_000
    ) -> None:
        self._broker = broker
        self._epoch = epoch
        self._fetch_records = fetch_records
        self._listener: RebalanceListener | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._returned_end: dict[TopicPartition, int] = {}
        self._returned_gone: set[TopicPartition] = set()
        self._turn = 0
        self.faults = Faults()
        self.seeks = 0
        self.is_paused = False
        self.is_outdated = False
        """True if a recreated topic is not read, as by librdkafka after a leader change."""
        self._needs_recreation = False
        self.is_expired = False
        self.is_fenced = False
        self.is_closed = False

    @property
    def assignment(self) -> list[TopicPartition]:
        return list(self._positions)

    def subscribe(self, listener: RebalanceListener) -> None:
        self._listener = listener
        self._broker.join(self)

    def poll(self, max_records: int, timeout_seconds: float) -> Polled:
        assert not self.is_closed, "polled after close"
        self._fail("poll")
        if self.is_fenced:
            raise AssignmentLost("fenced")
        if self._needs_recreation:
            self._leave_and_join()
        self._rebalance()
        polled = Polled([]) if self.is_paused else self._fetch(max_records)
        if not (polled.records or polled.ends or polled.gone):
            self._broker.clock.sleep(timeout_seconds)
        return polled

    def _rebalance(self) -> None:
        assert self._listener is not None, "polled before subscribe"
        broker = self._broker
        if self.is_expired:
            lost, self.is_expired = list(self._positions), False
            self._drop(lost)
            if lost:
                self._listener.lost(lost)
            broker.join(self)
            return
        leaving = [w for w in self._positions if broker.targets.get(w) is not self]
        if leaving:
            try:
                self._listener.revoked(leaving)
            finally:
                self._drop(leaving)
                for where in leaving:
                    broker.owners.pop(where, None)
        coming = [w for w, m in broker.targets.items() if m is self and w not in broker.owners]
        if coming:
            for where in coming:
                broker.owners[where] = self
            try:
                starts = self._listener.assigned(coming)
            except Unavailable as error:
                raise AssignmentLost("no positions") from error
            for where in coming:
                self._positions[where] = starts[where]

    def _drop(self, partitions: Iterable[TopicPartition]) -> None:
        for where in partitions:
            self._positions.pop(where, None)
            self._returned_end.pop(where, None)
            self._returned_gone.discard(where)

    def _fetch(self, max_records: int) -> Polled:
        records: list[Record] = []
        ends: list[EndOfPartition] = []
        gone: list[OffsetGone] = []
        owned = list(self._positions)
        self._turn += 1
        for index in range(len(owned)):
            where = owned[(index + self._turn) % len(owned)]
            log, position = self._broker.logs[where], self._positions[where]
            is_refused = (where.partition, position) in self._broker.refused
            if is_refused or not log.low <= position <= log.end:
                if where not in self._returned_gone:
                    gone.append(OffsetGone(where, position))
                    self._returned_gone.add(where)
                continue
            if self.is_outdated:
                continue
            room = min(self._fetch_records, max_records - len(records))
            while position < log.end and room > 0:
                record = log.records.get(position)
                position += 1
                if record is not None:
                    records.append(record)
                    room -= 1
            self._positions[where] = position
            # As the client, which looks for the end of a log only where it waits for records in vain.
            is_known = position - 1 in log.records
            if position == log.end and not is_known and self._returned_end.get(where) != position:
                self._returned_end[where] = position
                ends.append(EndOfPartition(where, position))
        return Polled(records, ends, gone)

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        self._fail("committed")
        return {p: self._broker.committed.get(p, Committed(None, "")) for p in partitions}

    def commit(self, commits: Sequence[Commit]) -> None:
        assert commits, "an empty commit commits everything in librdkafka"
        if self.is_fenced:
            raise AssignmentLost("fenced")
        # Like Kafka, checks that the member is in the group, not that it owns the partition.
        if self not in self._broker.members:
            raise Rebalancing("the generation is over")

        def act() -> None:
            for commit in commits:
                self._broker.committed[commit.partition] = Committed(commit.offset, commit.metadata)
                self._broker.journal.append(Entry("commit", commit))

        fault = self.faults.take("commit")
        if fault is not None:
            if fault.is_done:
                act()
            raise fault.error
        self._broker.faults.run("commit", act)

    def log_identity(self, topic: str) -> LogIdentity:
        self._fail("log_identity")
        return LogIdentity(self._broker.cluster_id, self._broker.topic_id, self._epoch)

    def earliest(self, partition: TopicPartition) -> int:
        self._fail("earliest")
        return self._broker.logs[partition].low

    def latest(self, partition: TopicPartition) -> int:
        self._fail("latest")
        return self._broker.logs[partition].end

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._fail("seek")
        self.seeks += 1
        if partition not in self._positions:
            raise Unavailable(f"{partition} is not assigned")
        self._positions[partition] = offset
        self._returned_end.pop(partition, None)
        self._returned_gone.discard(partition)

    def recreate_client(self) -> None:
        self._needs_recreation = True

    def _leave_and_join(self) -> None:
        assert self._listener is not None, "recreated before subscribe"
        owned = list(self._positions)
        try:
            if owned:
                self._listener.revoked(owned)
        finally:
            self._drop(owned)
            self._broker.leave(self)
            self._needs_recreation = self.is_outdated = False
            self._broker.join(self)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        if self.is_closed:
            return
        try:
            if self._positions and not self.is_fenced and self._listener is not None:
                owned = list(self._positions)
                if self.is_expired:
                    self._listener.lost(owned)
                else:
                    self._listener.revoked(owned)
                self._drop(owned)
        finally:
            self.is_closed = True
            self._broker.leave(self)

    def _fail(self, operation: str) -> None:
        for faults in (self.faults, self._broker.faults):
            fault = faults.take(operation)
            if fault is not None:
                raise fault.error
