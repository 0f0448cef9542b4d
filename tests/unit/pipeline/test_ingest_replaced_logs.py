"""Retention, truncation and recreated topics."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.pipeline.intents import completed
from octane_analytics.types import (
    Committed,
    LogIdentity,
    OffsetGone,
    Polled,
)
from tests.fakes.journal import InsertEntry
from tests.fakes.kafka import TOPIC
from tests.support.ingest_rig import DOWN, LOG, P0, Rig, batch, intent, names, once, token_of
from tests.unit.pipeline.test_ingest_recovery import crashed_after_announcing


def test_removed_offsets_are_reported_and_skipped() -> None:
    rig = Rig(size=2)
    rig.broker.committed[P0] = Committed(3, "")
    rig.produce(0, 10)
    rig.broker.delete_before(0, 6)
    worker = rig.worker()
    rig.settle(worker)
    assert worker.observer.details("offsets_gone") == [(0, 3, 6)]
    assert rig.table.count() == once(names(6, 10))


def test_removed_offsets_of_announced_range_are_reported_once() -> None:
    rig = Rig(size=2)
    rig.broker.committed[P0] = Committed(3, intent(3, 8))
    rig.produce(0, 12)
    rig.broker.delete_before(0, 5)
    worker = rig.worker()
    rig.settle(worker)
    assert worker.observer.details("offsets_gone") == [(0, 3, 5)]
    assert rig.inserts()[0] == InsertEntry(token_of(3, 8), 3)
    assert rig.table.count() == once(names(5, 12))


def test_completely_removed_announced_range_is_reported_once() -> None:
    rig = Rig(size=2)
    rig.broker.committed[P0] = Committed(3, intent(3, 8))
    rig.produce(0, 12)
    rig.broker.delete_before(0, 10)
    worker = rig.worker()
    rig.settle(worker)
    reported = cast(list[tuple[int, int, int]], worker.observer.details("offsets_gone"))
    missing = [at for _, first, end in reported for at in range(first, end)]
    assert missing == [3, 4, 5, 6, 7, 8, 9]
    assert rig.table.count() == once(names(10, 12))


def test_removed_offsets_are_recovered_after_outage() -> None:
    rig = Rig(size=2)
    rig.broker.committed[P0] = Committed(3, "")
    rig.produce(0, 10)
    rig.broker.delete_before(0, 6)
    worker = rig.worker()
    rig.broker.faults.push("earliest", DOWN, DOWN)
    rig.settle(worker)
    assert worker.observer.details("offsets_gone") == [(0, 3, 6)]
    assert rig.table.count() == once(names(6, 10))


def test_topic_recreated_without_workers_starts_at_beginning() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    rig.broker.recreate("topic-2", keeps_commits=True)
    rig.produce(0, 4, prefix="new")
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(0, 4), names(0, 4, "new"))


MIRRORED = LogIdentity("elsewhere", LOG.topic_id, LOG.epoch)
FOREIGN_METADATA = st.sampled_from(
    [
        "",
        "another consumer's",
        "octane;9",
        batch((0, 3, 4)).metadata(),  # moved away from its intent
        "mirrored",
    ]
)


@given(offset=st.integers(5, 2**40), metadata=FOREIGN_METADATA, low=st.integers(0, 4))
def test_foreign_offset_after_end_starts_at_beginning(offset: int, metadata: str, low: int) -> None:
    if metadata == "mirrored":
        metadata = completed(TOPIC, MIRRORED)
    rig = Rig(size=4)
    rig.produce(0, 4)
    rig.broker.delete_before(0, low)
    rig.broker.committed[P0] = Committed(offset, metadata)
    worker = rig.worker()
    worker.turn(3)
    rig.produce(4, 8)
    rig.settle(worker)
    assert rig.table.count() == once(names(low, 8))
    assert worker.observer.details("foreign_offset") == [(0, offset, low, 4)]
    assert "log_replaced" not in worker.observer.names()


def test_foreign_offset_within_log_is_used() -> None:
    rig = Rig(size=2)
    rig.produce(0, 6)
    rig.broker.committed[P0] = Committed(4, "")
    worker = rig.worker()
    rig.settle(worker)
    assert rig.table.count() == once(names(4, 6))
    assert worker.observer.details("offset_moved") == [(0, 4)]
    worker = rig.worker()
    rig.settle(worker)
    assert "offset_moved" not in worker.observer.names()


EARLIER_EPOCH = LOG._replace(epoch="before")


@pytest.mark.parametrize("is_inserted", [False, True])
def test_batch_of_earlier_epoch_is_recovered(is_inserted: bool) -> None:
    """The epoch is changed while the batch of a killed worker is pending."""
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=is_inserted)
    rig.settle(rig.worker(epoch="later"))
    assert rig.table.count() == once(names(0, 9))


def test_earlier_epoch_batch_in_truncated_log_is_recovered() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    log = rig.broker.logs[P0]
    log.end = 2
    for offset in range(2, 9):
        del log.records[offset]
    rig.produce(0, 2, prefix="new")
    rig.settle(rig.worker(epoch="later"))
    # The new records have the offsets of the batch: those that the table lacks are inserted.
    assert rig.table.count() == once(names(0, 4), names(0, 2, "new"))


@pytest.mark.parametrize("log", [LOG, EARLIER_EPOCH])
def test_truncated_log_is_read_from_its_end(log: LogIdentity) -> None:
    rig = Rig(size=2)
    rig.produce(0, 4)
    rig.broker.committed[P0] = Committed(9, intent(9, 9, log=log))
    worker = rig.worker()
    worker.turn(4)
    rig.produce(4, 6)
    rig.settle(worker)
    assert worker.observer.details("log_truncated") == [(0, 9, 4)]
    assert rig.table.count() == once(names(4, 6))


def test_foreign_offset_in_truncated_log_starts_at_beginning() -> None:
    rig = Rig(size=2)
    rig.produce(0, 6)
    rig.broker.committed[P0] = Committed(6, "")
    worker = rig.worker()
    worker.turn(2)
    rig.broker.logs[P0].end = 2
    for offset in range(2, 6):
        del rig.broker.logs[P0].records[offset]
    worker.source.seek(P0, 6)
    rig.settle(worker)
    assert worker.observer.details("foreign_offset") == [(0, 6, 0, 2)]
    assert rig.table.count() == once(names(0, 2))


@pytest.mark.parametrize("is_outdated", [False, True])
def test_topic_recreated_during_run_starts_at_beginning(is_outdated: bool) -> None:
    rig = Rig(size=4)
    worker = rig.worker()
    rig.produce(0, 6)
    worker.turn(3)
    rig.broker.recreate("topic-2")
    worker.source.is_outdated = is_outdated
    worker.source.seek(P0, 6)  # the broker answers that this offset is out of range
    rig.produce(0, 4, prefix="new")
    rig.settle(worker)
    assert worker.observer.names().count("log_replaced") == 1
    assert rig.table.count() == once(names(0, 6), names(0, 4, "new"))
    assert token_of(0, 4, log=LOG._replace(topic_id="topic-2")) in rig.table.tokens


def test_restart_of_replaced_log_is_retried_after_outage() -> None:
    rig = Rig(size=4)
    worker = rig.worker()
    rig.produce(0, 6)
    worker.turn(3)
    rig.broker.recreate("topic-2")
    worker.source.seek(P0, 6)
    worker.turn(1)  # the log is now known to be another one
    worker.source.faults.push("log_identity", DOWN, DOWN)
    rig.produce(0, 4, prefix="new")
    rig.settle(worker)
    assert worker.observer.details("failed") == ["kafka"] * 2
    assert rig.table.count() == once(names(0, 6), names(0, 4, "new"))


def test_truncated_log_is_not_read_again() -> None:
    # A broker that crashed before it had flushed everything: same topic, shorter log.
    rig = Rig(size=4)
    worker = rig.worker()
    rig.produce(0, 8)
    rig.settle(worker)
    log = rig.broker.logs[P0]
    del log.records[7]
    log.end = 7
    worker.source.seek(P0, 8)
    worker.turn(30)
    rig.produce(20, 24)
    worker.turn(30)
    assert max(rig.table.count().values()) == 1


def test_repeated_error_about_old_position_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(size=4)
    worker = rig.worker()
    rig.produce(0, 4)
    worker.turn(3)
    rig.produce(4, 20)
    poll = worker.source.poll
    late = [OffsetGone(P0, 4711)]

    def poll_with_a_late_complaint(max_records: int, timeout_seconds: float) -> Polled:
        polled = poll(max_records, timeout_seconds)
        return Polled(polled.records, polled.ends, [late.pop()] if late else [])

    monkeypatch.setattr(worker.source, "poll", poll_with_a_late_complaint)
    rig.settle(worker)
    assert not late
    assert rig.table.count() == once(names(0, 20))
