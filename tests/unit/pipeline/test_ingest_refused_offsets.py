"""Positions that the broker refuses as out of range although its log has them."""

import pytest

from tests.support.ingest_rig import P0, P1, Rig, Worker, names, once


@pytest.fixture
def rig() -> Rig:
    rig = Rig(partitions=2, size=2)
    rig.produce(0, 4)
    rig.broker.refused = {(0, 2)}
    return rig


@pytest.fixture
def worker(rig: Rig) -> Worker:
    worker = rig.worker(fetch_records=2)  # the second fetch begins at the refused offset
    worker.turn(100)
    return worker


def test_refused_offset_is_reported_and_never_skipped(rig: Rig, worker: Worker) -> None:
    assert rig.table.count() == once(names(0, 2))
    assert worker.observer.failing == {"kafka"}
    assert "offsets_gone" not in worker.observer.names()
    assert "refuses offset 2 of octane.events[0]" in worker.observer.errors[0]
    assert "its log holds 0 to 4" in worker.observer.errors[0]


def test_refused_offset_delays_its_partition_only(rig: Rig, worker: Worker) -> None:
    rig.produce(0, 6, partition=1, prefix="other")
    worker.turn(20)
    assert rig.table.count() == once(names(0, 2), names(0, 6, "other"))


def test_refused_offset_is_read_again_with_pauses(rig: Rig, worker: Worker) -> None:
    before, began_at = worker.source.seeks, rig.clock.now()
    while rig.clock.now() < began_at + 60.0:
        worker.turn()
    assert 60 / 4 <= worker.source.seeks - before <= 60 / 2 + 1
    rig.broker.refused.clear()
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 4))
    assert worker.observer.failing == set()


def test_offset_refused_once_is_no_outage() -> None:
    rig = Rig(size=2)
    rig.produce(0, 4)
    rig.broker.refused = {(0, 0)}
    worker = rig.worker()
    while not worker.source.seeks:
        worker.turn()
    rig.broker.refused.clear()
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 4))
    assert "failed" not in worker.observer.names()


def test_lost_partition_ends_the_outage(rig: Rig, worker: Worker) -> None:
    rig.broker.is_balancing = False
    rig.broker.move(P0.partition, None)
    worker.turn(2)
    assert worker.source.assignment == [P1]
    assert worker.observer.failing == set()


def test_retention_past_refused_offset_continues(rig: Rig, worker: Worker) -> None:
    rig.broker.delete_before(0, 3)
    rig.produce(4, 5)
    rig.settle(worker)
    assert worker.observer.details("offsets_gone") == [(0, 2, 3)]
    assert worker.observer.failing == set()
    assert rig.table.count() == once(names(0, 2), names(3, 5))
