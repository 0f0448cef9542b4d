"""Batches that are due."""

from typing import Any

import pytest

from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.types import (
    Commit,
    Committed,
    Polled,
)
from tests.fakes.group_member import FakeMember
from tests.fakes.journal import InsertEntry
from tests.support.ingest_rig import (
    P0,
    P1,
    Rig,
    batch,
    both_deliveries,
    event,
    intent,
    token_of,
)


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
    rig = Rig(max_bytes=1000)
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


@both_deliveries
def test_due_batch_takes_all_partitions(delivery: Delivery) -> None:
    rig = Rig(size=3, partitions=2, delivery=delivery)
    worker = rig.worker()
    worker.turn(2)
    rig.produce(0, 2, 0)
    rig.produce(0, 1, 1, "f")
    worker.turn(2)
    token = batch((0, 0, 2), (1, 0, 1)).token()
    assert rig.inserts() == [InsertEntry(token if delivery is Delivery.EXACTLY_ONCE else None, 3)]


def test_batch_of_its_size_waits_for_rate() -> None:
    rig = Rig(size=2, flush_seconds=60.0, inserts_per_second=0.1, quiet_poll_seconds=1.0)
    worker = rig.worker()
    worker.turn(2)
    rig.produce(0, 2)
    worker.turn(2)
    rig.produce(2, 6)
    began = rig.clock.now()
    while len(rig.inserts()) == 1:
        worker.turn()
    assert 9.0 <= rig.clock.now() - began <= 10.1
    assert rig.inserts()[1] == InsertEntry(token_of(2, 6), 4)


def test_aged_batch_ignores_rate_of_inserts() -> None:
    rig = Rig(size=2, flush_seconds=3.0, inserts_per_second=0.001)
    worker = rig.worker()
    worker.turn(2)
    rig.produce(0, 2)
    worker.turn(2)
    rig.produce(2, 3)
    began = rig.clock.now()
    while len(rig.inserts()) == 1:
        worker.turn()
    assert 3.0 <= rig.clock.now() - began <= 3.2


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float, float]]:
    """Arguments of each poll."""
    recorded: list[tuple[int, float, float]] = []
    poll = FakeMember.poll

    def recorded_poll(member: FakeMember, *given: Any) -> Polled:
        recorded.append(given)
        return poll(member, *given)

    monkeypatch.setattr(FakeMember, "poll", recorded_poll)
    return recorded


def test_poll_ends_with_last_record_of_batch(polls: list[tuple[int, float, float]]) -> None:
    rig = Rig(size=5, quiet_poll_seconds=1.0)
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(4)
    polls.clear()
    worker.turn()
    assert polls == [(2, 1.0, 1.0)]


def test_first_record_of_batch_is_not_held_back(polls: list[tuple[int, float, float]]) -> None:
    rig = Rig(size=5, quiet_poll_seconds=1.0)
    worker = rig.worker()
    worker.turn(20)
    polls.clear()
    worker.turn()
    assert polls == [(5, 1.0, 0.0)]


def test_poll_ends_when_rate_allows_insert(polls: list[tuple[int, float, float]]) -> None:
    rig = Rig(size=2, flush_seconds=60.0, inserts_per_second=2.0, quiet_poll_seconds=5.0)
    worker = rig.worker()
    worker.turn(2)
    rig.produce(0, 2)
    worker.turn(2)
    began = rig.clock.now()
    rig.produce(2, 3)
    worker.turn()
    polls.clear()
    worker.turn()
    ((records, timeout_seconds, gather_seconds),) = polls
    assert records > 2  # an insert takes what is there by then
    assert 0.0 < timeout_seconds == gather_seconds <= 0.5
    assert rig.clock.now() - began <= 0.6


def test_at_least_once_inserts_all_partitions_together() -> None:
    rig = Rig(size=4, partitions=2, delivery=Delivery.AT_LEAST_ONCE)
    worker = rig.worker()
    rig.produce(0, 3, 0)
    rig.produce(0, 1, 1, "f")
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(None, 4)]
    assert set(rig.commits()) == {Commit(P0, 3, intent(3, 3)), Commit(P1, 1, intent(1, 1))}
