"""Order of announcements, inserts and commits."""

import pytest

from octane_analytics.errors import Rebalancing
from octane_analytics.pipeline import intents
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.types import (
    Commit,
    Committed,
)
from tests.fakes.journal import Entry, InsertEntry
from tests.support.ingest_rig import (
    DOWN,
    NEVER,
    P0,
    Rig,
    both_deliveries,
    event,
    intent,
    names,
    once,
    token_of,
)


def test_exactly_once_announces_before_insert() -> None:
    rig = Rig(size=2, idle_seconds=NEVER)
    worker = rig.worker()
    worker.turn(2)
    rig.broker.journal.clear()
    rig.produce(0, 2)
    worker.turn(2)
    rig.produce(2, 4)
    worker.turn(2)
    assert rig.broker.journal == [
        Entry("commit", Commit(P0, 0, intent(0, 2))),
        Entry("insert", InsertEntry(token_of(0, 2), 2)),
        Entry("commit", Commit(P0, 2, intent(2, 4))),
        Entry("insert", InsertEntry(token_of(2, 4), 2)),
    ]


def test_batch_of_partitions_is_announced_in_one_commit() -> None:
    rig = Rig(size=4, partitions=3, idle_seconds=NEVER)
    worker = rig.worker()
    worker.turn(2)
    rig.broker.journal.clear()
    rig.produce(0, 2, 0)
    rig.produce(0, 2, 2, "f")
    worker.turn(2)
    assert worker.observer.calls["announce"] == 1
    assert [entry.what for entry in rig.broker.journal] == ["commit", "commit", "insert"]


def test_at_least_once_commits_after_the_insert() -> None:
    rig = Rig(size=2, delivery=Delivery.AT_LEAST_ONCE)
    worker = rig.worker()
    worker.turn(2)
    rig.broker.journal.clear()
    rig.produce(0, 2)
    worker.turn(2)
    assert rig.broker.journal == [
        Entry("insert", InsertEntry(None, 2)),
        Entry("commit", Commit(P0, 2, intent(2, 2))),
    ]


@both_deliveries
def test_dead_letters_are_acknowledged_before_commit(delivery: Delivery) -> None:
    rig = Rig(size=3, delivery=delivery)
    rig.broker.append(0, event("e0"), b"no event", None)
    worker = rig.worker()
    rig.settle(worker)
    kinds = [entry.what for entry in rig.broker.journal]
    passing = [
        index
        for index, entry in enumerate(rig.broker.journal)
        if isinstance(entry.detail, Commit) and entry.detail.offset > 1
    ]
    assert kinds.count("dead_letters") == 1
    assert kinds.index("dead_letters") < min(passing)
    assert worker.observer.rejections == {"not_json": 1, "tombstone": 1}
    assert worker.observer.dead_letters == 2


def test_idle_partition_is_completed() -> None:
    rig = Rig(size=2, idle_seconds=1.0)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(2)
    assert rig.broker.committed[P0] == Committed(0, intent(0, 2))
    worker.turn(20)
    assert rig.broker.committed[P0] == Committed(2, intent(2, 2))
    worker.turn(100)
    assert len(rig.commits()) == 2


def test_failed_idle_completion_is_retried() -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(2)
    rig.broker.faults.push("commit", Rebalancing("settling"), DOWN)
    rig.settle(worker)
    assert rig.broker.committed[P0] == Committed(2, intent(2, 2))


def test_offsets_without_records_are_committed() -> None:
    rig = Rig(flush_seconds=1.0)
    rig.produce(0, 3)
    rig.broker.skip(0, 4)
    worker = rig.worker()
    rig.settle(worker)
    rig.broker.skip(0, 2)
    rig.settle(worker)
    assert rig.broker.committed[P0] == Committed(9, intent(9, 9))
    assert rig.table.count() == once(names(0, 3))


def test_partitions_without_room_lose_no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that wait for the next batch stay in their order with those of later polls."""
    monkeypatch.setattr(intents, "MAX_MEMBERS", 2)
    rig = Rig(partitions=8, size=3, flush_seconds=2.0)
    worker = rig.worker()
    produced = []
    for turn in range(3):
        for partition in range(8):
            rig.produce(2 * turn, 2 * turn + 2, partition, f"p{partition}-")
            produced += names(2 * turn, 2 * turn + 2, f"p{partition}-")
        worker.turn(3)
    rig.settle(worker)
    assert rig.table.count() == once(produced)
