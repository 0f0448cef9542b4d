"""Outages of Kafka, ClickHouse and the dead-letter topic."""

from itertools import pairwise

import pytest

from octane_analytics.errors import AssignmentLost
from octane_analytics.pipeline.delivery import Delivery
from tests.support.ingest_rig import DOWN, Rig, both_deliveries, event, names, once


@both_deliveries
def test_clickhouse_outage_repeats_the_same_insert(delivery: Delivery) -> None:
    rig = Rig(size=3, delivery=delivery)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.table.faults.push("insert", *[DOWN] * 6)
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3))
    assert len(rig.inserts()) == 7
    assert len(set(rig.inserts())) == 1
    assert worker.observer.names().count("resumed") == 1
    assert worker.observer.failing == set()


def test_clickhouse_outage_pauses_reading() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.table.faults.push("insert", *[DOWN] * 100)
    worker.turn(20)
    assert worker.source.is_paused
    rig.produce(3, 3000)
    consumed = worker.observer.records
    worker.turn(50)
    assert worker.observer.records == consumed
    assert worker.source in rig.broker.members
    rig.table.faults.clear()
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3000))


def test_short_outage_keeps_prefetched_records() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.table.faults.push("insert", DOWN)
    worker.turn(2)
    assert worker.observer.failing == {"clickhouse"}
    assert not worker.source.is_paused


def test_insert_with_lost_answer_keeps_its_token() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.table.faults.push("insert", DOWN, DOWN, is_done=True)
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3))


def test_retry_pause_grows_up_to_cap() -> None:
    rig = Rig(size=1)
    rig.produce(0, 1)
    worker = rig.worker()
    rig.table.faults.push("insert", *[DOWN] * 1000)
    times: list[float] = []
    while len(times) < 12:
        before = len(rig.inserts())
        worker.turn()
        times += [rig.clock.now()] * (len(rig.inserts()) - before)
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses[0] < 0.5
    assert all(5.0 <= pause <= 10.3 for pause in pauses[-3:])


def test_dead_letter_outage_holds_back_offsets() -> None:
    rig = Rig(size=2)
    rig.broker.append(0, event("e0"), b"no event")
    worker = rig.worker()
    rig.broker.faults.push("dead_letters", *[DOWN] * 5)
    worker.turn(10)
    assert rig.inserts() == []
    assert worker.observer.failing == {"dead_letters"}
    rig.settle(worker)
    assert rig.table.count() == once(["e0"])
    assert [r.record.offset() for r in rig.broker.dead_letters] == [1]
    assert worker.observer.failing == set()


def test_consecutive_outages_of_dependencies_all_end() -> None:
    rig = Rig(size=2)
    rig.broker.append(0, event("e0"), b"no event")
    worker = rig.worker()
    rig.broker.faults.push("commit", DOWN)
    rig.broker.faults.push("dead_letters", DOWN)
    rig.table.faults.push("insert", DOWN)
    rig.settle(worker)
    worker.turn(20)
    assert set(worker.observer.details("failed")) == {"kafka", "dead_letters", "clickhouse"}
    assert worker.observer.failing == set()


@pytest.mark.parametrize("operation", ["poll", "committed", "log_identity", "earliest"])
def test_kafka_outage_ends_with_answer(operation: str) -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    rig.broker.faults.push(operation, DOWN, DOWN)
    rig.produce(0, 2)
    rig.settle(worker)
    assert set(worker.observer.details("failed")) == {"kafka"}
    assert worker.observer.failing == set()


def test_kafka_outage_at_idle_completion_ends() -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(2)
    rig.broker.faults.push("commit", DOWN)
    rig.settle(worker)
    assert worker.observer.failing == set()


def test_lost_partitions_do_not_end_clickhouse_outage() -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    rig.produce(0, 2)
    rig.table.faults.push("insert", *[DOWN] * 100)
    worker.turn(5)
    rig.broker.expire(worker.source)
    worker.turn(3)
    while rig.table.faults.take("insert"):
        pass
    rig.settle(worker)
    assert worker.observer.details("resumed") == ["clickhouse"]


def test_replaced_member_raises_assignment_lost() -> None:
    rig = Rig()
    worker = rig.worker()
    worker.turn()
    rig.broker.fence(worker.source)
    with pytest.raises(AssignmentLost):
        worker.ingest.run(lambda: False, 10.0)
