"""The requested range, checked against the log and the group's commits."""

from datetime import UTC, datetime

import pytest

from octane_analytics.replay.ranges import (
    BadRange,
    LogFacts,
    RequestedRange,
    parse_offsets,
    parse_time,
    resolve,
)
from octane_analytics.types import OffsetRange

NOW = datetime(2026, 2, 2, 12, tzinfo=UTC)
FACTS = LogFacts(
    held={0: OffsetRange(10, 100), 1: OffsetRange(0, 50)},
    committed={0: 90, 1: 50},
    from_time={0: 30, 1: None},
    to_time={0: 95, 1: 20},
)


@pytest.mark.parametrize(
    ("text", "offsets"),
    [("7", 7), ("0:1, 3:4", {0: 1, 3: 4}), ("beginning", "beginning"), ("earliest", "beginning")],
)
def test_parse_offsets_takes_number_map_or_word(text: str, offsets: object) -> None:
    assert parse_offsets(text, "beginning") == offsets


@pytest.mark.parametrize("text", ["end", "latest"])
def test_parse_offsets_takes_latest_as_end(text: str) -> None:
    assert parse_offsets(text, "end") == "end"


@pytest.mark.parametrize("text", ["", "-1", "end", "latest", "0:", ":3", "0:1,0:2", "0:x", "1.5"])
def test_parse_offsets_invalid_text_raises(text: str) -> None:
    with pytest.raises(BadRange):
        parse_offsets(text, "beginning")


def test_parse_time_takes_absolute_or_relative() -> None:
    assert parse_time("2026-02-02T12:00:00Z", NOW) == NOW.timestamp()
    assert parse_time("2026-02-02T12:00:00", NOW) == NOW.timestamp()
    assert parse_time("-6h", NOW) == NOW.timestamp() - 6 * 3600
    assert parse_time("-1.5d", NOW) == NOW.timestamp() - 36 * 3600


@pytest.mark.parametrize("text", ["", "6h", "-6", "-6w", "noon", "-" + "9" * 400 + "d"])
def test_parse_time_invalid_text_raises(text: str) -> None:
    with pytest.raises(BadRange):
        parse_time(text, NOW)


def test_range_of_live_table_ends_at_commits() -> None:
    ranges = resolve(RequestedRange(from_offset="beginning"), FACTS, is_live=True)
    assert ranges == {0: OffsetRange(10, 90), 1: OffsetRange(0, 50)}


def test_range_of_other_table_may_reach_the_end() -> None:
    wanted = RequestedRange(from_offset=20, to_offset="end")
    assert resolve(wanted, FACTS, is_live=False) == {
        0: OffsetRange(20, 100),
        1: OffsetRange(20, 50),
    }


def test_range_without_commits_only_fails_if_live() -> None:
    facts = LogFacts(FACTS.held, {}, {}, {})
    with pytest.raises(BadRange, match="has committed nothing"):
        resolve(RequestedRange(from_offset="beginning"), facts, is_live=True)
    ranges = resolve(RequestedRange(from_offset="beginning"), facts, is_live=False)
    assert ranges == facts.held


def test_range_offsets_by_partition_choose_partitions() -> None:
    wanted = RequestedRange(from_offset={1: 5}, to_offset={1: 9})
    assert resolve(wanted, FACTS, is_live=True) == {1: OffsetRange(5, 9)}


def test_range_by_time_ends_at_commits() -> None:
    wanted = RequestedRange(from_time=1.0, to_time=2.0)
    assert resolve(wanted, FACTS, is_live=True) == {0: OffsetRange(30, 90)}


def test_range_clamped_begins_at_the_earliest() -> None:
    wanted = RequestedRange(from_offset=0, should_clamp=True)
    assert resolve(wanted, FACTS, is_live=True)[0] == OffsetRange(10, 90)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (RequestedRange(), "the start is missing"),
        (RequestedRange(from_offset=0, from_time=1.0), "not both"),
        (RequestedRange(from_offset=0, to_offset=1, to_time=1.0), "not both"),
        (
            RequestedRange(from_offset=0, partitions=[2]),
            "partition 2 does not exist: the topic has 0 to 1",
        ),
        (RequestedRange(from_offset={5: 0}), "names partition 5"),
        (RequestedRange(from_offset={0: 20}, partitions=[1]), "names partition 0"),
        (RequestedRange(from_offset=0), "earliest offsets are 0:10"),
        (RequestedRange(from_offset={0: 101}), "offset 101 is after the end of partition 0"),
        (RequestedRange(from_offset=101), "after the end"),
        (
            RequestedRange(from_offset="beginning", to_offset=200),
            "after the end of every partition",
        ),
        (
            RequestedRange(from_offset="beginning", to_offset={0: 101}),
            "after the end of partition 0",
        ),
        (RequestedRange(from_offset="beginning", to_offset={0: 95}), "has committed 90"),
        (RequestedRange(from_offset="beginning", to_offset="end"), "has committed 90"),
        (RequestedRange(from_offset=95), "empty"),
        (RequestedRange(from_offset=20, to_offset=20), "empty"),
    ],
)
def test_range_invalid_raises_with_the_reason(wanted: RequestedRange, message: str) -> None:
    with pytest.raises(BadRange, match=message):
        resolve(wanted, FACTS, is_live=True)
