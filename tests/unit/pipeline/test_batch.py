"""Batch of a worker: its rows, and the time at which it is due."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.events.decode import decode_all
from octane_analytics.pipeline.batch import Batch, BatchLimits, InsertPacing
from octane_analytics.types import RejectedRecord, TopicPartition
from tests.fakes.kafka import TOPIC, FakeRecord

LIMITS = BatchLimits(size=10, flush_seconds=5.0, max_rows=20, max_bytes=10_000)


def value(name: str) -> bytes:
    return (
        f'{{"app_id":"a","event_name":"e","user_id":"{name}","timestamp":"2026-02-02T12:00:00Z"}}'
    ).encode()


def record(partition: int, offset: int, payload: bytes | None) -> FakeRecord:
    return FakeRecord(TopicPartition(TOPIC, partition), offset, payload)


def created(*seconds: float) -> list[FakeRecord]:
    return [replace(record(0, 0, value("x")), created_ms=round(at * 1000)) for at in seconds]


@given(
    polls=st.lists(st.lists(st.sampled_from([100.0, 101.0]), min_size=3, max_size=40), min_size=1),
    ahead=st.integers(0, 2),
)
def test_clock_ahead_does_not_rejuvenate_batch(polls: list[list[float]], ahead: int) -> None:
    """One of the first three records of each poll is of a producer whose clock is ahead."""
    batch = Batch()
    assert batch.not_before is None
    for poll in polls:
        poll[ahead] = 5000.0
        batch.append(created(*poll), [0] * len(poll), decode_all, 1.0)
    assert batch.not_before in (100.0, 101.0)


def test_records_without_timestamp_leave_age_unknown() -> None:
    batch = Batch()
    batch.append(created(-1, 0), [0, 0], decode_all, 1.0)
    assert batch.not_before is None


def test_records_of_all_partitions_are_decoded_together() -> None:
    calls: list[int] = []
    batch = Batch()

    def decode(values: object) -> object:
        calls.append(len(values))  # type: ignore[arg-type]
        return decode_all(values)  # type: ignore[arg-type]

    bad = record(1, 3, None)
    rejected = batch.append(
        [record(0, 5, value("x")), bad, record(2, 0, value("y"))],
        [0, 1, 2],
        decode,  # type: ignore[arg-type]
        1.0,
    )
    assert calls == [3]
    assert list(batch.columns[3]) == [b"x", b"y"]
    assert rejected == [RejectedRecord(bad, "tombstone", "the record has no value")]
    assert batch.rejected == rejected
    assert (batch.rows, batch.records) == (2, 3)
    assert +batch.rows_by_partition == {0: 1, 2: 1}
    assert batch.payload_bytes == 2 * len(value("x"))
    assert batch.opened_at == 1.0
    batch.append([record(0, 6, value("z"))], [0], decode_all, 2.0)
    assert list(batch.columns[3]) == [b"x", b"y", b"z"]
    assert batch.opened_at == 1.0


def test_empty_batch_is_never_due() -> None:
    batch = Batch()
    assert batch.append([], [], decode_all, 0.0) == ()
    assert not batch.is_due(LIMITS, 1e9, may_insert=True)


def test_batch_of_offsets_without_records_leaves_by_age() -> None:
    batch = Batch()
    batch.open(1.0)
    assert not batch.is_due(LIMITS, 5.9, may_insert=True)
    assert batch.is_due(LIMITS, 6.0, may_insert=False)


@pytest.mark.parametrize(
    ("records", "age", "may_insert", "is_due"),
    [
        (9, 4.9, True, False),
        (10, 0.0, True, True),
        (10, 4.9, False, False),  # waits for more, because of the rate of inserts
        (10, 5.0, False, True),
        (1, 5.0, False, True),
        (20, 0.0, False, True),
    ],
)
def test_batch_leaves_by_size_age_or_maximum(
    records: int, age: float, may_insert: bool, is_due: bool
) -> None:
    batch = Batch()
    batch.append(
        [record(0, at, value("x")) for at in range(records)], [0] * records, decode_all, 100.0
    )
    assert batch.is_due(LIMITS, 100.0 + age, may_insert=may_insert) == is_due


def test_batch_leaves_at_its_maximum_of_bytes() -> None:
    batch = Batch()
    batch.append([record(0, 0, value("x" * 10_000))], [0], decode_all, 0.0)
    assert batch.is_full(LIMITS)
    assert batch.is_due(LIMITS, 0.0, may_insert=False)


@given(
    rate=st.floats(0.1, 100),
    processes=st.integers(1, 64),
    waits=st.lists(st.floats(0, 5), max_size=50),
)
def test_workers_keep_to_the_rate_of_inserts(
    rate: float, processes: int, waits: list[float]
) -> None:
    pacing, now, inserts = InsertPacing(rate, lambda: processes), 0.0, 0
    for wait in waits:
        now += wait
        if not pacing.wait_seconds(now):
            pacing.record_insert(now)
            inserts += 1
    assert inserts <= now * rate / processes + 1 + 1e-6


def test_no_rate_is_no_limit() -> None:
    pacing = InsertPacing(0, lambda: 8)
    pacing.record_insert(1.0)
    assert pacing.wait_seconds(1.0) == 0.0


def test_share_of_rate_follows_number_of_processes() -> None:
    processes = [4]
    pacing = InsertPacing(2, lambda: processes[0])
    pacing.record_insert(10.0)
    assert pacing.wait_seconds(10.0) == 2.0
    processes[0] = 8
    pacing.record_insert(12.0)
    assert pacing.wait_seconds(12.0) == 4.0
    processes[0] = 0  # while the service stops
    pacing.record_insert(16.0)
    assert pacing.wait_seconds(16.0) == 0.5
