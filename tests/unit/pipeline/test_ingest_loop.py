"""The loop over a fake broker and a fake table: what is delivered, in which order, through what."""

from itertools import pairwise

import pytest

from octane_analytics.errors import AssignmentLost, Rebalancing, Unavailable
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.pipeline.intents import completed
from octane_analytics.types import Commit, Committed, TopicPartition
from tests.fakes.journal import InsertEntry
from tests.fakes.kafka import TOPIC
from tests.support.ingest_rig import LOG, Rig, Worker, batch, both_deliveries, event, names

P0, P1, P2 = (TopicPartition(TOPIC, number) for number in range(3))
DOWN = Unavailable("down")
NOTHING = completed(TOPIC, LOG)


def test_batch_is_announced_inserted_and_completed() -> None:
    rig = Rig(partitions=3, size=5)
    rig.produce(0, 3, 0)
    rig.produce(3, 5, 2)
    worker = rig.worker()
    rig.settle(worker)
    announced = batch((0, 0, 3), (2, 0, 2))
    assert rig.journal("commit", "insert") == [
        *(Commit(p, 0, NOTHING) for p in (P0, P1, P2)),
        Commit(P0, 0, announced.metadata()),
        Commit(P2, 0, announced.metadata()),
        InsertEntry(announced.token(), 5),
        Commit(P0, 3, NOTHING),
        Commit(P2, 2, NOTHING),
    ]
    assert rig.table.count() == dict.fromkeys(names(0, 5), 1)
    assert worker.observer.rows == 5


def test_next_batch_completes_absent_partitions() -> None:
    rig = Rig(partitions=2, size=2)
    rig.produce(0, 1, 0)
    rig.produce(1, 2, 1)
    worker = rig.worker()
    worker.turn(2)
    rig.produce(2, 4, 1)
    worker.turn(1)
    announced = batch((1, 1, 3))
    assert rig.journal("commit")[-2:] == [
        Commit(P1, 1, announced.metadata()),
        Commit(P0, 1, NOTHING),
    ]


def test_at_least_once_inserts_without_an_announcement() -> None:
    rig = Rig(partitions=2, size=4, delivery=Delivery.AT_LEAST_ONCE)
    rig.produce(0, 2, 0)
    rig.produce(2, 4, 1)
    rig.settle(rig.worker())
    assert rig.journal("insert") == [InsertEntry(None, 4)]
    assert rig.journal("commit")[-2:] == [Commit(P0, 2, NOTHING), Commit(P1, 2, NOTHING)]


def test_backlog_fills_batches_despite_insert_rate() -> None:
    rig = Rig(partitions=4, size=10, max_rows=5_000, inserts_per_second=0.001)
    for partition in range(4):
        rig.produce(0, 5_000, partition, f"p{partition}-")
    worker = rig.worker()
    worker.turn(10)
    assert [entry.rows for entry in rig.journal("insert")] == [5_000] * 4  # type: ignore[attr-defined]


@both_deliveries
def test_outage_of_clickhouse_is_waited_out(delivery: Delivery) -> None:
    rig = Rig(partitions=2, size=2, delivery=delivery)
    rig.produce(0, 2, 0)
    rig.produce(2, 4, 1)
    rig.table.faults.push("insert", *[DOWN] * 8)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.table.count() == dict.fromkeys(names(0, 4), 1)
    assert worker.observer.names().count("resumed") == 1


def test_unknown_commit_outcome_rejoins_with_new_client() -> None:
    rig = Rig(partitions=2, size=2)
    worker = rig.worker()
    worker.turn(2)
    rig.broker.faults.push("commit", DOWN, is_done=True)
    rig.produce(0, 2, 0)
    rig.produce(2, 4, 1)
    rig.settle(worker)
    assert worker.observer.details("restarting") == ["outcome of a commit is unknown"]
    assert worker.observer.names().count("recovered") == 1
    assert rig.table.count() == dict.fromkeys(names(0, 4), 1)


def test_rejoins_are_limited_by_session_timeout() -> None:
    rig = Rig(size=1, session_seconds=30.0)
    worker = rig.worker()
    rig.broker.faults.push("commit", *[DOWN] * 5)
    rig.produce(0, 1)
    restarts = []
    while not rig.broker.is_settled():
        before = worker.observer.names().count("restarting")
        worker.turn()
        if worker.observer.names().count("restarting") > before:
            restarts.append(rig.clock.now())
    assert len(restarts) == 5
    gaps = [after - before for before, after in pairwise(restarts)]
    assert min(gaps) >= 15.0


def test_refused_announcement_is_repeated_unchanged() -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    worker.turn(2)
    rig.broker.faults.push("commit", *[Rebalancing("settling")] * 3)
    rig.produce(0, 2)
    rig.settle(worker)
    assert "restarting" not in worker.observer.names()
    assert rig.journal("insert") == [InsertEntry(batch((0, 0, 2)).token(), 2)]


def test_member_that_was_replaced_gives_up() -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    worker.turn(2)
    rig.broker.fence(worker.source)
    rig.produce(0, 2)
    with pytest.raises(AssignmentLost):
        worker.turn(3)


def crashed_after_the_intent(rig: Rig, partitions: int, *, is_inserted: bool) -> Worker:
    """A worker that announced one batch over these partitions, two rows each, and is gone."""
    worker = rig.worker()
    worker.turn(2)
    for partition in range(partitions):
        rig.produce(0, 2, partition, f"p{partition}-")
    rig.table.faults.push("insert", DOWN, is_done=is_inserted)
    worker.turn(2)
    assert all(";;" not in rig.broker.committed[p].metadata for p in (P0, P1, P2)[:partitions])
    rig.broker.expire(worker.source)
    return worker


@pytest.mark.parametrize("is_inserted", [True, False])
def test_three_new_owners_recover_one_batch_once(is_inserted: bool) -> None:
    rig = Rig(partitions=3, size=6)
    crashed_after_the_intent(rig, 3, is_inserted=is_inserted)
    workers = [rig.worker() for _ in range(3)]
    rig.settle(*workers)
    assert set(rig.table.count().values()) == {1}
    assert len(rig.table.count()) == 6
    owned = [w for w in workers if w.source.assignment]
    assert len(owned) == 3
    assert all(w.observer.names().count("recovered") == 1 for w in owned)
    # Each row is counted by the worker that completes its partition.
    assert [w.observer.rows for w in owned] == [2, 2, 2]


def test_leaderless_partition_delays_its_own_batches() -> None:
    rig = Rig(partitions=3, size=4, flush_seconds=1.0)
    crashed_after_the_intent(rig, 2, is_inserted=False)
    worker = rig.worker()
    worker.reader.leaderless = {1}
    rig.produce(2, 4, 2, "p2-")
    for _ in range(20):
        worker.turn()
        rig.clock.sleep(0.5)
    assert rig.table.count() == {"p2-2": 1, "p2-3": 1}
    assert "recovery_waits" in worker.observer.names()
    worker.reader.leaderless = set()
    rig.settle(worker)
    assert len(rig.table.count()) == 6
    assert set(rig.table.count().values()) == {1}


def test_retention_removes_part_of_a_pending_batch() -> None:
    rig = Rig(partitions=2, size=4)
    crashed_after_the_intent(rig, 2, is_inserted=False)
    rig.broker.delete_before(1, 1)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.table.count() == {"p0-0": 1, "p0-1": 1, "p1-1": 1}
    assert worker.observer.details("offsets_gone") == [(1, 0, 1)]


@both_deliveries
def test_only_refused_rows_of_partitions_are_dead_lettered(delivery: Delivery) -> None:
    rig = Rig(partitions=2, size=6, delivery=delivery)
    rig.table.refuses = lambda row: row.user_id in ("e1", "e4")
    rig.produce(0, 3, 0)
    rig.produce(3, 6, 1)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.table.count() == dict.fromkeys(["e0", "e2", "e3", "e5"], 1)
    places = [(r.record.partition(), r.record.offset()) for r in rig.broker.dead_letters]
    assert places == [(0, 1), (1, 1)]
    assert worker.observer.rows == 4


def test_dead_letters_precede_moved_offset() -> None:
    rig = Rig(partitions=1, size=2)
    rig.broker.append(0, event("a"), b"invalid")
    rig.broker.faults.push("dead_letters", *[DOWN] * 3)
    worker = rig.worker()
    rig.settle(worker)
    kinds = [e.what for e in rig.broker.journal]
    assert kinds.index("dead_letters") < len(kinds) - 1 - kinds[::-1].index("commit")
    assert rig.table.count() == {"a": 1}


@both_deliveries
def test_recreated_topic_is_read_from_its_beginning(delivery: Delivery) -> None:
    rig = Rig(partitions=2, size=2, delivery=delivery)
    rig.produce(0, 2, 0)
    worker = rig.worker()
    rig.settle(worker)
    rig.broker.recreate("topic-2")
    rig.produce(10, 14, 0)
    rig.clock.sleep(2.0)
    for _ in range(50):
        worker.turn()
        rig.clock.sleep(0.5)
    assert rig.table.count().keys() == {*names(0, 2), *names(10, 14)}
    if delivery is Delivery.EXACTLY_ONCE:
        assert set(rig.table.count().values()) == {1}


def test_drain_commits_all_partitions() -> None:
    rig = Rig(partitions=2)
    rig.produce(0, 3, 0)
    rig.produce(3, 5, 1)
    worker = rig.worker()
    worker.turn(3)
    assert worker.ingest.drain(10.0)
    assert rig.broker.is_settled()
    assert len(rig.table.count()) == 5


def test_drain_ends_at_deadline_of_outage() -> None:
    rig = Rig()
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.table.faults.push("insert", *[DOWN] * 1_000)
    assert not worker.ingest.drain(10.0)


def test_drain_waits_for_a_recovery_without_spinning() -> None:
    rig = Rig(partitions=2, size=4)
    crashed_after_the_intent(rig, 2, is_inserted=False)
    worker = rig.worker()
    worker.reader.leaderless = {1}
    worker.turn(2)
    polls = worker.observer.calls["poll"]
    assert not worker.ingest.drain(10.0)
    assert worker.observer.calls["poll"] - polls <= 110


def test_revoked_partition_is_finished_first() -> None:
    rig = Rig(partitions=2)
    first = rig.worker()
    rig.produce(0, 3, 0)
    rig.produce(3, 5, 1)
    first.turn(3)
    second = rig.worker()
    first.turn(1)
    assert rig.broker.committed[P1] == Committed(2, NOTHING)
    assert rig.table.count() == dict.fromkeys(names(0, 5), 1)
    rig.settle(first, second)
    assert "recovered" not in second.observer.names()


def test_many_partitions_are_split_over_batches() -> None:
    rig = Rig(partitions=300, size=300, flush_seconds=1.0)
    for partition in range(300):
        rig.produce(0, 1, partition, f"p{partition}-")
    rig.settle(rig.worker())
    assert len(rig.table.count()) == 300
    assert set(rig.table.count().values()) == {1}
    assert len(rig.journal("insert")) > 1
    assert max(len(c.metadata) for c in rig.journal("commit")) <= 2_000  # type: ignore[attr-defined]
