"""Batch of one partition: accepted records, covered offsets, and when it is due and full."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import DecodeError
from octane_analytics.events.event import Row
from octane_analytics.pipeline.batch import Batch, BatchLimits
from octane_analytics.types import OffsetRange, TopicPartition
from tests.fakes.decode import each
from tests.fakes.kafka import FakeRecord

P0 = TopicPartition("octane.events", 0)
LIMITS = BatchLimits(size=3, flush_seconds=5.0, max_rows=6, max_bytes=1000)


@each
def decode(value: bytes | None) -> Row:
    if value is None:
        raise DecodeError("tombstone", "no value")
    if value.startswith(b"bad"):
        raise DecodeError("not_json", "bad")
    return Row(1, "app", "event", value.decode(), b"{}")


def record(offset: int, value: bytes | None = b"v") -> FakeRecord:
    return FakeRecord(P0, offset, value)


def filled(*offsets: int, first: int = 0, fixed_end: int | None = None, now: float = 0.0) -> Batch:
    batch = Batch(P0, first, fixed_end=fixed_end)
    batch.append([record(offset) for offset in offsets], decode, now)
    return batch


def test_new_batch_covers_nothing() -> None:
    batch = Batch(P0, 7)
    assert batch.span == OffsetRange(7, 7)
    assert batch.is_empty
    assert not batch.is_complete
    assert batch.rows == 0


@pytest.mark.parametrize(
    ("timestamp", "appended_at"),
    [((1, 1_770_000_000_500), 1_770_000_000.5), ((2, 1000), 1.0), ((0, 0), None), ((1, -1), None)],
)
def test_batch_keeps_timestamp_of_newest_record(
    timestamp: tuple[int, int], appended_at: float | None
) -> None:
    class Stamped(FakeRecord):
        def timestamp(self) -> tuple[int, int]:
            return timestamp

    batch = filled(0)
    batch.append([Stamped(P0, 1, b"v")], decode, 1.0)
    assert batch.appended_at == appended_at


def test_append_fills_columns_in_row_order() -> None:
    batch = Batch(P0, 0)
    assert batch.append([record(0, b"u0"), record(1, b"u1")], decode, 1.0) == 2
    assert [list(column) for column in batch.columns] == [
        [1, 1],
        [b"app", b"app"],
        [b"event", b"event"],
        [b"u0", b"u1"],
        [b"{}", b"{}"],
    ]
    assert batch.rows == 2
    assert batch.payload_bytes == 4
    assert batch.opened_at == 1.0


def test_append_covers_gaps_between_records() -> None:
    batch = filled(3, 9, first=2)
    assert batch.span == OffsetRange(2, 10)


def test_append_separates_invalid_records() -> None:
    batch = Batch(P0, 0)
    taken = batch.append([record(0, b"bad"), record(1), record(2, None)], decode, 0.0)
    assert taken == 3
    assert [(r.record.offset(), r.reason) for r in batch.rejected] == [
        (0, "not_json"),
        (2, "tombstone"),
    ]
    assert batch.rows == 1
    assert batch.span == OffsetRange(0, 3)
    assert batch.payload_bytes == 4


def test_append_skips_records_it_has() -> None:
    batch = filled(0, 1, 2)
    assert batch.append([record(1), record(2), record(3)], decode, 9.0) == 1
    assert batch.rows == 4
    assert batch.append([record(0)], decode, 9.0) == 0
    assert batch.span == OffsetRange(0, 4)


def test_append_keeps_time_of_first_record() -> None:
    batch = Batch(P0, 0)
    assert batch.append([], decode, 1.0) == 0
    assert batch.is_empty
    batch.append([record(0)], decode, 2.0)
    batch.append([record(1)], decode, 3.0)
    assert batch.opened_at == 2.0


def test_announced_range_ignores_later_records() -> None:
    batch = Batch(P0, 2, fixed_end=5)
    assert batch.append([record(2), record(4), record(5), record(6)], decode, 0.0) == 2
    assert batch.span == OffsetRange(2, 5)
    assert batch.is_complete


def test_announced_range_is_complete_after_later_record() -> None:
    batch = filled(2, first=2, fixed_end=5)
    assert not batch.is_complete
    assert batch.append([record(7)], decode, 0.0) == 0
    assert batch.span == OffsetRange(2, 5)
    assert batch.is_complete


@pytest.mark.parametrize("end", [5, 50])
def test_announced_range_is_complete_at_partition_end(end: int) -> None:
    batch = filled(2, first=2, fixed_end=5)
    batch.advance(end)
    assert batch.span == OffsetRange(2, 5)
    assert batch.is_complete


def test_empty_announced_range_is_complete_at_once() -> None:
    assert Batch(P0, 5, fixed_end=5).is_complete


def test_advance_never_decreases_end() -> None:
    batch = filled(0, 1, 2)
    batch.advance(1)
    assert batch.end == 3


def test_skipped_offsets_make_batch_due() -> None:
    batch = Batch(P0, 0)
    batch.skip_to(4, now=10.0)
    assert batch.span == OffsetRange(0, 4)
    assert not batch.is_empty
    assert not batch.is_due(LIMITS, 14.0)
    assert batch.is_due(LIMITS, 15.0)


def test_skip_keeps_time_of_older_batch() -> None:
    batch = filled(0, now=1.0)
    batch.skip_to(4, now=10.0)
    assert batch.opened_at == 1.0


def test_batch_size_counts_invalid_records() -> None:
    batch = filled(0, 1)
    assert not batch.is_due(LIMITS, 0.0)
    batch.append([record(2, b"bad")], decode, 0.0)
    assert batch.is_due(LIMITS, 0.0)
    assert not batch.is_full(LIMITS)


def test_batch_is_due_and_full_by_bytes() -> None:
    batch = Batch(P0, 0)
    batch.append([record(0, b"x" * 999)], decode, 0.0)
    assert not batch.is_due(LIMITS, 0.0)
    batch.append([record(1, b"x")], decode, 0.0)
    assert batch.is_due(LIMITS, 0.0)
    assert batch.is_full(LIMITS)


def test_batch_is_full_at_max_rows() -> None:
    batch = filled(0, 1, 2, 3, 4)
    assert not batch.is_full(LIMITS)
    batch.append([record(5, b"bad")], decode, 0.0)
    assert batch.is_full(LIMITS)


def test_empty_batch_is_never_due() -> None:
    assert not Batch(P0, 0).is_due(LIMITS, 1e9)


def test_age_limits_of_partitions_differ() -> None:
    due_at = []
    for number in range(16):
        partition = TopicPartition("octane.events", number)
        batch = Batch(partition, 0)
        batch.skip_to(1, now=0.0)
        due_at.append(next(t / 100 for t in range(600) if batch.is_due(LIMITS, t / 100)))
    assert max(due_at) == 5.0
    assert min(due_at) >= 5.0 * 0.75
    assert len(set(due_at)) == 8


@pytest.mark.parametrize("now", [0.0, 1e9])
def test_announced_range_is_due_only_when_complete(now: float) -> None:
    batch = Batch(P0, 0, fixed_end=20)
    batch.append([record(n, b"x" * 500) for n in range(19)], decode, 0.0)
    assert not batch.is_due(LIMITS, now)
    assert not batch.is_full(LIMITS)
    batch.append([record(19)], decode, 0.0)
    assert batch.is_due(LIMITS, now)
    assert batch.is_full(LIMITS)


def test_rows_within_selects_by_offset() -> None:
    batch = Batch(P0, 0, fixed_end=10, keeps_records=True)
    values = [(0, b"u0"), (2, b"u2"), (3, b"bad"), (7, b"u7"), (9, b"u9")]
    batch.append([record(offset, value) for offset, value in values], decode, 0.0)
    columns, records = batch.rows_within(OffsetRange(2, 8))
    assert columns[3] == [b"u2", b"u7"]
    assert [len(column) for column in columns] == [2] * 5
    assert [r.offset() for r in records] == [2, 7]
    columns, records = batch.rows_within(OffsetRange(9, 10))
    assert (columns[3], [r.offset() for r in records]) == ([b"u9"], [9])
    assert batch.rows_within(OffsetRange(3, 7)) == ([[], [], [], [], []], [])


def test_batch_keeps_no_records_by_default() -> None:
    assert filled(0, 1).records == []


@given(
    st.lists(st.integers(1, 4), max_size=30),
    st.lists(st.integers(1, 7), max_size=30),
    st.none() | st.integers(0, 40),
)
def test_batch_appends_each_record_of_range_once(
    steps: list[int], polls: list[int], fixed_end: int | None
) -> None:
    offsets = [sum(steps[: index + 1]) - 1 for index in range(len(steps))]
    batch = Batch(P0, 0, fixed_end=fixed_end, keeps_records=True)
    rest = [record(offset) for offset in offsets]
    while polls:
        count = polls.pop()
        batch.append(rest[:count], decode, 0.0)
        rest = rest[max(0, count - 1) :]  # the last record is polled twice
    expected = [o for o in offsets if o < batch.end]
    assert [r.offset() for r in batch.records] == expected
    assert batch.rows == len(expected)
    if fixed_end is not None:
        assert batch.end <= fixed_end
        assert batch.is_complete == (batch.end >= fixed_end)
