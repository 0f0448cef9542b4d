"""Expected schema, and the differences of a live table from it."""

import re
from dataclasses import replace
from uuid import UUID

import pytest

from octane_analytics.clickhouse.schema import (
    COLUMNS,
    SHOWN_CODECS,
    LiveColumn,
    LiveTable,
    TableName,
    alter_window,
    create_replicated_table,
    create_table,
    differences,
    identifier,
    unfit_columns,
)

NAME = TableName("default", "ai_analytics_events")
EXPECTED = """
CREATE TABLE IF NOT EXISTS default.ai_analytics_events (
    timestamp DateTime CODEC(Delta, ZSTD),
    app_id String CODEC(ZSTD),
    event_name String CODEC(ZSTD),
    user_id String CODEC(ZSTD),
    properties String CODEC(ZSTD)
) ENGINE = MergeTree()
ORDER BY (app_id, event_name, timestamp)
PARTITION BY toYYYYMM(timestamp)
TTL timestamp + INTERVAL 90 DAY;
"""
LIVE = LiveTable(
    engine="MergeTree",
    sorting_key="app_id, event_name, timestamp",
    partition_key="toYYYYMM(timestamp)",
    ttl="timestamp + toIntervalDay(90)",
    window=10_000,
    columns=tuple(LiveColumn(c.name, c.type, SHOWN_CODECS[c.codec]) for c in COLUMNS),
)


def words(statement: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", statement)


def with_column(name: str, **changes: str) -> LiveTable:
    return replace(
        LIVE, columns=tuple(replace(c, **changes) if c.name == name else c for c in LIVE.columns)
    )


def test_create_table_equals_expected_schema() -> None:
    statement, found, window = create_table(NAME).partition("\nSETTINGS ")
    assert found
    assert [*words(statement), ";"] == words(EXPECTED)
    assert window == "non_replicated_deduplication_window = 10000"


def test_create_table_uses_given_window() -> None:
    assert create_table(NAME, window=5).endswith("non_replicated_deduplication_window = 5")


def test_alter_window_names_table_and_setting() -> None:
    assert alter_window(NAME, "replicated_deduplication_window", 7) == (
        "ALTER TABLE default.ai_analytics_events MODIFY SETTING replicated_deduplication_window = 7"
    )


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("events", "events"),
        ("_e1", "_e1"),
        ("1events", "`1events`"),
        ("my-events", "`my-events`"),
        ("a.b", "`a.b`"),
        ("", "``"),
        ("events\n", "`events\n`"),
        ("a`; DROP TABLE b", "`a\\`; DROP TABLE b`"),
        ("a\\`b", "`a\\\\\\`b`"),
    ],
)
def test_identifier_is_bare_or_escaped(name: str, quoted: str) -> None:
    assert identifier(name) == quoted


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("timestamp", "DateTime('UTC')"),
        ("timestamp", "Nullable(DateTime)"),
        ("app_id", "LowCardinality(String)"),
        ("event_name", "LowCardinality(Nullable(String))"),
        ("user_id", "Nullable(String)"),
    ],
)
def test_column_of_related_type_is_fit(name: str, type_name: str) -> None:
    assert unfit_columns(with_column(name, type=type_name)) == []


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("timestamp", "DateTime64(3)"),
        ("timestamp", "Nullable(DateTime64(3, 'UTC'))"),
        ("timestamp", "UInt32"),
        ("timestamp", "String"),
        ("user_id", "UUID"),
        ("user_id", "FixedString(8)"),
        ("properties", "JSON"),
        ("properties", "Array(String)"),
    ],
)
def test_column_of_unsuitable_type_is_unfit(name: str, type_name: str) -> None:
    (problem,) = unfit_columns(with_column(name, type=type_name))
    assert problem.startswith(f"has {name} as {type_name}, not as ")


def test_missing_column_is_unfit() -> None:
    assert unfit_columns(replace(LIVE, columns=LIVE.columns[1:])) == ["lacks timestamp"]


def test_expected_table_has_no_differences() -> None:
    assert differences(LIVE) == []


@pytest.mark.parametrize(
    "engine", ["ReplicatedMergeTree", "SharedMergeTree"], ids=["replicated", "shared"]
)
def test_replicated_table_has_no_differences(engine: str) -> None:
    live = replace(LIVE, engine=engine)
    assert live.is_replicated
    assert live.window_setting == "replicated_deduplication_window"
    assert differences(live) == []


def test_plain_table_uses_non_replicated_window_setting() -> None:
    assert not LIVE.is_replicated
    assert LIVE.window_setting == "non_replicated_deduplication_window"


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        (replace(LIVE, engine="Log"), "engine is Log"),
        (replace(LIVE, engine="ReplacingMergeTree"), "engine is ReplacingMergeTree"),
        (replace(LIVE, engine="ReplicatedReplacingMergeTree"), "ReplicatedReplacingMergeTree"),
        (replace(LIVE, engine="SummingMergeTree"), "engine is SummingMergeTree"),
        (replace(LIVE, sorting_key="app_id, timestamp"), "sorting key is app_id, timestamp"),
        (replace(LIVE, sorting_key=""), "sorting key is not set"),
        (replace(LIVE, partition_key="toYYYYMMDD(timestamp)"), "partition key is toYYYYMMDD"),
        (replace(LIVE, partition_key=""), "partition key is not set"),
        (
            replace(LIVE, ttl="timestamp + toIntervalDay(30)"),
            "TTL is timestamp + toIntervalDay(30)",
        ),
        (replace(LIVE, ttl=""), "TTL is not set"),
        (replace(LIVE, window=0), "non_replicated_deduplication_window is 0"),
        (
            replace(LIVE, engine="ReplicatedMergeTree", window=0),
            "replicated_deduplication_window is 0",
        ),
        (
            replace(LIVE, columns=(*LIVE.columns, LiveColumn("extra", "UInt8", ""))),
            "column extra is not in the expected schema",
        ),
        (
            replace(LIVE, columns=LIVE.columns[1:] + LIVE.columns[:1]),
            "order app_id, event_name, user_id, properties, timestamp",
        ),
        *(
            (
                replace(LIVE, columns=tuple(c for c in LIVE.columns if c.name != column.name)),
                f"column {column.name} is missing",
            )
            for column in COLUMNS
        ),
        *(
            (with_column(column.name, type="Int64"), f"column {column.name} is of type Int64")
            for column in COLUMNS
        ),
        *(
            (with_column(column.name, codec="CODEC(LZ4)"), f"column {column.name} has CODEC(LZ4)")
            for column in COLUMNS
        ),
        (with_column("app_id", codec=""), "column app_id has the default codec"),
    ],
)
def test_each_difference_is_reported(live: LiveTable, expected: str) -> None:
    (found,) = differences(live)
    assert expected in found


def test_several_differences_are_all_reported() -> None:
    live = replace(with_column("user_id", type="UUID"), ttl="", window=0)
    assert len(differences(live)) == 3


def test_replicated_statement_has_uuid_or_cluster() -> None:
    name, own = TableName("d", "t"), UUID("6f1c1a1e-5d3f-5b0c-9a39-00000000000a")
    alone = create_replicated_table(name, 7, uuid=own)
    assert alone.startswith(f"CREATE TABLE IF NOT EXISTS d.t UUID '{own}' (")
    assert "ENGINE = ReplicatedMergeTree()" in alone
    assert "replicated_deduplication_window = 7, " in alone
    assert "replicated_deduplication_window_seconds = 86400" in alone
    everywhere = create_replicated_table(name, cluster="o c")
    assert everywhere.startswith("CREATE TABLE IF NOT EXISTS d.t ON CLUSTER `o c` (")
