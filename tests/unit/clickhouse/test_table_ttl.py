"""Clauses of a table's definition; text in quotes or parentheses is never read as a keyword."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.clickhouse.table_ttl import (
    columns_with_ttl,
    setting_of,
    ttl_of,
    unexpired_condition,
)

PLAIN = (
    "MergeTree PARTITION BY toYYYYMM(timestamp) ORDER BY (app_id, event_name, timestamp) "
    "TTL timestamp + toIntervalDay(90) SETTINGS non_replicated_deduplication_window = 10000, "
    "index_granularity = 8192"
)
HOSTILE = st.lists(
    st.sampled_from(
        [
            " TTL ",
            " SETTINGS ",
            "window = 7",
            " GROUP BY ",
            " WHERE ",
            ", ",
            "(",
            ")",
            "\\",
            "'",
            "`",
        ]
    )
    | st.text(max_size=2),
    max_size=6,
).map("".join)


def quoted(text: str) -> str:
    """Return the text as ClickHouse writes a literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def test_clauses_of_a_plain_table() -> None:
    assert ttl_of(PLAIN) == "timestamp + toIntervalDay(90)"
    assert setting_of(PLAIN, "non_replicated_deduplication_window") == "10000"
    assert setting_of(PLAIN, "index_granularity") == "8192"
    assert setting_of(PLAIN, "granularity") == ""
    assert ttl_of("MergeTree ORDER BY app_id SETTINGS index_granularity = 8192") == ""


@given(HOSTILE, HOSTILE, HOSTILE)
def test_quoted_text_is_never_a_clause(path: str, key: str, value: str) -> None:
    ttl = f"if(app_id = {quoted(value)}, timestamp, timestamp + toIntervalDay(1))"
    definition = (
        f"ReplicatedMergeTree({quoted(path)}, 'one') PARTITION BY app_id = {quoted(key)} "
        f"ORDER BY timestamp TTL {ttl} SETTINGS storage_policy = {quoted(value)}, window = 12"
    )
    assert ttl_of(definition) == ttl
    assert setting_of(definition, "window") == "12"
    condition = unexpired_condition(ttl)
    assert condition is not None
    assert condition.startswith(f"(({ttl}) > now()")


@given(HOSTILE)
def test_quoted_text_divides_no_ttl(text: str) -> None:
    literal = quoted(text)
    ttl = f"timestamp + 1 TO DISK {literal}, timestamp + 2 WHERE app_id = {literal}"
    condition = unexpired_condition(ttl)
    assert condition is not None
    assert condition.count("> now()") == 1
    assert condition.endswith(f" OR NOT ( app_id = {literal}))")


@pytest.mark.parametrize(
    ("ttl", "others", "is_countable"),
    [
        ("", (), True),
        ("timestamp + toIntervalDay(90)", ("at",), True),
        ("at + toIntervalDay(90)", ("at",), False),
        ("toDate(`a b`) + toIntervalDay(90)", ("a b",), False),
        ("timestamp + toIntervalDay(1) WHERE other = 1", ("other",), False),
        ("timestamp + 1 GROUP BY app_id, event_name SET user_id = max(user_id)", (), False),
        ("timestamp + 1, timestamp + 2 GROUP BY app_id", (), False),
        ("timestamp + 1 WHERE app_id = 'GROUP BY at'", ("at",), True),
    ],
)
def test_ttl_that_rows_alone_decide_is_countable(
    ttl: str, others: tuple[str, ...], is_countable: bool
) -> None:
    assert (unexpired_condition(ttl, others) is not None) is is_countable


@given(HOSTILE)
def test_columns_with_ttl_are_found_beside_any_text(text: str) -> None:
    create = (
        "CREATE TABLE db.`t (a TTL b)` (`app_id` String TTL timestamp + toIntervalDay(1), "
        f"`TTL` String DEFAULT {quoted(text)} COMMENT {quoted(text)}, `at` DateTime DEFAULT f(TTL), "
        "`b` String CODEC(LZ4) TTL at + 1) ENGINE = MergeTree ORDER BY (`TTL`) TTL at + 2"
    )
    assert columns_with_ttl(create) == ["app_id", "b"]
