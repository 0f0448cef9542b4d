"""What was asked for, held against what the log and the group say."""

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
def test_offsets_are_one_for_all_one_for_each_or_a_word(text: str, offsets: object) -> None:
    assert parse_offsets(text, "beginning") == offsets


@pytest.mark.parametrize("text", ["end", "latest"])
def test_end_is_latest_too(text: str) -> None:
    assert parse_offsets(text, "end") == "end"


@pytest.mark.parametrize("text", ["", "-1", "end", "latest", "0:", ":3", "0:1,0:2", "0:x", "1.5"])
def test_offsets_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadRange):
        parse_offsets(text, "beginning")


def test_times_are_absolute_or_ago() -> None:
    assert parse_time("2026-02-02T12:00:00Z", NOW) == NOW.timestamp()
    assert parse_time("2026-02-02T12:00:00", NOW) == NOW.timestamp()
    assert parse_time("-6h", NOW) == NOW.timestamp() - 6 * 3600
    assert parse_time("-1.5d", NOW) == NOW.timestamp() - 36 * 3600


@pytest.mark.parametrize("text", ["", "6h", "-6", "-6w", "noon", "-" + "9" * 400 + "d"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadRange):
        parse_time(text, NOW)


def test_range_ends_where_the_group_has_committed() -> None:
    spans = resolve(RequestedRange(from_offset="beginning"), FACTS, is_live=True)
    assert spans == {0: OffsetRange(10, 90), 1: OffsetRange(0, 50)}


def test_range_of_another_table_may_end_at_the_end() -> None:
    wanted = RequestedRange(from_offset=20, to_offset="end")
    assert resolve(wanted, FACTS, is_live=False) == {
        0: OffsetRange(20, 100),
        1: OffsetRange(20, 50),
    }


def test_group_without_commits_matters_to_its_own_table_only() -> None:
    facts = LogFacts(FACTS.held, {}, {}, {})
    with pytest.raises(BadRange, match="has committed nothing"):
        resolve(RequestedRange(from_offset="beginning"), facts, is_live=True)
    spans = resolve(RequestedRange(from_offset="beginning"), facts, is_live=False)
    assert spans == facts.held


def test_offsets_by_partition_choose_the_partitions() -> None:
    wanted = RequestedRange(from_offset={1: 5}, to_offset={1: 9})
    assert resolve(wanted, FACTS, is_live=True) == {1: OffsetRange(5, 9)}


def test_times_end_where_the_group_has_committed() -> None:
    wanted = RequestedRange(from_time=1.0, to_time=2.0)
    assert resolve(wanted, FACTS, is_live=True) == {0: OffsetRange(30, 90)}


def test_clamp_begins_at_the_earliest() -> None:
    wanted = RequestedRange(from_offset=0, should_clamp=True)
    assert resolve(wanted, FACTS, is_live=True)[0] == OffsetRange(10, 90)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (RequestedRange(), "say where to begin"),
        (RequestedRange(from_offset=0, from_time=1.0), "not both"),
        (RequestedRange(from_offset=0, to_offset=1, to_time=1.0), "not both"),
        (RequestedRange(from_offset=0, partitions=[2]), "no partition 2: the topic has 0 to 1"),
        (RequestedRange(from_offset={5: 0}), "names partition 5"),
        (RequestedRange(from_offset={0: 20}, partitions=[1]), "names partition 0"),
        (RequestedRange(from_offset=0), "earliest offsets are 0:10"),
        (RequestedRange(from_offset={0: 101}), "offset 101 is beyond the end of partition 0"),
        (RequestedRange(from_offset=101), "beyond the end"),
        (
            RequestedRange(from_offset="beginning", to_offset=200),
            "beyond the end of every partition",
        ),
        (
            RequestedRange(from_offset="beginning", to_offset={0: 101}),
            "beyond the end of partition 0",
        ),
        (RequestedRange(from_offset="beginning", to_offset={0: 95}), "has committed 90"),
        (RequestedRange(from_offset="beginning", to_offset="end"), "has committed 90"),
        (RequestedRange(from_offset=95), "empty"),
        (RequestedRange(from_offset=20, to_offset=20), "empty"),
    ],
)
def test_wrong_ranges_say_what_is_wrong(wanted: RequestedRange, told: str) -> None:
    with pytest.raises(BadRange, match=told):
        resolve(wanted, FACTS, is_live=True)
