import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.api.raw_sql.type_names import is_type, objection, places


@pytest.mark.parametrize(
    "text",
    [
        "String",
        "DOUBLE PRECISION",
        "INT UNSIGNED",
        "Array(Nullable(LowCardinality(String)))",
        "Tuple(a Int8, b Array(DateTime('UTC')))",
        "DateTime64(3, 'Europe/Berlin')",
        "Enum8('it\\'s' = 1, 'file:/x' = -2)",
        "Decimal(9, 2)",
        "Map(String, UInt8)",
        "JSON(`a.b` UInt32, SKIP c.d, max_dynamic_paths = 8)",
        "Variant(String, UInt8)",
    ],
)
def test_plain_type_is_accepted(text: str) -> None:
    assert is_type(text)


@pytest.mark.parametrize(
    "text",
    [
        "DateTime('file:/proc/self/fd/3')",
        "DateTime('Fixed/UTC+05:30:00')",
        "DateTime('utc')",
        "TIMESTAMP('/etc/passwd')",
        "DateTime(concat('U', 'TC'))",
        "DateTime('UTC\\'')",
        "Array(Tuple(a DateTime('file:/x')))",
        "AggregateFunction(rankCorr, Float64, Float64)",
        "SimpleAggregateFunction(sum, UInt64)",
        "JSON(SKIP REGEXP '(a{1,30}){1,30}b')",
        "String('x')",
        "Array(" * 5000 + "Int8" + ")" * 5000,
        "Array(Int8",
        "Int8)",
        "Int8 -- x",
        "Int8 /* x */",
        "Int8;",
    ],
)
def test_other_type_is_rejected(text: str) -> None:
    assert not is_type(text)


@given(st.text(alphabet=string.printable, max_size=30), st.sampled_from(["DateTime", "Datetime64"]))
def test_zone_in_type_is_a_known_one(zone: str, name: str) -> None:
    text = f"Array({name}('{zone}'))"
    if is_type(text):
        assert not set(zone) & set(":.\\'() ")


@pytest.mark.parametrize(
    ("function", "count", "expected"),
    [
        ("toDateTime", 1, []),
        ("toDateTime", 2, [1]),
        ("dateDiff", 4, [3]),
        ("dateDiff", 3, []),
        ("JSONExtract", 3, [2]),
        ("CAST", 2, [1]),
        ("parseDateTimeInJodaSyntax", 3, [1, 2]),
        ("length", 1, []),
        ("now", 0, []),
    ],
)
def test_restricted_arguments(function: str, count: int, expected: list[int]) -> None:
    assert places(function, count) == expected


@pytest.mark.parametrize(
    ("function", "place", "text", "is_number", "is_allowed"),
    [
        ("toDateTime", 1, "Europe/Berlin", False, True),
        ("toDateTime", 1, "file:/x", False, False),
        ("toDateTime", 1, None, False, False),
        ("toDateTime64", 2, None, True, True),
        ("CAST", 1, None, False, False),
        ("CAST", 1, "Int8", False, True),
        ("tupleElement", 1, None, True, True),
        ("tupleElement", 1, "a.:`DateTime('UTC')`", False, False),
        ("tupleElement", 1, "a", False, True),
        ("parseDateTimeInJodaSyntax", 1, "yyyy-MM-dd", False, True),
        ("parseDateTimeInJodaSyntax", 1, "yyyy z", False, False),
        ("parseDateTimeInJodaSyntax", 1, None, False, False),
    ],
)
def test_argument_is_judged_by_function(
    function: str, place: int, text: str | None, is_number: bool, is_allowed: bool
) -> None:
    problem = objection(function, place, text, is_number=is_number)
    assert (problem is None) == is_allowed
