"""Batches that are due."""

from octane_analytics.pipeline.batch_writer import Delivery
from octane_analytics.types import (
    Commit,
    Committed,
)
from tests.fakes.journal import InsertEntry
from tests.support.ingest_rig import P0, P1, Rig, event, intent, token_of


def test_batch_is_inserted_at_its_size() -> None:
    rig = Rig(size=3)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(20)
    assert rig.inserts() == []
    rig.produce(2, 3)
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(token_of(0, 3), 3)]


def test_batch_is_inserted_at_its_age() -> None:
    rig = Rig(flush_seconds=5.0)
    worker = rig.worker()
    worker.turn(100)
    rig.produce(0, 1)
    began = rig.clock.now()
    while not rig.inserts():
        worker.turn()
    assert 5.0 <= rig.clock.now() - began <= 5.3


def test_batch_is_inserted_at_its_bytes() -> None:
    rig = Rig(batch_bytes=1000)
    worker = rig.worker()
    rig.broker.append(0, event("e0", properties={"blob": "x" * 400}))
    worker.turn(20)
    assert rig.inserts() == []
    rig.broker.append(0, event("e1", properties={"blob": "x" * 400}))
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(token_of(0, 2), 2)]


def test_invalid_records_count_towards_batch_size() -> None:
    rig = Rig(size=3)
    worker = rig.worker()
    rig.broker.append(0, b"no", b"event", b"at all")
    worker.turn(3)
    assert [r.record.offset() for r in rig.broker.dead_letters] == [0, 1, 2]
    assert rig.inserts() == []
    assert rig.broker.committed[P0] == Committed(0, intent(0, 3))


def test_backlog_is_inserted_in_large_batches() -> None:
    rig = Rig(size=10)
    rig.produce(0, 25_000)
    worker = rig.worker(fetch_records=10_000)
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(token_of(0, 25_000), 25_000)]


def test_due_partition_is_inserted_alone() -> None:
    rig = Rig(size=3, partitions=2)
    worker = rig.worker()
    rig.produce(0, 3, 0)
    rig.produce(0, 1, 1, "f")
    worker.turn(3)
    assert rig.inserts() == [InsertEntry(token_of(0, 3), 3)]


def test_at_least_once_inserts_all_partitions_together() -> None:
    rig = Rig(size=4, partitions=2, delivery=Delivery.AT_LEAST_ONCE)
    worker = rig.worker()
    rig.produce(0, 3, 0)
    rig.produce(0, 1, 1, "f")
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(None, 4)]
    assert set(rig.commits()) == {Commit(P0, 3, intent(3, 3)), Commit(P1, 1, intent(1, 1))}
