"""Bounds of memory and of the time of one iteration."""

from octane_analytics.pipeline.delivery import Delivery
from tests.support.ingest_rig import DOWN, Rig, Worker, both_deliveries, event


def test_memory_is_bounded_during_an_outage() -> None:
    rig = Rig(size=10, partitions=4, max_bytes=50_000)
    for partition in range(4):
        rig.produce(0, 5000, partition, f"p{partition}-")
    worker = rig.worker(fetch_records=20)
    rig.table.faults.push("insert", *[DOWN] * 1000)
    worker.turn(200)
    assert worker.source.is_paused
    held = worker.observer.records * len(event("p0-1000"))
    # The pending and the open batch, and one more poll for each.
    assert held <= 2 * (50_000 + 4 * 20 * len(event("p0-1000")))
    rig.table.faults.clear()
    rig.settle(worker)
    assert set(rig.table.count().values()) == {1}


@both_deliveries
def test_memory_is_bounded_over_many_partitions(delivery: Delivery) -> None:
    rig = Rig(partitions=20, max_bytes=20_000, delivery=delivery)
    worker = rig.worker(fetch_records=5)
    for partition in range(20):
        rig.produce(0, 50, partition, f"p{partition}-")
    worker.turn(15)
    held = (worker.observer.records - worker.observer.rows) * len(event("p0-00"))
    assert held <= 20_000 + 20 * 5 * len(event("p0-00"))


def test_loop_runs_between_slow_inserts() -> None:
    # The supervisor and the group consider a loop without iterations a hung process.
    rig = Rig(partitions=16, size=2)
    for partition in range(16):
        rig.produce(0, 2, partition, f"p{partition}-")
    worker = rig.worker()
    rig.table.insert_seconds = 30.0
    assert longest_turn(rig, worker) < 120.0


def test_loop_runs_between_parts_of_refused_batch() -> None:
    rig = Rig(partitions=4, size=64)
    rig.table.refuses = lambda row: row.user_id.endswith("5")
    for partition in range(4):
        rig.produce(0, 16, partition, f"p{partition}-")
    worker = rig.worker()
    rig.table.insert_seconds = 5.0
    assert longest_turn(rig, worker, turns=200) < 20.0
    assert sum(rig.table.count().values()) == 60 - 4


def longest_turn(rig: Rig, worker: Worker, turns: int = 20) -> float:
    longest = 0.0
    for _ in range(turns):
        began = rig.clock.now()
        worker.turn()
        longest = max(longest, rig.clock.now() - began)
    return longest


def test_reading_resumes_after_pending_batch_is_revoked() -> None:
    rig = Rig(partitions=2, size=2, max_rows=2)
    rig.broker.is_balancing = False
    first, second = rig.worker(), rig.worker()
    for partition in range(2):
        rig.broker.move(partition, first.source)
    first.turn(2)
    rig.table.faults.push("insert", *[DOWN] * 1000)
    for partition in range(2):
        rig.produce(0, 4, partition, f"p{partition}-")
    first.turn(30)
    assert first.source.is_paused
    for partition in range(2):
        rig.broker.move(partition, second.source)
    first.turn(2)
    rig.table.faults.clear()
    rig.settle(second)
    for partition in range(2):
        rig.broker.move(partition, first.source)
        rig.produce(4, 6, partition, f"p{partition}-")
    rig.settle(second, first)
    assert set(rig.table.count().values()) == {1}
    assert sum(rig.table.count().values()) == 12
