import pytest

from octane_analytics.api.raw_sql.column_definitions import is_plain


@pytest.mark.parametrize(
    "text",
    [
        "a String",
        "a Int8, b String",
        " a  uint64 ,b   Bool ",
        "t DateTime('UTC'), u DateTime64(3, 'Europe/Berlin')",
        "e Enum8('a' = 1, 'b' = -2), f Enum('x', 'y')",
        "d Decimal(10, 2), s FixedString(4)",
        "a Array(Tuple(Int8, s LowCardinality(Nullable(String)))), m Map(String, UInt8)",
        "date Date, alias String",
    ],
)
def test_names_with_types_are_accepted(text: str) -> None:
    assert is_plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a String,",
        "a String b String",
        "a String ALIAS file('x')",
        "a String DEFAULT 1",
        "a DEFAULT (file(b)), b String",
        "a ALIAS(length(b)), b String",
        "a MATERIALIZED hostName()",
        "a String CODEC(NONE)",
        "a String TTL now()",
        "a String COMMENT 'x'",
        "a String /* */ ALIAS b",
        "a String -- x",
        "a AggregateFunction(sum, UInt8)",
        "a Tuple(b String ALIAS c)",
        "a Array()",
        "a Array(file())",
        "a DateTime('a\\'b')",
        "a Enum8('a' = hostName())",
        "a Array(String))",
        "a Array(String",
        "a.b String",
        "`a` String",
        "a String, INDEX x y TYPE minmax",
        "a String;",
        "1a String",
    ],
)
def test_other_definitions_are_rejected(text: str) -> None:
    assert not is_plain(text)
