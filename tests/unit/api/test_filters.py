"""Filters: validation, notation in a URL, and SQL in which every name and value is bound."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.api.filters import (
    OPERATORS,
    Filter,
    as_text,
    conditions,
    from_text,
    validated,
)
from octane_analytics.clickhouse.rollup_expressions import READABLE_PROPERTIES
from octane_analytics.errors import QueryError

SCALARS = st.text(min_size=1, max_size=20) | st.booleans() | st.integers() | st.floats()
VALUES = st.none() | SCALARS | st.lists(SCALARS, max_size=4)
FILTERS = st.builds(Filter, st.text(max_size=12), st.sampled_from(OPERATORS), VALUES)


def escaped(text: str) -> str:
    return re.sub(r"([\\:,])", r"\\\1", text)


@given(st.lists(FILTERS, max_size=3))
def test_sql_of_filters_holds_nothing_given(filters: list[Filter]) -> None:
    try:
        chosen = validated(filters)
    except QueryError:
        return
    found = conditions(chosen, {"device": "device_key"})
    constant = re.sub(r"\{filter_\d+_[a-z]+(_\d+)?:[A-Za-z0-9()]+\}", "?", found.sql)
    constant = constant.replace(READABLE_PROPERTIES, "properties")
    words = set(re.findall(r"\w+", constant))
    known = (
        "AND OR NOT IN ifNull toFloat64OrNull JSONExtractRaw JSONExtract JSONType JSONHas String"
    )
    known += " Null properties 0 app_id event_name user_id coalesce nullIf JSONExtractString"
    known += " content_id stream_id video_id device_key"
    assert words <= set(known.split())
    assert set(re.findall(r"\{(\w+):", found.sql.replace(READABLE_PROPERTIES, ""))) == set(
        found.values
    )


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_any_text_is_read_from_url_notation(name: str, value: str) -> None:
    assert from_text(f"{escaped(name)}:eq:{value}") == Filter(name, "eq", value)
    listed = from_text(f"{escaped(name)}:in:{escaped(value)},{escaped(value)}")
    assert listed == Filter(name, "in", [value, value])


@given(FILTERS)
def test_notation_of_a_filter_is_read_back(filter_: Filter) -> None:
    try:
        (valid,) = validated([filter_])
    except QueryError:
        return
    read = from_text(as_text(valid))
    items = valid.value if isinstance(valid.value, list) else [valid.value]
    if valid.op in ("gt", "lt") or not any(type(item) is float for item in items):
        assert validated([read]) == (valid,)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "device",
            "device:eq",
            "device:like:t%",
            "a:gt:tv",
            "a:lt:",
            "a:exists:maybe",
            ":eq:x",
        ),
        *(
            "a:gt:1_000",
            "a:gt: 5",
            "a:gt:nan",
            "a:lt:inf",
            "a:lt:\u0663",
            "a:lt:1e999",
            "a:gt:0x10",
        ),
    ],
)
def test_invalid_url_notation_is_rejected(text: str) -> None:
    with pytest.raises(QueryError) as raised:
        validated([from_text(text)])
    assert raised.value.status == 422


@pytest.mark.parametrize(
    "filter_",
    [
        Filter("a", "eq"),
        Filter("a", "eq", ""),
        Filter("a", "eq", ["x"]),
        Filter("a", "eq", "x" * 1001),
        Filter("a", "eq", "\ud800"),
        Filter("\ud800", "eq", "x"),
        Filter("a", "in", "x"),
        Filter("a", "in", []),
        Filter("a", "in", ["x"] * 101),
        Filter("a", "gt", "5"),
        Filter("a", "gt", True),
        Filter("a", "gt", float("inf")),
        Filter("a", "eq", float("nan")),
        Filter("user_id", "lt", 5),
        Filter("a" * 201, "eq", "x"),
        Filter("", "exists"),
        Filter("properties.", "exists"),
        Filter("a", "exists", "yes"),
    ],
)
def test_invalid_filter_is_rejected(filter_: Filter) -> None:
    with pytest.raises(QueryError) as raised:
        validated([filter_])
    assert (raised.value.status, raised.value.code) == (422, "bad_filter")


def test_equal_meanings_become_equal_filters() -> None:
    assert validated([Filter("a", "eq", 5)]) == validated([Filter("a", "eq", "5")])
    assert validated([Filter("a", "eq", 5.0)]) == validated([Filter("a", "eq", "5")])
    assert validated([Filter("a", "eq", True)]) == validated([Filter("a", "eq", "true")])
    assert validated([Filter("a", "exists")]) == validated([Filter("a", "exists", True)])


def test_number_of_filters_is_limited() -> None:
    with pytest.raises(QueryError, match="at most 10"):
        validated([Filter("a", "eq", "x")] * 11)


def test_fractions_of_a_list_are_one_comparison() -> None:
    (filter_,) = validated([Filter("a", "in", [n + 0.5 for n in range(100)])])
    found = conditions([filter_], {})
    assert len(found.sql) < 1_000
    assert found.values["filter_0_numbers"] == filter_.value
