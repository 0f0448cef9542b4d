"""Contract of GroupMember, for the fake and for Kafka's consumer."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import pytest
from confluent_kafka import KafkaError, Producer

from octane_analytics.errors import AssignmentLost, Rebalancing, Unavailable
from octane_analytics.interfaces import GroupMember
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.sandbox.kafka import ApiKey, EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import (
    Commit,
    CommitOutcome,
    Committed,
    EndOfPartition,
    OffsetGone,
    Record,
    TopicPartition,
)
from tests.fakes.clock import FakeClock
from tests.fakes.group_member import FakeMember
from tests.fakes.kafka import TOPIC, FakeBroker, FakeSource

PARTITIONS = 2
DEADLINE_SECONDS = 20.0


class Listener:
    """Starts each partition at its offset in `starts` (default 0); records its calls."""

    def __init__(self, starts: Mapping[int, int] | None = None) -> None:
        self.starts = starts or {}
        self.owned: set[TopicPartition] = set()
        self.calls: list[tuple[str, frozenset[TopicPartition]]] = []
        self.on_assigned: Callable[[], None] = lambda: None
        self.on_revoked: Callable[[], None] = lambda: None

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.on_assigned()
        self.calls.append(("assigned", frozenset(partitions)))
        self.owned |= set(partitions)
        return {p: self.starts.get(p.partition, 0) for p in partitions}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.on_revoked()
        self.calls.append(("revoked", frozenset(partitions)))
        self.owned -= set(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("lost", frozenset(partitions)))
        self.owned -= set(partitions)


class Bench(Protocol):
    """One topic with two empty partitions, and members of one group on it."""

    def partition(self, number: int) -> TopicPartition: ...
    def member(self, epoch: str = "") -> GroupMember: ...
    def produce(self, partition: int, *values: bytes | None) -> None: ...
    def delete_before(self, partition: int, offset: int) -> None: ...
    def refuse(self, partition: int, offset: int) -> None: ...
    def refuse_commits(self, times: int) -> None: ...
    def cut_off(self) -> None: ...
    def close(self) -> None: ...


class FakeBench:
    def __init__(self) -> None:
        self._broker = FakeBroker(FakeClock(), PARTITIONS)

    def partition(self, number: int) -> TopicPartition:
        return TopicPartition(TOPIC, number)

    def member(self, epoch: str = "") -> GroupMember:
        return FakeMember(FakeSource(self._broker, epoch=epoch))

    def produce(self, partition: int, *values: bytes | None) -> None:
        self._broker.append(partition, *values)

    def delete_before(self, partition: int, offset: int) -> None:
        self._broker.delete_before(partition, offset)

    def refuse(self, partition: int, offset: int) -> None:
        self._broker.logs[self.partition(partition)].low = offset
        self._broker.refused.add((partition, offset))

    def refuse_commits(self, times: int) -> None:
        self._broker.faults.push("commit", *[Rebalancing("settling")] * times)

    def cut_off(self) -> None:
        self._broker.faults.push("poll", *[Unavailable("down")] * 10)

    def close(self) -> None:
        pass


class KafkaBench:
    def __init__(self, kafka: EmbeddedKafka) -> None:
        self._kafka = kafka
        self._topic = f"events-{uuid.uuid4().hex[:8]}"
        self._group = f"group-{uuid.uuid4().hex[:8]}"
        self._members: list[KafkaSource] = []
        kafka.create_topic(self._topic, PARTITIONS)

    def partition(self, number: int) -> TopicPartition:
        return TopicPartition(self._topic, number)

    def member(self, epoch: str = "") -> GroupMember:
        source = KafkaSource(
            KafkaSettings(
                bootstrap_servers=self._kafka.bootstrap_servers,
                topic=self._topic,
                group_id=self._group,
                log_epoch=epoch,
                # The mock cluster needs a session timeout, less a second, to rebalance.
                rdkafka={
                    "session.timeout.ms": "3000",
                    "heartbeat.interval.ms": "100",
                    "fetch.wait.max.ms": "50",
                },
            ),
            slot=None,
        )
        self._members.append(source)
        return source

    def produce(self, partition: int, *values: bytes | None) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap_servers, "log_level": 0})
        for value in values:
            producer.produce(self._topic, value, partition=partition)
        assert producer.flush(DEADLINE_SECONDS) == 0

    def delete_before(self, partition: int, offset: int) -> None:
        self._kafka.delete_records(self._topic, partition, offset)

    def refuse(self, partition: int, offset: int) -> None:
        # The mock cluster moves the start of the log back to a record that it has removed.
        self._kafka.delete_records(self._topic, partition, offset)

    def refuse_commits(self, times: int) -> None:
        errors = [int(KafkaError.REBALANCE_IN_PROGRESS)] * times
        self._kafka.push_request_errors(ApiKey.OFFSET_COMMIT, errors)

    def cut_off(self) -> None:
        self._kafka.set_broker_down()

    def close(self) -> None:
        self._kafka.set_broker_up()
        # All of them, even if a listener raises: an open client continues to run.
        with contextlib.ExitStack() as stack:
            for member in self._members:
                stack.callback(member.close)


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(initial_rebalance_delay_ms=10) as engine:
        yield engine


@pytest.fixture(params=["fake", "kafka"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    make: dict[str, Callable[[], Bench]] = {
        "fake": FakeBench,
        "kafka": lambda: KafkaBench(request.getfixturevalue("kafka")),
    }
    made = make[request.param]()
    yield made
    made.close()


class Reader:
    """Polls a member and keeps everything that it returns."""

    def __init__(self, source: GroupMember, listener: Listener | None = None) -> None:
        self.source = source
        self.listener = listener or Listener()
        self.records: list[Record] = []
        self.ends: list[EndOfPartition] = []
        self.gone: list[OffsetGone] = []
        source.subscribe(self.listener)

    def poll(self, max_records: int = 10_000) -> None:
        polled = self.source.poll(max_records, 0.05)
        self.records += polled.records
        self.ends += polled.ends
        self.gone += polled.gone

    def until(self, condition: Callable[[], object], *others: "Reader") -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            for reader in (self, *others):
                reader.poll()

    def join(self) -> "Reader":
        self.until(lambda: self.listener.owned)
        return self

    def offsets(self, partition: int = 0) -> list[int | None]:
        return [r.offset() for r in self.records if r.partition() == partition]

    def forget(self) -> None:
        self.records.clear()
        self.ends.clear()
        self.gone.clear()


def numbers(first: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, end)]


def test_poll_returns_records_from_assigned_offset(bench: Bench) -> None:
    bench.produce(0, *numbers(0, 5))
    reader = Reader(bench.member(), Listener({0: 2}))
    reader.until(lambda: len(reader.records) == 3)
    assert [(r.offset(), r.value()) for r in reader.records] == [(2, b"2"), (3, b"3"), (4, b"4")]
    assert {r.topic() for r in reader.records} == {bench.partition(0).topic}
    assert reader.listener.owned == {bench.partition(0), bench.partition(1)}


def test_poll_distinguishes_tombstone_from_empty_value(bench: Bench) -> None:
    bench.produce(0, None, b"")
    reader = Reader(bench.member())
    reader.until(lambda: len(reader.records) == 2)
    assert [r.value() for r in reader.records] == [None, b""]


def test_poll_returns_at_most_max_records(bench: Bench) -> None:
    bench.produce(0, *numbers(0, 10))
    reader = Reader(bench.member())
    reader.poll(3)
    while len(reader.records) < 10:
        before = len(reader.records)
        reader.poll(3)
        assert len(reader.records) - before <= 3


def test_committed_offset_and_metadata_are_kept(bench: Bench) -> None:
    one, other = bench.partition(0), bench.partition(1)
    reader = Reader(bench.member()).join()
    assert reader.source.committed([one, other]) == {
        one: Committed(None, ""),
        other: Committed(None, ""),
    }
    reader.source.commit([Commit(one, 3, "octane1;3-9;cluster;Topic-Id_;é")])
    reader.source.commit([Commit(other, 0, "x")])
    reader.source.close()
    assert bench.member().committed([one, other]) == {
        one: Committed(3, "octane1;3-9;cluster;Topic-Id_;é"),
        other: Committed(0, "x"),
    }


def test_commit_overwrites_metadata_with_empty(bench: Bench) -> None:
    one = bench.partition(0)
    source = Reader(bench.member()).join().source
    source.commit([Commit(one, 3, "pending")])
    source.commit([Commit(one, 5, "")])
    assert source.committed([one]) == {one: Committed(5, "")}


def test_commit_during_rebalance_changes_nothing(bench: Bench) -> None:
    one = bench.partition(0)
    source = Reader(bench.member()).join().source
    source.commit([Commit(one, 1, "")])
    bench.refuse_commits(1)
    outcome = source.commit([Commit(one, 2, "x")])
    assert isinstance(outcome.error, Rebalancing)
    assert not outcome.accepted
    assert not outcome.is_unknown
    assert not outcome.may_be_stored
    assert source.committed([one]) == {one: Committed(1, "")}
    assert source.commit([Commit(one, 2, "x")]) == CommitOutcome(frozenset({0}))
    assert source.committed([one]) == {one: Committed(2, "x")}


def test_commit_stores_all_partitions_at_once(bench: Bench) -> None:
    commits = [Commit(bench.partition(number), number + 1, "x" * 2000) for number in (0, 1)]
    source = Reader(bench.member()).join().source
    assert source.commit(commits) == CommitOutcome(frozenset({0, 1}))
    committed = source.committed([each.partition for each in commits])
    assert committed == {c.partition: Committed(c.offset, c.metadata) for c in commits}


def test_seek_discards_prefetched_records(bench: Bench) -> None:
    bench.produce(0, *numbers(0, 500))
    reader = Reader(bench.member())
    reader.until(lambda: len(reader.records) == 500)
    for target in (100, 0, 499, 250):
        reader.forget()
        reader.source.seek(bench.partition(0), target)
        reader.until(lambda: reader.records)
        assert reader.offsets()[0] == target
    reader.until(lambda: 499 in reader.offsets())
    assert reader.offsets() == list(range(250, 500))


def test_recreated_client_is_assigned_its_partitions_again(bench: Bench) -> None:
    bench.produce(0, b"a", b"b")
    reader = Reader(bench.member()).join()
    reader.until(lambda: reader.offsets() == [0, 1])
    owned = set(reader.listener.owned)
    reader.forget()
    reader.listener.calls.clear()
    reader.source.recreate_client()
    assert reader.listener.owned == owned, "not before the next poll"
    reader.poll()
    assert reader.listener.calls[0] == ("revoked", frozenset(owned))
    reader.until(lambda: reader.offsets() == [0, 1])
    assert reader.listener.owned == owned


def test_listener_can_recreate_its_client(bench: Bench) -> None:
    reader = Reader(bench.member())
    once = [reader.source.recreate_client]
    reader.listener.on_assigned = lambda: once.pop()() if once else None
    reader.until(lambda: len(reader.listener.calls) == 3)
    assert [call for call, _ in reader.listener.calls] == ["assigned", "revoked", "assigned"]
    bench.produce(0, b"a")
    reader.until(lambda: reader.offsets() == [0])


def test_resume_continues_at_paused_position(bench: Bench) -> None:
    bench.produce(0, *numbers(0, 300))
    reader = Reader(bench.member())
    while len(reader.records) < 10:
        reader.poll(10)
    reader.source.pause()
    seen = len(reader.records)
    for _ in range(10):
        reader.poll()
    assert len(reader.records) == seen
    reader.source.resume()
    reader.until(lambda: len(reader.records) == 300)
    assert reader.offsets() == list(range(300))


@pytest.mark.parametrize("order", ["seek pause", "pause seek", "pause seek pause"])
def test_resume_continues_at_position_sought_during_pause(bench: Bench, order: str) -> None:
    # If the earlier position were kept instead, the range in between would be skipped.
    bench.produce(0, *numbers(0, 100))
    reader = Reader(bench.member())
    reader.until(lambda: len(reader.records) == 100)
    reader.forget()
    for step in order.split():
        if step == "pause":
            reader.source.pause()
        else:
            reader.source.seek(bench.partition(0), 7)
    reader.poll()
    reader.source.resume()
    reader.until(lambda: reader.records)
    assert reader.offsets()[0] == 7


def test_partitions_assigned_during_pause_are_paused(bench: Bench) -> None:
    bench.produce(0, *numbers(0, 20))
    source = bench.member()
    source.pause()
    reader = Reader(source, Listener({0: 4})).join()
    for _ in range(10):
        reader.poll()
    assert reader.records == []
    source.resume()
    reader.until(lambda: len(reader.records) == 16)
    assert reader.offsets()[0] == 4


@pytest.mark.parametrize("position", [2, 50])
def test_position_outside_log_is_returned_once(bench: Bench, position: int) -> None:
    bench.produce(0, *numbers(0, 10))
    bench.delete_before(0, 5)
    where = bench.partition(0)
    source = bench.member()
    reader = Reader(source, Listener({0: position}))
    reader.until(lambda: reader.gone)
    for _ in range(5):
        reader.poll()
    assert [gone.partition for gone in reader.gone] == [where]
    assert reader.offsets() == []
    source.seek(where, source.earliest(where))
    reader.until(lambda: len(reader.offsets()) == 5)
    assert reader.offsets() == [5, 6, 7, 8, 9]


def test_refused_offset_is_returned_after_each_seek(bench: Bench) -> None:
    bench.produce(0, *numbers(0, 5))
    bench.produce(0, *numbers(5, 10))
    bench.delete_before(0, 5)
    bench.refuse(0, 3)
    where, source = bench.partition(0), bench.member()
    reader = Reader(source, Listener({0: 3}))
    for _ in range(3):
        reader.forget()
        reader.until(lambda: reader.gone)
        assert reader.gone == [OffsetGone(where, 3)]
        assert reader.offsets() == []
        assert (source.earliest(where), source.latest(where)) == (3, 10)
        source.seek(where, 3)
    source.seek(where, 5)
    reader.until(lambda: 9 in reader.offsets())
    assert reader.offsets() == [5, 6, 7, 8, 9]


def test_earliest_is_first_retained_offset(bench: Bench) -> None:
    source = Reader(bench.member()).join().source
    assert source.earliest(bench.partition(0)) == 0
    bench.produce(0, *numbers(0, 10))
    bench.delete_before(0, 4)
    assert source.earliest(bench.partition(0)) == 4
    assert source.earliest(bench.partition(1)) == 0


def test_latest_is_next_offset(bench: Bench) -> None:
    source = Reader(bench.member()).join().source
    assert source.latest(bench.partition(0)) == 0
    bench.produce(0, *numbers(0, 10))
    assert source.latest(bench.partition(0)) == 10


def test_log_identity_is_stable_and_has_epoch(bench: Bench) -> None:
    topic = bench.partition(0).topic
    first, second = bench.member(epoch="e1"), bench.member(epoch="e2")
    identity = first.log_identity(topic)
    assert identity == first.log_identity(topic)
    assert identity.epoch == "e1"
    assert identity.cluster_id
    assert identity.topic_id
    assert second.log_identity(topic) == identity._replace(epoch="e2")


def test_poll_without_broker_raises_unavailable(bench: Bench) -> None:
    reader = Reader(bench.member()).join()
    bench.cut_off()
    with pytest.raises(Unavailable):
        reader.until(lambda: False)


def test_close_revokes_before_last_commit(bench: Bench) -> None:
    one = bench.partition(0)
    source = bench.member()
    listener = Listener()

    def commit() -> None:
        source.commit([Commit(one, 1, "")])

    listener.on_revoked = commit
    Reader(source, listener).join()
    source.close()
    assert listener.calls[-1] == ("revoked", frozenset({one, bench.partition(1)}))
    source.close()
    assert bench.member().committed([one]) == {one: Committed(1, "")}


def test_partition_moves_after_last_commit_of_owner(
    bench: Bench,
) -> None:
    bench.produce(0, *numbers(0, 4))
    bench.produce(1, *numbers(0, 4))
    first = Reader(bench.member())
    first.until(lambda: len(first.records) == 8)
    assert first.listener.owned == {bench.partition(0), bench.partition(1)}

    def commit(mark: str) -> bool:
        commits = [Commit(bench.partition(n), 4, f"{mark} {n}") for n in (0, 1)]
        outcome = first.source.commit(commits)
        assert not outcome.is_unknown
        assert len(outcome.accepted) in (0, 2)
        return bool(outcome.accepted)

    accepted = ["before"]
    assert commit("before")

    def commit_for_the_last_time() -> None:
        # The group may have rebalanced without this member before the callback ran. A
        # commit is then refused, and must change nothing.
        if commit("on revoke"):
            accepted.append("on revoke")

    first.listener.on_revoked = commit_for_the_last_time
    second = Reader(bench.member(), Listener({0: 4, 1: 4}))
    second.until(lambda: second.listener.owned, first)
    assert not first.listener.owned & second.listener.owned
    (moved,) = second.listener.owned
    assert ("revoked", frozenset({moved})) in first.listener.calls
    committed = second.source.committed([moved])
    assert committed == {moved: Committed(4, f"{accepted[-1]} {moved.partition}")}
    bench.produce(moved.partition, b"4")
    second.until(lambda: second.records, first)
    assert second.offsets(moved.partition) == [4]
    assert first.offsets(moved.partition) == [0, 1, 2, 3]
    # The partition that continued meanwhile is not read again.
    assert first.offsets(1 - moved.partition) == [0, 1, 2, 3]


def test_lag_counts_from_start_position(kafka: EmbeddedKafka) -> None:
    bench = KafkaBench(kafka)
    bench.produce(0, *numbers(0, 7))
    member = bench.member()
    assert isinstance(member, KafkaSource)
    reader = Reader(member, Listener({0: 3}))
    assert member.lag() == 0  # without partitions
    reader.join()
    # Partition 1 has no records.
    reader.until(lambda: member.lag() == 4)
    reader.until(lambda: reader.offsets() == [3, 4, 5, 6])
    member.commit([Commit(bench.partition(0), 7, "")])
    assert member.lag() == 0
    member.pause()
    bench.produce(1, *numbers(0, 5))
    member.resume()
    reader.until(lambda: reader.offsets(1))
    reader.until(lambda: member.lag() == 5)
    member.commit([Commit(bench.partition(1), 5, "")])
    assert member.lag() == 0
    bench.close()


def test_partition_revoked_during_pause_is_read_later(
    bench: Bench,
) -> None:
    first = Reader(bench.member()).join()
    first.source.pause()
    second = Reader(bench.member())
    second.until(lambda: second.listener.owned, first)
    (moved,) = second.listener.owned
    first.source.resume()
    second.source.close()
    first.until(lambda: moved in first.listener.owned)
    bench.produce(moved.partition, b"0")
    first.until(lambda: first.offsets(moved.partition) == [0])


def test_poll_raises_exception_of_listener(
    bench: Bench,
) -> None:
    first = Reader(bench.member()).join()

    def refuse() -> None:
        first.listener.on_revoked = lambda: None
        raise Rebalancing("refused")

    first.listener.on_revoked = refuse
    second = Reader(bench.member())
    with pytest.raises(Rebalancing, match="refused"):
        first.until(lambda: False, second)
    second.until(lambda: second.listener.owned, first)
    for number in (0, 1):
        bench.produce(number, b"0")
    (moved,) = second.listener.owned
    second.until(lambda: second.records and first.records, first)
    assert second.offsets(moved.partition) == [0]
    assert first.offsets(1 - moved.partition) == [0]


def test_assignment_without_positions_raises_assignment_lost(bench: Bench) -> None:
    bench.produce(0, b"0")
    listener = Listener()

    def fail() -> None:
        raise Unavailable("no broker answers")

    listener.on_assigned = fail
    reader = Reader(bench.member(), listener)
    with pytest.raises(AssignmentLost):
        reader.until(lambda: reader.records)
    assert reader.records == [], "from an undefined position"


def test_close_raises_exception_of_listener_when_done(bench: Bench) -> None:
    first = Reader(bench.member()).join()

    def refuse() -> None:
        raise Rebalancing("refused")

    first.listener.on_revoked = refuse
    with pytest.raises(Rebalancing, match="refused"):
        first.source.close()
    first.source.close()
    bench.produce(0, b"0")
    second = Reader(bench.member())
    second.until(lambda: second.offsets() == [0])
