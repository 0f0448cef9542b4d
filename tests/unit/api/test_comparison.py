"""Comparison of ranges: the range, the keys of rows, and the changes."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.api.comparison import (
    ComparedRange,
    columns_with_changes,
    compared_range,
    from_text,
    identity,
    join,
)
from octane_analytics.clickhouse.results import ResultColumn
from octane_analytics.errors import QueryError

NOW = datetime(2026, 2, 2, tzinfo=UTC)
DAY = 86_400
CONTENT = (ResultColumn("id", "String"), ResultColumn("n", "UInt64"))


def second(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@given(st.integers(0, 2**31), st.integers(1, 2**30))
def test_previous_period_ends_at_the_start(start: int, length: int) -> None:
    if start < length:
        with pytest.raises(QueryError):
            compared_range("previous_period", start, start + length, NOW)
    else:
        assert compared_range("previous_period", start, start + length, NOW) == (
            start - length,
            start,
        )


def test_previous_year_of_leap_day_is_last_day() -> None:
    found = compared_range("previous_year", second("2024-02-29"), second("2024-03-31"), NOW)
    assert found == (second("2023-02-28"), second("2023-03-31"))


def test_own_range_is_read_from_text() -> None:
    chosen = from_text("2026-01-01T00:00:00Z/-1d")
    assert compared_range(chosen, 0, 1, NOW) == (second("2026-01-01"), second("2026-02-01"))
    assert identity(chosen) == identity(ComparedRange("2026-01-01T00:00:00Z", "-24h"))


@pytest.mark.parametrize("text", ["", "previous", "previous_period/", "/", "a/b", "-1d", "-1d/-2d"])
def test_invalid_range_is_rejected(text: str) -> None:
    with pytest.raises(QueryError) as raised:
        compared_range(from_text(text), 0, 1, NOW)
    assert raised.value.details == {"parameter": "compare"}


def test_rows_are_joined_by_key_in_any_order() -> None:
    rows = [("a", 3), ("b", 0), ("new", 5)]
    joined = join(CONTENT, ["id"], rows, 0, [("b", 0), ("gone", 7), ("a", 2)], 0)
    assert joined == [("a", 3, 2, 0.5), ("b", 0, 0, None), ("new", 5, None, None)]
    assert [(c.name, c.type) for c in columns_with_changes(CONTENT, ["id"])] == [
        ("id", "String"),
        ("n", "UInt64"),
        ("n_before", "Nullable(UInt64)"),
        ("n_change", "Nullable(Float64)"),
    ]


def test_single_row_is_compared_with_single_row() -> None:
    assert join(CONTENT[1:], [], [(4,)], 0, [(2,)], 0) == [(4, 2, 1.0)]


def test_buckets_are_compared_by_position() -> None:
    columns = (ResultColumn("bucket", "DateTime"), CONTENT[1])
    rows = [(datetime(2026, 1, 2, hour), hour) for hour in (0, 1)]
    earlier = [(datetime(2026, 1, 1, hour, 30), 2) for hour in (0, 1)]
    assert [row[2] for row in join(columns, ["bucket"], rows, 0, earlier, 0)] == [2, 2]


def test_days_are_compared_by_distance_from_start() -> None:
    columns = (ResultColumn("day", "Date"), CONTENT[1])
    start, earlier_start = second("2026-02-10"), second("2026-02-03")
    earlier = [(date(2026, 2, 4), 4)]
    rows = [(date(2026, 2, 10), 1), (date(2026, 2, 11), 2)]
    found = join(columns, ["day"], rows, start, earlier, earlier_start)
    assert [row[2] for row in found] == [None, 4]
    # In a zone with summer time the ranges may begin at another hour of UTC.
    moved = join(columns, ["day"], rows, start - 3600, earlier, earlier_start)
    assert moved == found
