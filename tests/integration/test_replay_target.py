"""Replay into any table that a worker accepts: Nullable, LowCardinality, another time zone."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octane_analytics.cli.replay.setup import check_target
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.clickhouse.replay_target import ServerTarget
from octane_analytics.errors import ConfigError
from octane_analytics.pipeline.repeated_insert import insert_repeated
from octane_analytics.replay.interfaces import Staged
from octane_analytics.replay.plan import Mode
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from octane_analytics.worker.preflight import check_table

COLUMNS = (
    "timestamp Nullable(DateTime('Asia/Tokyo')), app_id LowCardinality(String), "
    "event_name LowCardinality(Nullable(String)), user_id Nullable(String), properties String"
)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[ClickHouseSink]:
    with EmbeddedClickHouse(tmp_path) as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouseSink(settings, client_name="tests") as connected:
            connected.execute(
                f"CREATE TABLE {connected.table} ({COLUMNS}) ENGINE = MergeTree ORDER BY app_id "
                "SETTINGS non_replicated_deduplication_window = 100"
            )
            yield connected


def _columns(at: int, *users: str) -> list[list[object]]:
    rows = len(users)
    return [[at] * rows, ["app"] * rows, ["e"] * rows, list(users), ["{}"] * rows]


@pytest.mark.parametrize("mode", [Mode.FILL, Mode.APPEND])
def test_replay_fills_any_target_a_worker_accepts(sink: ClickHouseSink, mode: Mode) -> None:
    settings = load({}).settings
    check_table(sink, replace(settings, clickhouse=ClickHouseSettings()))
    live = check_target(sink, mode)
    now = int(time.time())
    sink.insert_block(_columns(now, "a", "b"), None, None)
    sink.execute(f"INSERT INTO {sink.table} (app_id) VALUES ('a row of NULLs')")
    staging = ReplayStaging(sink, "id", live)
    staging.create("owner")
    users = ("a", "b", "b", "c")
    staged = Staged(partitions=[0] * 4, offsets=[0, 1, 2, 3], is_wanted=[1] * 4)
    for column, values in zip(staged.columns, _columns(now, *users), strict=True):
        column.extend(v if isinstance(v, int) else str(v).encode() for v in values)
    staging.stage(staged)
    (part,) = staging.slices()
    staging.find_missing(1, part, None, None)
    assert staging.missing_rows(1) == 2
    (chunk,) = staging.chunks(1)
    staging.insert(staging.rows(chunk), "token", "query")
    found = sink.select(f"SELECT user_id FROM {sink.table} WHERE app_id = 'app' ORDER BY 1").rows
    assert [user for (user,) in found] == sorted(users)
    staging.find_missing(2, part, None, None)
    assert staging.missing_rows(2) == 0
    staging.drop()


class FakeShardedTarget(ServerTarget):
    """Target that takes turns between shards, and records which one is used."""

    is_sharded = True

    def __init__(self, sink: ClickHouseSink, *shards: str) -> None:
        super().__init__(sink, is_replicated=False)
        self.turns = itertools.cycle(shards)
        self.used: list[str] = []

    def choose(self) -> str:
        return next(self.turns)

    def use(self, shard: str) -> None:
        self.used.append(shard)


def test_chunk_keeps_its_shard_after_a_crash(sink: ClickHouseSink) -> None:
    live = check_target(sink, Mode.FILL)
    target = FakeShardedTarget(sink, "a", "b é")
    staging = ReplayStaging(sink, "id", live, target)
    staging.create("owner")
    for chunk in ("1/0/0/9", "1/0/10/19", "1/0/10/19", "1/0/0/9"):
        staging.place(chunk)
    assert target.used == ["a", "b é", "b é", "a"]
    resumed = FakeShardedTarget(sink, "c")
    staging = ReplayStaging(sink, "id", live, resumed)
    for chunk in ("1/0/10/19", "2/0/0/5", "1/0/0/9"):
        staging.place(chunk)
    assert resumed.used == ["b é", "c", "a"]
    staging.drop()


def test_rebuild_of_other_types_names_the_alternative(sink: ClickHouseSink) -> None:
    with pytest.raises(ConfigError, match=r"app_id as LowCardinality.*--mode fill"):
        check_target(sink, Mode.REBUILD)


def test_repeated_insert_searches_for_its_rows(sink: ClickHouseSink) -> None:
    now = int(time.time())
    sink.insert_block(_columns(now, "a", "b"), "token", None)
    sink.execute(f"ALTER TABLE {sink.table} DELETE WHERE user_id = 'b' SETTINGS mutations_sync = 1")
    for _ in range(2):
        insert_repeated(sink, _columns(now, "a", "b"), "token")
        found = sink.select(f"SELECT user_id FROM {sink.table} ORDER BY 1").rows
        assert found == [("a",), ("b",)]


def test_repeated_insert_counts_equal_rows(sink: ClickHouseSink) -> None:
    now = int(time.time())
    sink.insert_block(_columns(now, "b", "b"), "token", None)
    sink.execute(f"ALTER TABLE {sink.table} DELETE WHERE 1 SETTINGS mutations_sync = 1")
    sink.insert_block(_columns(now, "b"), "one of them", None)
    for _ in range(2):
        insert_repeated(sink, _columns(now, "b", "b"), "token")
        assert sink.select(f"SELECT count() FROM {sink.table}").rows == [(2,)]
