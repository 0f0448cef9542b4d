"""Records of a poll and the positions: none is accepted twice, none is skipped."""

from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.pipeline.delivery_state import DeliveryState
from octane_analytics.pipeline.intake import accept_records
from octane_analytics.pipeline.intents import Intent
from octane_analytics.types import (
    CommitOutcome,
    LogIdentity,
    PartitionRange,
    Record,
    TopicPartition,
)
from tests.fakes.kafka import TOPIC, FakeRecord

LOG = LogIdentity("cluster", "topic-1", "")


def record(partition: int, offset: int) -> FakeRecord:
    return FakeRecord(TopicPartition(TOPIC, partition), offset, b"")


def places(records: object) -> list[tuple[int | None, int | None]]:
    return [(r.partition(), r.offset()) for r in records]  # type: ignore[attr-defined]


def state_of(*positions: int) -> DeliveryState:
    state = DeliveryState(TOPIC)
    for number, position in enumerate(positions):
        state.assign(number, LOG, position, None)
    state.completed(CommitOutcome(frozenset(range(len(positions)))))
    return state


def test_poll_extends_the_range_of_each_partition() -> None:
    state = state_of(0, 5, 7)
    records = [record(0, 0), record(1, 6), record(0, 3), record(1, 9)]
    found = accept_records(records, state)
    assert found.records == records
    assert found.held_back == ()
    # A range begins at the position, also where the log has a gap there.
    assert state.open_ranges == [(0, 0, 4), (1, 5, 10)]


def test_records_before_the_position_are_left_out() -> None:
    state = state_of(2, 0)
    found = accept_records([record(0, 0), record(1, 0), record(0, 2)], state)
    assert places(found.records) == [(1, 0), (0, 2)]
    assert state.open_ranges == [(0, 2, 3), (1, 0, 1)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6, unique=True).map(sorted), st.booleans())
def test_run_of_one_partition_is_accepted_like_others(offsets: list[int], is_alone: bool) -> None:
    state = state_of(2, 0)
    others = [] if is_alone else [record(1, 0)]
    found = accept_records([record(0, offset) for offset in offsets] + others, state)
    kept = [(0, offset) for offset in offsets if offset >= 2]
    assert places(found.records) == kept + places(others)
    assert list(found.partitions) == [number for number, _ in places(found.records)]
    assert not found.passed
    expected = [(0, 2, offsets[-1] + 1)] if kept else []
    assert state.open_ranges == expected + ([] if is_alone else [(1, 0, 1)])


def test_passed_partition_accepts_no_run() -> None:
    found = accept_records([record(0, 0), record(0, 1)], state_of(0), {0})
    assert not found.records
    assert found.passed == {0}


def test_unreadable_partitions_are_left_out() -> None:
    state = state_of(0)
    state.assign(1, LOG, 0, None)  # no commit of its own yet
    state.assign(2, LOG, 0, Intent(TOPIC, LOG, (PartitionRange(2, 0, 3),)))  # to be recovered
    found = accept_records([record(n, 0) for n in (3, 2, 1)], state)
    assert not found.records
    assert not found.held_back
    assert found.passed == {1, 2}
    found = accept_records([record(n, 0) for n in (0, 1, 2, 3)], state)
    assert places(found.records) == [(0, 0)]


def test_passed_partitions_are_left_out() -> None:
    state = state_of(0, 0)
    found = accept_records([record(0, 4), record(1, 0)], state, {0})
    assert places(found.records) == [(1, 0)]
    assert found.passed == {0}
    assert state.position(0) == 0


def test_no_records_are_no_change() -> None:
    state = state_of(0)
    assert accept_records([], state) == ([], [], (), frozenset())
    assert state.open_ranges == []


def test_records_without_room_wait_for_next_batch() -> None:
    count = 250
    state = state_of(*(5_000_000_000 for _ in range(count)))
    records = [record(n, 5_000_000_000) for n in range(count)]
    found = accept_records(records, state)
    assert 0 < len(found.held_back) < count
    assert {*places(found.records), *places(found.held_back)} == set(places(records))
    assert len(state.open_ranges) == len(found.records)
    state.freeze()
    assert accept_records(found.held_back, state).records == found.held_back


@given(
    positions=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    polls=st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=8), max_size=5
    ),
    seeks=st.lists(st.integers(0, 6), min_size=5, max_size=5),
)
def test_every_record_is_accepted_once(
    positions: list[int], polls: list[list[tuple[int, int]]], seeks: list[int]
) -> None:
    state = state_of(*positions)
    fetched = dict(enumerate(positions))
    taken: list[tuple[int | None, int | None]] = []
    for poll, seek in zip(polls, seeks, strict=False):
        records: list[Record] = []
        for number, step in poll:
            if number in fetched:
                records.append(record(number, fetched[number]))
                fetched[number] += step
        taken += places(accept_records(records, state).records)
        # The client goes back, and hands out again what was handed out before.
        number = seek % len(positions)
        fetched[number] = max(positions[number], fetched[number] - seek)
    assert len(taken) == len(set(taken))
    for number, first, end in state.open_ranges:
        assert first == positions[number]
        own = [offset for n, offset in taken if n == number]
        assert own == sorted(own, key=lambda offset: offset or 0)
        assert own[-1] == end - 1
