"""Recovery of ranges announced by a previous owner."""

import pytest

from octane_analytics.pipeline.batch import BatchLimits
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.pipeline.ingest_loop import IngestOptions
from octane_analytics.types import (
    Committed,
    OffsetRange,
    TopicPartition,
)
from tests.fakes.journal import InsertEntry
from tests.fakes.kafka import TOPIC
from tests.support import version_1
from tests.support.ingest_rig import DOWN, LOG, NEVER, P0, Rig, intent, names, once, token_of


def crashed_after_announcing(rig: Rig, *, is_inserted: bool) -> None:
    """Return a rig whose worker announced [0, 4) of five records and died."""
    dead = rig.worker()
    dead.turn(2)
    rig.produce(0, 4)
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
    recovered = [] if is_inserted else [InsertEntry(token_of(0, 4), 4)]
    assert rig.inserts() == [*recovered, InsertEntry(token_of(4, 9), 5)]
    assert rig.table.count() == once(names(0, 9))
    assert worker.observer.details("recovered") == ["0:0-4"]


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
    crashed_after_announcing(rig, is_inserted=False)
    rig.options = IngestOptions(TOPIC, BatchLimits(5, NEVER, 100, 1 << 20), Delivery.AT_LEAST_ONCE)
    rig.table.faults.push("half insert", DOWN)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.inserts()[0] == InsertEntry(token_of(0, 4), 4)
    assert rig.table.count() == once(names(0, 9))


def test_crash_during_recovery_keeps_announced_range() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    second = rig.worker()
    second.reader.leaderless = {0}
    second.turn(2)
    assert not second.ingest.drain(5.0)
    second.source.close()
    assert rig.broker.committed[P0] == Committed(0, intent(0, 4))
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(0, 9))


def test_batch_of_version_1_keeps_its_token() -> None:
    rig = Rig(size=4)
    rig.produce(0, 8)
    old = version_1.Intent(OffsetRange(0, 4), LOG)
    rig.broker.committed[P0] = Committed(0, old.metadata())
    worker = rig.worker()
    rig.settle(worker)
    assert rig.inserts()[0] == InsertEntry(version_1.token(P0, old), 4)
    assert rig.table.count() == once(names(0, 8))


def test_recovery_holds_one_batch_in_memory() -> None:
    rig = Rig(size=10, partitions=4)
    for partition in range(4):
        rig.produce(0, 4, partition, f"p{partition}-")
        where = TopicPartition(TOPIC, partition)
        rig.broker.committed[where] = Committed(0, intent(0, 4, partition))
    worker = rig.worker()
    rig.table.faults.push("missing", *[DOWN] * 10)
    for _ in range(40):
        worker.turn()
    assert worker.reader.readings == 1
    rig.table.faults.clear()
    rig.settle(worker)
    assert worker.reader.readings == 4
    assert set(rig.table.count().values()) == {1}
