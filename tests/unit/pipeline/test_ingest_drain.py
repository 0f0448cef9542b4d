"""Drain at shutdown."""

from octane_analytics.errors import Rebalancing
from octane_analytics.pipeline.batch import BatchLimits
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.pipeline.ingest_loop import IngestOptions
from tests.fakes.kafka import TOPIC
from tests.support.ingest_rig import DOWN, NEVER, Rig, both_deliveries, names, once
from tests.unit.pipeline.test_ingest_recovery import crashed_after_announcing


@both_deliveries
def test_drain_inserts_and_commits_everything_read(delivery: Delivery) -> None:
    rig = Rig(partitions=2, delivery=delivery)
    rig.produce(0, 3, 0)
    rig.produce(0, 2, 1, "f")
    worker = rig.worker()
    turns = iter(range(3))
    assert worker.ingest.run(lambda: next(turns, None) is None, 10.0)
    assert rig.table.count() == once(names(0, 3), names(0, 2, "f"))
    assert rig.broker.is_settled()
    assert worker.source.is_closed


def test_drain_recovers_after_unknown_commit() -> None:
    rig = Rig(partitions=2)
    worker = rig.worker()
    worker.turn(2)
    rig.produce(0, 3, 0)
    rig.produce(0, 2, 1, "f")
    worker.turn(1)
    rig.broker.faults.push("commit", DOWN, is_done=True)
    assert worker.ingest.drain(60.0)
    assert worker.observer.names().count("restarting") == 1
    assert rig.table.count() == once(names(0, 3), names(0, 2, "f"))
    assert rig.broker.is_settled()


def test_drain_ends_at_deadline_during_outage() -> None:
    rig = Rig()
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.table.faults.push("insert", *[DOWN] * 1000)
    began = rig.clock.now()
    assert not worker.ingest.drain(10.0)
    assert 10.0 <= rig.clock.now() - began < 11.0
    rig.table.faults.clear()
    worker.source.close()
    rig.options = IngestOptions(TOPIC, BatchLimits(1, 1.0, 10, 1 << 20))
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(0, 3))


def test_drain_outlasts_a_short_outage() -> None:
    rig = Rig()
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.table.faults.push("insert", DOWN, DOWN, DOWN)
    assert worker.ingest.drain(30.0)
    assert rig.broker.is_settled()


def test_drain_waits_for_rebalance() -> None:
    rig = Rig()
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.broker.faults.push("commit", Rebalancing("settling"), Rebalancing("settling"))
    assert worker.ingest.drain(30.0)
    assert rig.broker.is_settled()


def test_drain_repeats_completions_after_rebalance() -> None:
    rig = Rig(size=3, idle_seconds=NEVER)
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.broker.faults.push("commit", Rebalancing("settling"), Rebalancing("settling"))
    assert worker.ingest.drain(30.0)
    assert rig.broker.is_settled()


def test_drain_reads_no_further_records() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker(fetch_records=1)
    rig.table.faults.push("insert", DOWN)
    worker.turn(4)
    rig.produce(3, 1000)
    rig.table.faults.push("insert", *[DOWN] * 2)
    read = worker.observer.records
    worker.ingest.drain(30.0)
    assert worker.observer.records == read


def test_drain_with_unread_announced_range_returns_false() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=False)
    worker = rig.worker()
    worker.reader.leaderless = {0}
    worker.turn(2)
    assert not worker.ingest.drain(5.0)
