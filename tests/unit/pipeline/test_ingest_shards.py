"""Batches of a table with several shards: each is inserted into the one that its intent names."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.pipeline.intents import Intent, parse_intent
from octane_analytics.types import Committed
from tests.fakes.clickhouse import FakeClickHouse, FakeShards, FakeSink
from tests.fakes.kafka import TOPIC
from tests.support.ingest_rig import DOWN, P0, P1, Rig, batch, names, once


class Cluster:
    """Tables by the identity of their shard, and the broker of `ingest_rig.Rig`."""

    def __init__(self, rig: Rig, *identities: str) -> None:
        self.rig = rig
        self.tables: dict[str, FakeClickHouse] = {}
        self.add(*identities)

    def add(self, *identities: str) -> None:
        for identity in identities:
            self.tables[identity] = FakeClickHouse(self.rig.clock, self.rig.broker.journal)

    def listed(self, *identities: str, first: int = 0) -> FakeShards:
        """Return the shards in the order of a worker's settings."""
        return FakeShards({name: FakeSink(self.tables[name]) for name in identities}, first=first)

    def counts(self) -> dict[str, int]:
        return {name: len(table.rows) for name, table in self.tables.items()}

    def stored(self) -> Counter[str]:
        """Return the number of rows by user_id, over all shards."""
        return sum((table.count() for table in self.tables.values()), Counter[str]())

    def pending(self) -> Intent | None:
        return parse_intent(TOPIC, 0, self.rig.broker.committed[P0].metadata)


def crashed_after_announcing(cluster: Cluster, *, is_inserted: bool) -> None:
    """Leave a batch of four records that is pending for shard `b`."""
    rig = cluster.rig
    dead = rig.worker(shards=cluster.listed("a", "b", first=1))
    dead.turn(2)
    rig.produce(0, 4)
    cluster.tables["b"].faults.push("insert", DOWN, is_done=is_inserted)
    dead.turn(2)
    pending = batch((0, 0, 4)).on_shard("b")
    assert rig.broker.committed[P0] == Committed(0, pending.metadata())
    rig.broker.expire(dead.source)
    rig.produce(4, 9)


def test_batches_take_turns_among_shards() -> None:
    rig = Rig(size=4)
    cluster = Cluster(rig, "a", "b")
    worker = rig.worker(shards=cluster.listed("a", "b"))
    for number in range(4):
        rig.produce(4 * number, 4 * number + 4)
        rig.settle(worker)
    assert cluster.counts() == {"a": 8, "b": 8}
    assert cluster.stored() == once(names(0, 16))


def test_intent_names_the_shard_before_the_insert() -> None:
    rig = Rig(size=4)
    cluster = Cluster(rig, "a", "b")
    crashed_after_announcing(cluster, is_inserted=False)
    assert cluster.counts() == {"a": 0, "b": 0}


@pytest.mark.parametrize("is_inserted", [True, False])
@pytest.mark.parametrize("listed", ["ab", "ba", "b", "cab", "cba"])
def test_pending_batch_stays_in_its_shard(listed: str, is_inserted: bool) -> None:
    rig = Rig(size=4)
    cluster = Cluster(rig, "a", "b", "c")
    crashed_after_announcing(cluster, is_inserted=is_inserted)
    rig.settle(rig.worker(shards=cluster.listed(*listed)))
    assert set(names(0, 4)) <= set(cluster.tables["b"].count())
    assert cluster.stored() == once(names(0, 9))


@pytest.mark.parametrize("is_inserted", [True, False])
def test_batch_of_removed_shard_waits_for_it(is_inserted: bool) -> None:
    rig = Rig(size=4, partitions=2)
    cluster = Cluster(rig, "a", "b", "c")
    crashed_after_announcing(cluster, is_inserted=is_inserted)
    worker = rig.worker(shards=cluster.listed("a", "c"))
    rig.produce(0, 6, 1, "other")
    for _ in range(60):
        worker.turn()
        rig.clock.sleep(0.5)
    assert worker.observer.details("recovery_waits")[0] == "0:0-4"
    assert rig.broker.committed[P0].offset == 0, "its partition waits"
    assert rig.broker.committed[P1].offset == 6, "the others go on"
    for other in ("a", "c"):
        assert not set(names(0, 4)) & set(cluster.tables[other].count())
    rig.broker.expire(worker.source)
    rig.settle(rig.worker(shards=cluster.listed("c", "b", "a")))
    assert cluster.stored() == once(names(0, 9), names(0, 6, "other"))


def test_unnamed_batch_waits_where_shards_were_added() -> None:
    rig = Rig(size=4)
    cluster = Cluster(rig, "", "b")
    rig.produce(0, 8)
    rig.broker.committed[P0] = Committed(0, batch((0, 0, 4)).metadata())
    cluster.tables["a"] = cluster.tables[""]
    worker = rig.worker(shards=cluster.listed("a", "b"))
    for _ in range(40):
        worker.turn()
        rig.clock.sleep(0.5)
    assert cluster.stored() == Counter()
    rig.broker.expire(worker.source)
    rig.settle(rig.worker(shards=cluster.listed("")))
    assert cluster.tables[""].count() == once(names(0, 8))


def test_only_shard_is_not_named() -> None:
    rig = Rig(size=4)
    rig.produce(0, 4)
    rig.table.faults.push("insert", DOWN)
    worker = rig.worker()
    worker.turn(4)
    assert rig.broker.committed[P0] == Committed(0, batch((0, 0, 4)).metadata())


def test_turn_of_unreachable_shard_passes_on() -> None:
    rig = Rig(size=4)
    cluster = Cluster(rig, "a", "b")
    shards = cluster.listed("a", "b")
    shards.unreachable = {"a"}
    worker = rig.worker(shards=shards)
    for number in range(3):
        rig.produce(4 * number, 4 * number + 4)
        rig.settle(worker)
    assert cluster.counts() == {"a": 0, "b": 12}


def test_batch_without_reachable_shard_is_not_announced() -> None:
    rig = Rig(size=4)
    cluster = Cluster(rig, "a", "b")
    shards = cluster.listed("a", "b")
    shards.unreachable = {"a", "b"}
    worker = rig.worker(shards=shards)
    rig.produce(0, 4)
    for _ in range(20):
        worker.turn()
        rig.clock.sleep(0.5)
    assert worker.observer.failing == {"clickhouse"}
    assert cluster.pending() in (None, batch())
    shards.unreachable = set()
    rig.settle(worker)
    assert cluster.stored() == once(names(0, 4))
    assert worker.observer.failing == set()


def test_announced_batch_does_not_leave_failed_shard() -> None:
    rig = Rig(size=4)
    cluster = Cluster(rig, "a", "b")
    cluster.tables["a"].faults.push("insert", *[DOWN] * 3)
    rig.produce(0, 4)
    rig.settle(rig.worker(shards=cluster.listed("a", "b")))
    assert cluster.counts() == {"a": 4, "b": 0}


def test_refused_rows_are_isolated_in_the_shard() -> None:
    rig = Rig(size=4)
    cluster = Cluster(rig, "a", "b")
    cluster.tables["b"].refuses = lambda row: row.user_id == "e2"
    rig.produce(0, 4)
    rig.settle(rig.worker(shards=cluster.listed("a", "b", first=1)))
    assert cluster.counts() == {"a": 0, "b": 3}
    assert [d.record.offset() for d in rig.broker.dead_letters] == [2]


def test_at_least_once_insert_goes_to_next_shard() -> None:
    rig = Rig(size=4, delivery=Delivery.AT_LEAST_ONCE)
    cluster = Cluster(rig, "a", "b")
    cluster.tables["a"].faults.push("insert", *[DOWN] * 9)
    rig.produce(0, 4)
    rig.settle(rig.worker(shards=cluster.listed("a", "b")))
    assert cluster.counts() == {"a": 0, "b": 4}


identities = st.permutations("abcd").flatmap(
    lambda order: st.integers(2, 4).map(lambda count: "".join(order[:count]))
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lists=st.lists(identities, min_size=1, max_size=6),
    faults=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["lost", "not done", "half"])),
        max_size=6,
    ),
    turns=st.lists(st.integers(1, 8), min_size=6, max_size=6),
)
def test_changed_lists_keep_each_event_once(
    lists: list[str], faults: list[tuple[str, str]], turns: list[int]
) -> None:
    """Workers die at any time, and the next one has another list of shards."""
    rig = Rig(size=3, partitions=2)
    cluster = Cluster(rig, *"abcd")
    for shard, fault in faults:
        kind = "half insert" if fault == "half" else "insert"
        cluster.tables[shard].faults.push(kind, DOWN, is_done=fault == "lost")
    for number, listed in enumerate(lists):
        for partition in (0, 1):
            rig.produce(4 * number, 4 * number + 4, partition, f"p{partition}-")
        worker = rig.worker(shards=cluster.listed(*listed, first=number))
        worker.turn(turns[number])
        rig.clock.sleep(1.0)
        worker.turn(turns[number])
        rig.broker.expire(worker.source)
    rig.settle(rig.worker(shards=cluster.listed(*"abcd")))
    end = 4 * len(lists)
    assert cluster.stored() == once(names(0, end, "p0-"), names(0, end, "p1-"))
