"""What an insert promises of a real server: once under its token, and on a server of the list.

Also where the token log speaks of a part that the table does not have: that is what a `kill -9` between
the two leaves behind; here the part's directory is taken away.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from octane_analytics import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.sections import ClickHouseSettings

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


def _joined(*batches: Columns) -> Columns:
    return tuple(
        [value for column in columns for value in column] for columns in zip(*batches, strict=True)
    )


def _users(sink: ClickHouseSink) -> list[str]:
    return [user for (user,) in sink.select(f"SELECT user_id FROM {sink.table} ORDER BY 1").rows]


def _lose_part(engine: EmbeddedClickHouse, directory: Path, partition: str) -> None:
    """Kills the server and takes the newest part of this month from it, but not its token."""
    engine.kill()
    parts = sorted(
        directory.glob(f"**/store/*/*/{partition}_*"),
        key=lambda path: int(path.name.split("_")[1]),  # partition, first block, last block, level
    )
    assert parts, "there is a part to lose"
    shutil.rmtree(parts[-1])
    engine.start()


def test_repeated_insert_brings_back_what_the_token_log_alone_has(
    engine: EmbeddedClickHouse, sink: ClickHouseSink, tmp_path: Path
) -> None:
    batch = _batch("a", "b", "b")
    # Parts have to stay apart, for one of them to be lost.
    sink.execute(f"SYSTEM STOP MERGES {sink.table}")
    sink.insert(_batch("before"), "token-1")
    sink.insert(batch, "token-2")
    month = sink.select("SELECT toString(toYYYYMM(now()))").rows[0][0]
    _lose_part(engine, tmp_path, month)
    assert _users(sink) == ["before"]
    sink.insert(batch, "token-2")
    assert _users(sink) == ["before"], "the server takes the token's word for it"
    for _ in range(3):
        sink.insert(batch, "token-2", is_repeat=True)
        assert _users(sink) == ["a", "b", "b", "before"]


def test_repeated_insert_brings_back_the_missing_month_only(
    engine: EmbeddedClickHouse, sink: ClickHouseSink, tmp_path: Path
) -> None:
    batch = _joined(_batch("old", seconds_ago=MONTH_SECONDS), _batch("new"))
    sink.insert(batch, "token")
    month = sink.select("SELECT toString(toYYYYMM(now()))").rows[0][0]
    _lose_part(engine, tmp_path, month)
    assert _users(sink) == ["old"]
    for _ in range(2):
        sink.insert(batch, "token", is_repeat=True)
        assert _users(sink) == ["new", "old"]


def test_repeated_insert_of_what_is_there_inserts_nothing(sink: ClickHouseSink) -> None:
    batch = _batch("a", "b", "b")
    for is_repeat in (False, True, True):
        sink.insert(batch, "token", is_repeat=is_repeat)
        assert _users(sink) == ["a", "b", "b"]


def test_repeated_insert_does_not_look_for_rows_that_the_ttl_takes(sink: ClickHouseSink) -> None:
    batch = _batch("gone", seconds_ago=100 * 86_400)
    for _ in range(2):
        sink.insert(batch, "token", is_repeat=True)
    assert _users(sink) == []


def test_tokens_count_whatever_the_users_profile_says(tmp_path: Path) -> None:
    careless = User("careless", settings={"deduplicate_insert": "disable", "insert_deduplicate": 0})
    with EmbeddedClickHouse(tmp_path, users=[careless]) as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port, user="careless")
        with ClickHouseSink(settings, client_name="tests") as sink:
            sink.execute(schema.create_table(sink.table))
            for _ in range(2):
                sink.insert(_batch("a"), "token")
            assert _users(sink) == ["a"]


def test_equal_rows_without_a_token_are_both_inserted(sink: ClickHouseSink) -> None:
    batch = _batch("a")
    for _ in range(2):
        sink.insert(batch, None)
    assert _users(sink) == ["a", "a"]


def test_insert_goes_on_with_the_next_server_of_the_list(
    engine: EmbeddedClickHouse, sink: ClickHouseSink
) -> None:
    listed = ClickHouseSettings(host=f"127.0.0.1:1,{engine.host}:{engine.tcp_port}")
    with ClickHouseSink(listed, client_name="tests") as failing_over:
        failing_over.insert(_batch("a"), "token")
    assert _users(sink) == ["a"]
