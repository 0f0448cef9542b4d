import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.operations.dead_letters import (
    UNKNOWN,
    DeadLetterIndex,
    DeadLetterPosition,
    MessageKind,
    RetryMarker,
    Selection,
    format_ranges,
    parse_dead_letter,
    parse_ranges,
    parse_retry_marker,
)
from octane_analytics.types import OffsetRange, TopicPartition
from tests.fakes.kafka import FakeRecord

DLQ = TopicPartition("octane.events.dlq", 0)


def dead_letter(
    at: int,
    origin: int,
    value: bytes | None = b"bad",
    *more: tuple[str, bytes | None],
    timestamp_ms: bytes = b"5",
) -> FakeRecord:
    headers = (
        *more,
        ("octane.error", b"not_json: it is not: at all"),
        ("octane.topic", b"octane.events"),
        ("octane.partition", b"3"),
        ("octane.offset", str(origin).encode()),
        ("octane.timestamp", timestamp_ms),
    )
    return FakeRecord(DLQ, at, value, b"key", headers)


def marker(at: int, kind: MessageKind, name: str, *offsets: int) -> FakeRecord:
    made = RetryMarker(kind, name, offsets)
    return FakeRecord(DLQ, at, made.value(), None, tuple(made.headers()))


@given(st.sets(st.integers(0, 300)))
def test_ranges_round_trip(offsets: set[int]) -> None:
    assert list(parse_ranges(format_ranges(sorted(offsets)))) == sorted(offsets)


def test_ranges_are_short() -> None:
    assert format_ranges([1, 2, 3, 7, 9, 10]) == "1-3,7,9-10"


def test_dead_letter_has_reason_origin_and_size() -> None:
    found = parse_dead_letter(dead_letter(7, 42, b"payload"))
    assert found.position == DeadLetterPosition(0, 7)
    assert (found.reason, found.detail) == ("not_json", "it is not: at all")
    assert found.origin == ("octane.events", 3, 42)
    assert (found.size, found.is_cut, found.is_retryable) == (7, False, True)


def test_dead_letter_uses_last_header_of_a_name() -> None:
    # The record may itself have been a dead-letter message: its own headers come first.
    found = parse_dead_letter(
        dead_letter(7, 42, b"x", ("octane.offset", b"1"), ("octane.topic", b"other"))
    )
    assert found.origin == ("octane.events", 3, 42)


def test_dead_letter_without_value_is_not_retryable() -> None:
    found = parse_dead_letter(dead_letter(7, 42, None, ("octane.value_bytes", b"5000000")))
    assert (found.is_cut, found.size, found.is_retryable) == (True, 5_000_000, False)


def test_dead_letter_of_tombstone_is_retryable() -> None:
    assert parse_dead_letter(dead_letter(7, 42, None)).is_retryable


def test_record_sent_by_no_worker_is_not_retryable() -> None:
    found = parse_dead_letter(FakeRecord(DLQ, 1, b"hello"))
    assert (found.reason, found.origin, found.is_retryable) == (UNKNOWN, None, False)


def test_digest_is_equal_for_messages_of_one_record() -> None:
    first = parse_dead_letter(dead_letter(1, 42)).digest
    assert parse_dead_letter(dead_letter(9, 42)).digest == first
    assert parse_dead_letter(dead_letter(9, 43)).digest != first
    assert parse_dead_letter(dead_letter(9, 42, b"other")).digest != first
    assert parse_dead_letter(dead_letter(9, 42, timestamp_ms=b"6")).digest != first
    assert (
        parse_dead_letter(dead_letter(1, 1, b"")).digest
        != parse_dead_letter(dead_letter(1, 1, None)).digest
    )


def test_retry_marker_round_trips() -> None:
    assert parse_retry_marker(marker(5, MessageKind.INTENT, "abc", 1, 2, 4)) == RetryMarker(
        MessageKind.INTENT, "abc", (1, 2, 4)
    )


def test_retry_marker_keeps_shard_and_table() -> None:
    made = RetryMarker(MessageKind.INTENT, "abc", (1, 2), "shard é", "db.`events é`")
    record = FakeRecord(DLQ, 5, made.value(), None, tuple(made.headers()))
    assert parse_retry_marker(record) == made
    bare = RetryMarker(MessageKind.INTENT, "abc", (1, 2)).value()
    assert b"shard" not in bare
    assert b"table" not in bare


def test_dead_letter_with_marker_header_is_not_marker() -> None:
    assert (
        parse_retry_marker(
            dead_letter(5, 1, b'{"id": "x", "offsets": "1"}', ("octane.retry", b"done"))
        )
        is None
    )


@pytest.mark.parametrize("value", [b"", b"[]", b'{"id": 1}', b'{"id": "a", "offsets": "x-1"}'])
def test_malformed_retry_marker_is_none(value: bytes) -> None:
    assert parse_retry_marker(FakeRecord(DLQ, 1, value, None, (("octane.retry", b"done"),))) is None


def test_index_groups_messages_by_state() -> None:
    index = DeadLetterIndex()
    index.add_records([dead_letter(at, at) for at in range(5)])
    index.add_records(
        [
            dead_letter(5, 1),
            marker(6, MessageKind.INTENT, "a", 1, 2),
            marker(7, MessageKind.DONE, "a", 1),
        ]
    )
    index.add_records([marker(8, MessageKind.INTENT, "b", 4), dead_letter(9, 9)])
    found = index.by_state()
    assert [x.position.offset for x in found.inserted] == [1]
    assert [x.position.offset for x in found.duplicates] == [5]
    assert [x.position.offset for x in found.pending] == [4]
    assert [x.position.offset for x in found.left] == [0, 2, 3, 9]


def test_markers_of_another_table_do_not_count() -> None:
    index = DeadLetterIndex(table="db.events")
    index.add_records([dead_letter(at, at) for at in range(6)])
    for at, table in enumerate(("db.events", "db.others", "")):
        for kind, name, offsets in (
            (MessageKind.INTENT, f"i{at}", (2 * at,)),
            (MessageKind.DONE, f"d{at}", (2 * at + 1,)),
        ):
            made = RetryMarker(kind, name, offsets, table=table)
            index.add_records([FakeRecord(DLQ, 9, made.value(), None, tuple(made.headers()))])
    found = index.by_state()
    assert [x.position.offset for x in found.pending] == [0, 4]
    assert [x.position.offset for x in found.inserted] == [1, 5]
    assert [x.position.offset for x in found.left] == [2, 3]


def test_partition_is_settled_before_first_waiting_message() -> None:
    index = DeadLetterIndex()
    index.add_records([dead_letter(0, 0), dead_letter(1, 1), dead_letter(2, 0)])
    spans = {0: OffsetRange(0, 20), 1: OffsetRange(5, 9)}
    assert index.by_state().settled_before(spans) == {0: 0, 1: 9}
    index.add_records([marker(3, MessageKind.INTENT, "a", 0)])
    assert index.by_state().settled_before(spans) == {0: 0, 1: 9}
    index.add_records([marker(4, MessageKind.DONE, "a", 0)])
    assert index.by_state().settled_before(spans) == {0: 1, 1: 9}


def test_selection_filters_by_reason_and_range() -> None:
    found = parse_dead_letter(dead_letter(7, 42))
    assert Selection().includes(found)
    assert Selection(frozenset({"not_json"}), [(0, 7, 7)]).includes(found)
    assert Selection(ranges=[(None, 0, 6), (None, 7, 9)]).includes(found)
    assert not Selection(frozenset({"wrong_type"})).includes(found)
    assert not Selection(ranges=[(1, 0, 100)]).includes(found)
