"""Recovery of ranges announced by a previous owner."""

import pytest

from octane_analytics.pipeline.batch import BatchLimits
from octane_analytics.pipeline.batch_writer import Delivery
from octane_analytics.pipeline.ingest_loop import IngestOptions
from octane_analytics.types import (
    Committed,
    TopicPartition,
)
from tests.fakes.journal import InsertEntry
from tests.fakes.kafka import TOPIC
from tests.support.ingest_rig import DOWN, NEVER, P0, P1, Rig, intent, names, once, token_of


def crashed_after_announcing(rig: Rig, *, is_inserted: bool) -> None:
    """Return a rig whose worker announced [0, 4) of five records and died."""
    rig.produce(0, 4)
    dead = rig.worker()
    rig.table.faults.push("insert", DOWN, is_done=is_inserted)
    dead.turn(2)
    assert rig.broker.committed[P0] == Committed(0, intent(0, 4))
    rig.broker.expire(dead.source)
    rig.produce(4, 9)
    rig.broker.journal.clear()


@pytest.mark.parametrize("is_inserted", [True, False])
def test_announced_range_is_inserted_before_the_rest(is_inserted: bool) -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=is_inserted)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.inserts() == [
        InsertEntry(token_of(0, 4), 4),
        InsertEntry(token_of(4, 9), 5),
    ]
    assert rig.table.count() == once(names(0, 9))
    assert worker.observer.details("recovered") == [(0, "0-4")]


def test_announced_range_is_inserted_only_when_complete() -> None:
    rig = Rig(size=1, flush_seconds=0.5)
    rig.options = IngestOptions(TOPIC, BatchLimits(4, 0.5, 100, 1 << 20))
    crashed_after_announcing(rig, is_inserted=False)
    rig.clock.sleep(10)
    worker = rig.worker(fetch_records=1)
    worker.turn(2)
    assert rig.inserts() == []
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 9))


def test_range_ending_in_gap_completes_at_later_record() -> None:
    rig = Rig(size=4)
    rig.produce(0, 2)
    rig.broker.skip(0, 2)
    rig.broker.committed[P0] = Committed(0, intent(0, 4))
    rig.produce(2, 6)
    rig.settle(rig.worker())
    assert rig.inserts() == [InsertEntry(token_of(0, 4), 2), InsertEntry(token_of(4, 8), 4)]


def test_range_ending_in_gap_completes_at_partition_end() -> None:
    rig = Rig(size=4)
    rig.produce(0, 2)
    rig.broker.skip(0, 2)
    rig.broker.committed[P0] = Committed(0, intent(0, 4))
    rig.settle(rig.worker())
    assert rig.inserts() == [InsertEntry(token_of(0, 4), 2)]


def test_announced_range_without_records_is_completed() -> None:
    rig = Rig(size=4)
    rig.broker.skip(0, 4)
    rig.broker.committed[P0] = Committed(0, intent(0, 4))
    rig.settle(rig.worker())
    assert rig.inserts() == []
    assert rig.broker.committed[P0] == Committed(4, intent(4, 4))


def test_at_least_once_worker_recovers_announced_range() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    rig.options = IngestOptions(TOPIC, BatchLimits(5, NEVER, 100, 1 << 20), Delivery.AT_LEAST_ONCE)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.inserts()[0] == InsertEntry(token_of(0, 4), 4)
    assert rig.table.count() == once(names(0, 9))


def test_crash_during_recovery_keeps_announced_range() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    second = rig.worker(fetch_records=1)
    second.turn(2)
    assert second.ingest.drain(5.0) in (True, False)
    second.source.close()
    assert rig.broker.committed[P0] == Committed(0, intent(0, 4))
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(0, 9))


def test_announced_range_ignores_memory_limit() -> None:
    # The bytes of all recovered ranges may exceed the worker's usual limit.
    rig = Rig(size=1, partitions=2, max_bytes=1000)
    for partition in (0, 1):
        rig.produce(0, 20, partition, f"p{partition}-")
        where = TopicPartition(TOPIC, partition)
        rig.broker.committed[where] = Committed(0, intent(0, 20))
    worker = rig.worker(fetch_records=3)
    rig.settle(worker)
    assert set(rig.inserts()[:2]) == {
        InsertEntry(token_of(0, 20, P0), 20),
        InsertEntry(token_of(0, 20, P1), 20),
    }
    assert rig.table.count() == once(names(0, 20, "p0-"), names(0, 20, "p1-"))
