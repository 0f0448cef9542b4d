"""Bounds of memory and of the time of one iteration."""

from octane_analytics.pipeline.batch_writer import Delivery
from tests.support.ingest_rig import DOWN, Rig, both_deliveries, event


def test_memory_is_bounded_during_an_outage() -> None:
    rig = Rig(size=10, partitions=4, batch_bytes=20_000, max_bytes=50_000)
    for partition in range(4):
        rig.produce(0, 5000, partition, f"p{partition}-")
    worker = rig.worker(fetch_records=20)
    rig.table.faults.push("insert", *[DOWN] * 1000)
    worker.turn(200)
    assert worker.source.is_paused
    held = worker.observer.records * len(event("p0-1000"))
    # Pending and open batches, and one more poll for each.
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
    longest = 0.0
    for _ in range(20):
        began = rig.clock.now()
        worker.turn()
        longest = max(longest, rig.clock.now() - began)
    assert longest < 120.0


def test_reading_resumes_after_pending_batches_are_revoked() -> None:
    rig = Rig(partitions=4, size=2, max_rows=2)
    first, second = rig.worker(), rig.worker()
    for partition in range(4):
        rig.produce(0, 2, partition, f"p{partition}-")
        rig.broker.move(partition, first.source)
    first.turn(2)
    rig.table.insert_seconds = 30.0
    for begin in (2, 4):
        for partition in range(4):
            rig.produce(begin, begin + 2, partition, f"p{partition}-")
        first.turn()
    assert first.source.is_paused
    for partition in range(4):
        rig.broker.move(partition, second.source)
    first.turn(2)
    rig.settle(second)
    for partition in range(4):
        rig.broker.move(partition, first.source)
        rig.produce(6, 8, partition, f"p{partition}-")
    rig.table.insert_seconds = 0.0
    rig.settle(second, first)
    assert set(rig.table.count().values()) == {1}
