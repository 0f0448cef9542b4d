"""Inserts into a real server: once under a token, and with failover.

Also if the token log names a part that the table does not have, the state after a `kill -9` between
writing the two; here the part's directory is removed.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.errors import NeedsOperator
from octane_analytics.events.packed_columns import PackedColumn, SecondsColumn, TextColumn
from octane_analytics.pipeline.repeated_insert import insert_repeated
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import wait_until

MONTH_SECONDS = 31 * 86_400
Columns = tuple[list[object], ...]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedClickHouse]:
    with EmbeddedClickHouse(tmp_path / "clickhouse") as started:
        yield started


@pytest.fixture
def sink(engine: EmbeddedClickHouse) -> Iterator[ClickHouseSink]:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
    with ClickHouseSink(settings, client_name="tests") as connected:
        connected.execute(schema.create_table(connected.table))
        yield connected


def _batch(*users: str, seconds_ago: int = 0) -> Columns:
    rows = len(users)
    timestamp = int(time.time()) - seconds_ago
    return ([timestamp] * rows, ["app"] * rows, ["e"] * rows, list(users), [b"{}"] * rows)


def _packed(*users: str) -> tuple[PackedColumn[Any], ...]:
    timestamps, app_ids, names, user_ids, properties = _batch(*users)
    texts = ([str(text).encode() for text in column] for column in (app_ids, names, user_ids))
    return (
        SecondsColumn(timestamps),  # type: ignore[arg-type]
        *map(TextColumn, texts),
        TextColumn(properties),  # type: ignore[arg-type]
    )


def _joined(*batches: Columns) -> Columns:
    return tuple(
        [value for column in columns for value in column] for columns in zip(*batches, strict=True)
    )


def _users(sink: ClickHouseSink) -> list[str]:
    return [user for (user,) in sink.select(f"SELECT user_id FROM {sink.table} ORDER BY 1").rows]


def _lose_part(engine: EmbeddedClickHouse, directory: Path, partition: str) -> None:
    """Kill the server and remove the newest part of this month, but not its token."""
    engine.kill()
    parts = sorted(
        directory.glob(f"**/store/*/*/{partition}_*"),
        key=lambda path: int(path.name.split("_")[1]),  # partition, first block, last block, level
    )
    assert parts, "a part exists"
    shutil.rmtree(parts[-1])
    engine.start()


def test_repeated_insert_restores_rows_with_token_only(
    engine: EmbeddedClickHouse, sink: ClickHouseSink, tmp_path: Path
) -> None:
    batch = _batch("a", "b", "b")
    # Parts must stay separate, so that one of them can be removed.
    sink.execute(f"SYSTEM STOP MERGES {sink.table}")
    sink.insert_block(_batch("before"), "token-1", None)
    sink.insert_block(batch, "token-2", None)
    month = sink.select("SELECT toString(toYYYYMM(now()))").rows[0][0]
    _lose_part(engine, tmp_path, month)
    assert _users(sink) == ["before"]
    sink.insert_block(batch, "token-2", None)
    assert _users(sink) == ["before"], "the server takes the token's word for it"
    for _ in range(3):
        insert_repeated(sink, batch, "token-2")
        assert _users(sink) == ["a", "b", "b", "before"]


def test_repeated_insert_restores_only_missing_month(
    engine: EmbeddedClickHouse, sink: ClickHouseSink, tmp_path: Path
) -> None:
    batch = _joined(_batch("old", seconds_ago=MONTH_SECONDS), _batch("new"))
    sink.insert_block(batch, "token", None)
    month = sink.select("SELECT toString(toYYYYMM(now()))").rows[0][0]
    _lose_part(engine, tmp_path, month)
    assert _users(sink) == ["old"]
    for _ in range(2):
        insert_repeated(sink, batch, "token")
        assert _users(sink) == ["new", "old"]


def test_repeated_insert_of_stored_rows_inserts_nothing(sink: ClickHouseSink) -> None:
    batch = _batch("a", "b", "b")
    for _ in range(3):
        insert_repeated(sink, batch, "token")
        assert _users(sink) == ["a", "b", "b"]


def test_repeated_insert_ignores_rows_past_ttl(sink: ClickHouseSink) -> None:
    batch = _batch("gone", seconds_ago=100 * 86_400)
    sink.insert_block(batch, "token", None)
    wait_until(lambda: _users(sink) == [])  # removed by a merge
    sink.execute(f"SYSTEM STOP MERGES {sink.table}")  # rows inserted again would stay
    insert_repeated(sink, batch, "token")
    assert _users(sink) == []


def test_tokens_count_with_any_user_profile(tmp_path: Path) -> None:
    careless = User("careless", settings={"deduplicate_insert": "disable", "insert_deduplicate": 0})
    with EmbeddedClickHouse(tmp_path, users=[careless]) as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port, user="careless")
        with ClickHouseSink(settings, client_name="tests") as sink:
            sink.execute(schema.create_table(sink.table))
            for _ in range(2):
                sink.insert_block(_batch("a"), "token", None)
            assert _users(sink) == ["a"]


@pytest.mark.parametrize("compression", ["none", "lz4", "lz4hc", "zstd"])
def test_packed_columns_are_sent_with_every_compression(
    engine: EmbeddedClickHouse, sink: ClickHouseSink, compression: str
) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port, compression=compression)
    users = [f"u{number:06}" for number in range(50_000)]
    with ClickHouseSink(settings, client_name="tests") as compressing:
        compressing.insert_block(_packed(*users), "token", None)
        compressing.insert_block(_packed("last"), "next", None)
    assert _users(sink) == ["last", *users]


def test_packed_columns_fit_columns_of_other_types(
    engine: EmbeddedClickHouse, sink: ClickHouseSink
) -> None:
    sink.execute(f"DROP TABLE {sink.table}")
    sink.execute(
        f"CREATE TABLE {sink.table} (timestamp Nullable(DateTime), app_id LowCardinality(String), "
        "event_name Nullable(String), user_id LowCardinality(Nullable(String)), properties String, "
        "at DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY app_id"
    )
    packed = _packed("u1", "u2")
    sink.insert_block(packed, None, None)
    assert sink.select(
        f"SELECT toUnixTimestamp(timestamp), app_id, event_name, user_id, properties "
        f"FROM {sink.table}"
    ).rows == [(packed[0][0], "app", "e", user, "{}") for user in ("u1", "u2")]


@pytest.mark.parametrize(
    "kind", ["Bool", "FixedString(4)", "UInt64", "Enum8('1' = 1)", "DateTime", "UUID", "JSON"]
)
def test_rows_wait_while_column_has_another_type(sink: ClickHouseSink, kind: str) -> None:
    sink.insert_block(_packed("1"), "token", None)
    sink.execute(f"TRUNCATE TABLE {sink.table}")
    sink.execute(f"ALTER TABLE {sink.table} MODIFY COLUMN user_id {kind}")
    for rows in (_packed("1"), _batch("1")):
        with pytest.raises(NeedsOperator, match=r"has user_id as .*, not as String"):
            sink.insert_block(rows, "next", None)
    sink.execute(f"ALTER TABLE {sink.table} MODIFY COLUMN user_id String")
    sink.insert_block(_packed("1"), "next", None)
    assert _users(sink) == ["1"]


def test_packed_seconds_fit_datetime_of_other_zone(
    engine: EmbeddedClickHouse, sink: ClickHouseSink
) -> None:
    sink.execute(f"ALTER TABLE {sink.table} MODIFY COLUMN timestamp DateTime('Asia/Tokyo')")
    packed = _packed("u1")
    sink.insert_block(packed, None, None)
    found = sink.select(f"SELECT toUnixTimestamp(timestamp) FROM {sink.table}").rows
    assert found == [(packed[0][0],)]


def test_equal_rows_without_token_are_both_inserted(sink: ClickHouseSink) -> None:
    batch = _batch("a")
    for _ in range(2):
        sink.insert_block(batch, None, None)
    assert _users(sink) == ["a", "a"]


def test_insert_fails_over_to_next_server(engine: EmbeddedClickHouse, sink: ClickHouseSink) -> None:
    listed = ClickHouseSettings(host=f"127.0.0.1:1,{engine.host}:{engine.tcp_port}")
    with ClickHouseSink(listed, client_name="tests") as failing_over:
        failing_over.insert_block(_batch("a"), "token", None)
    assert _users(sink) == ["a"]
