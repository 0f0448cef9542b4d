"""Several real servers as shards: identities, wrong lists, failover, and pending batches of workers."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.errors import ConfigError, NeedsOperator, Unavailable
from octane_analytics.interfaces import BlockSink
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from octane_analytics.types import Committed
from octane_analytics.worker.preflight import check_shards, check_table
from tests.fakes.clickhouse import FakeShards
from tests.support import replicated_clickhouse
from tests.support.ingest_rig import P0, Rig, Worker, batch, names

TABLE = "ai_analytics_events"
BARE = User("bare", grants=[f"GRANT SELECT, INSERT ON default.{TABLE}"])
ROWS: list[list[object]] = [[int(time.time())], ["app"], ["e"], ["u"], ["{}"]]
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EmbeddedClickHouse]]:
    """Servers of the shards `a`, `b` and `c`, another one of `a`, and one without a macro."""
    pytest.importorskip("chdb", reason="pip install 'octane-analytics[embedded]'")
    directory: Path = tmp_path_factory.mktemp("shards")
    macros = {name: {"shard": name} for name in NAMES} | {"a2": {"shard": "a"}, "bare": {}}
    found = {
        name: EmbeddedClickHouse(
            directory / name, macros=own, users=[BARE], max_memory_bytes=1 << 30
        )
        for name, own in macros.items()
    }
    for server in found.values():
        server.start()
    yield found
    for server in found.values():
        server.stop()


class Servers:
    def __init__(self, engines: dict[str, EmbeddedClickHouse]) -> None:
        self.engines = engines
        self.opened: list[ClickHouseShards] = []

    def settings(self, *shards: str, user: str = "default") -> ClickHouseSettings:
        """Return the settings for shards; a shard is a name, or names of replicas with commas."""
        hosts = (
            ",".join(f"127.0.0.1:{self.engines[name].tcp_port}" for name in shard.split(","))
            for shard in shards
        )
        return ClickHouseSettings(
            host=";".join(hosts), cluster="cluster", user=user, timeout_seconds=5.0
        )

    def shards(self, *shards: str, user: str = "default", first: int = 0) -> ClickHouseShards:
        found = ClickHouseShards(
            self.settings(*shards, user=user), client_name="tests", first=first
        )
        self.opened.append(found)
        return found

    def each(self) -> Iterator[ClickHouse]:
        for name in self.engines:
            with ClickHouse(self.settings(name), client_name="tests") as connection:
                yield connection

    def execute(self, statement: str) -> None:
        for connection in self.each():
            connection.execute(statement)

    def users(self) -> list[list[str]]:
        """Return the user ids of each server's rows."""
        query = f"SELECT user_id FROM {TABLE} ORDER BY user_id"
        return [[user for (user,) in connection.select(query).rows] for connection in self.each()]


@pytest.fixture
def servers(engines: dict[str, EmbeddedClickHouse]) -> Iterator[Servers]:
    """Servers with empty tables, which keep rows of any age."""
    found = Servers(engines)
    statement = schema.create_table(schema.TableName("default", TABLE))
    found.execute(statement.replace(f"TTL {schema.TTL}", ""))
    yield found
    for shards in found.opened:
        shards.close()
    for engine in engines.values():
        if engine.pid is None:
            engine.start()
    found.execute(f"DROP TABLE IF EXISTS {TABLE} SYNC")


def test_shards_with_equal_macros_are_refused(servers: Servers) -> None:
    shards = servers.shards("a", "a2")
    assert shards.choose() == "a", "the other one is not known yet"
    with pytest.raises(NeedsOperator, match="both state that they are shard 'a'"):
        shards.choose()
    with pytest.raises(NeedsOperator, match="a `shard` macro of its own"):
        shards.sink("a")
    with pytest.raises(NeedsOperator, match="both state"):
        servers.shards("a", "a2").require_identities()


def test_shard_without_identity_is_refused(servers: Servers) -> None:
    with pytest.raises(NeedsOperator, match=r"shard 2 of CLICKHOUSE_HOST .* has no identity"):
        servers.shards("a", "bare").require_identities()
    assert servers.shards("bare").choose() == ""


def test_missing_right_for_identity_is_named(servers: Servers) -> None:
    with pytest.raises(NeedsOperator, match=r"GRANT SELECT ON system\.macros TO bare"):
        servers.shards("a", "b", user="bare").choose()


def test_replica_of_another_shard_is_refused(servers: Servers) -> None:
    shards = servers.shards("a,b")
    sink = shards.sink("a")
    servers.engines["a"].kill()
    with pytest.raises(NeedsOperator, match=r"is of shard 'b', but .* replica of shard 'a'"):
        sink.insert_block(ROWS, "t", "t")
    with pytest.raises(Unavailable):
        sink.insert_block(ROWS, "t", "t")
    servers.engines["a"].start()
    sink.insert_block(ROWS, "t", "t")
    assert servers.users() == [["u"], [], [], [], []]


def test_insert_does_not_wait_for_other_shards(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.engines["b"].kill()
    shards = servers.shards("a", "b")
    assert [shards.choose(), shards.choose()] == ["a", "a"]
    asked = []
    monkeypatch.setattr(shards._sinks[1], "identity", lambda: asked.append("b"))
    for token in ("t1", "t2"):
        shards.sink(shards.choose()).insert_block(ROWS, token, token)
    assert asked == []


def test_connection_returns_to_preferred_replica(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = servers.shards("a,a2")
    sink = shards.sink("a")
    servers.engines["a"].kill()
    sink.insert_block(ROWS, "t", "t")
    servers.engines["a"].start()
    clock = time.monotonic()
    monkeypatch.setattr(sink._failover, "_now", lambda: clock)
    shards.choose()
    sink.insert_block(ROWS, "t2", "t2")
    clock += 61.0
    shards.choose()
    sink.insert_block(ROWS, "t3", "t3")
    assert servers.users() == [["u"], [], [], ["u", "u"], []]


def test_insert_leaves_replica_without_table(servers: Servers) -> None:
    sink = servers.shards("a,a2").sink("a")
    with ClickHouse(servers.settings("a"), client_name="tests") as first:
        first.execute(f"RENAME TABLE {TABLE} TO hidden")
    with pytest.raises(NeedsOperator):
        sink.insert_block(ROWS, "t", "t")
    sink.insert_block(ROWS, "t", "t")
    with ClickHouse(servers.settings("a"), client_name="tests") as first:
        first.execute(f"RENAME TABLE hidden TO {TABLE}")
    assert servers.users() == [[], [], [], ["u"], []]


def test_slow_insert_moves_to_next_replica(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = servers.shards("a,a2").sink("a")
    monkeypatch.setattr("octane_analytics.clickhouse.shard_sink._SLOW_INSERT_SECONDS", -1.0)
    for token in ("t1", "t2"):
        sink.insert_block(ROWS, token, token)
    assert servers.users() == [["u"], [], [], ["u"], []]


def test_preflight_checks_table_of_each_shard(servers: Servers) -> None:
    checked = replace(load({}).settings, clickhouse=servers.settings("a", "b"))
    check_shards(checked)
    with ClickHouse(servers.settings("b"), client_name="tests") as second:
        second.execute(f"DROP TABLE {TABLE}")
    with pytest.raises(NeedsOperator, match="does not exist"):
        check_shards(checked)
    shards = ClickHouseShards(
        checked.clickhouse,
        client_name="tests",
        check=lambda sink, own: check_table(sink, replace(checked, clickhouse=own)),
    )
    with shards:
        assert [shards.choose() for _ in range(3)] == ["a", "a", "a"]


def test_preflight_accepts_unreachable_shard(servers: Servers) -> None:
    checked = replace(load({}).settings, clickhouse=servers.settings("a", "b"))
    servers.engines["b"].kill()
    check_shards(checked)
    servers.engines["a"].kill()
    with pytest.raises(Unavailable):
        check_shards(checked)


def test_preflight_refuses_quorum_of_plain_table(servers: Servers) -> None:
    quorum = replace(servers.settings("a"), insert_quorum=2)
    with pytest.raises(ConfigError, match=r"INSERT_QUORUM is 2, but .* is a MergeTree"):
        check_shards(replace(load({}).settings, clickhouse=quorum))


def test_equal_rows_are_counted_in_all_shards(servers: Servers) -> None:
    for name in ("a", "b"):
        servers.shards(name).sink(name).insert_block(ROWS, name, name)
    assert servers.shards("a", "b").count_equal(ROWS) == [2]


class DyingSink:
    """Sink of a worker that dies at its first insert, before or after the server has the rows."""

    def __init__(self, sink: BlockSink, *, is_inserted: bool) -> None:
        self._sink = sink
        self._is_inserted = is_inserted

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> None:
        if self._is_inserted:
            self._sink.insert_block(columns, token, query_id)
        raise Unavailable("the worker dies")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


class Cluster:
    """Workers over an in-memory broker and the real shards."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.rig = Rig(size=4)

    def worker(self, *listed: str) -> Worker:
        return self.rig.worker(shards=self.servers.shards(*listed))

    def crash_after_announcing(self, *, is_inserted: bool) -> None:
        """Leave a batch of four records pending for shard `a`, and more records after it."""
        sinks = {
            name: DyingSink(self.servers.shards(name).sink(name), is_inserted=is_inserted)
            for name in ("a", "b")
        }
        dead = self.rig.worker(shards=FakeShards(sinks))
        dead.turn(2)
        self.rig.produce(0, 4)
        dead.turn(2)
        pending = batch((0, 0, 4)).on_shard("a")
        assert self.rig.broker.committed[P0] == Committed(0, pending.metadata())
        self.rig.broker.expire(dead.source)
        self.rig.produce(4, 12)

    def totals(self) -> tuple[int, int]:
        """Return the number of rows and of distinct users over all servers."""
        users = list(itertools.chain.from_iterable(self.servers.users()))
        return len(users), len(set(users))


@pytest.mark.parametrize("is_inserted", [True, False])
@pytest.mark.parametrize("listed", [["b", "a"], ["c", "b", "a"], ["a"]])
def test_pending_batch_stays_in_its_shard(
    servers: Servers, listed: Sequence[str], is_inserted: bool
) -> None:
    cluster = Cluster(servers)
    cluster.crash_after_announcing(is_inserted=is_inserted)
    cluster.rig.settle(cluster.worker(*listed))
    assert set(names(0, 4)) <= set(servers.users()[0])
    assert cluster.totals() == (12, 12)


def test_pending_batch_follows_renamed_server(servers: Servers) -> None:
    cluster = Cluster(servers)
    cluster.crash_after_announcing(is_inserted=False)
    cluster.rig.settle(cluster.worker("b", "c", "a2"))
    assert set(names(0, 4)) <= set(servers.users()[3])
    assert cluster.totals() == (12, 12)


@pytest.mark.parametrize("is_inserted", [True, False])
def test_batch_of_removed_shard_waits_for_it(servers: Servers, is_inserted: bool) -> None:
    cluster = Cluster(servers)
    cluster.crash_after_announcing(is_inserted=is_inserted)
    before = servers.users()
    waiting = cluster.worker("c", "b")
    for _ in range(20):
        waiting.turn()
        cluster.rig.clock.sleep(0.5)
    assert waiting.observer.details("recovery_waits")
    assert servers.users() == before
    cluster.rig.broker.expire(waiting.source)
    cluster.rig.settle(cluster.worker("c", "b", "a"))
    assert cluster.totals() == (12, 12)


def test_batch_waits_for_shard_that_is_down(servers: Servers) -> None:
    cluster = Cluster(servers)
    cluster.crash_after_announcing(is_inserted=False)
    servers.engines["a"].kill()
    worker = cluster.worker("b", "a")
    for _ in range(10):
        worker.turn()
        cluster.rig.clock.sleep(0.5)
    servers.engines["a"].start()
    cluster.rig.settle(worker)
    assert set(names(0, 4)) <= set(servers.users()[0])
    assert cluster.totals() == (12, 12)


def test_path_in_keeper_is_the_identity_without_macro(tmp_path: Path) -> None:
    with replicated_clickhouse.started(tmp_path, BARE) as server:
        settings = ClickHouseSettings(
            host=server.host, port=server.tcp_port, cluster="cluster", timeout_seconds=4.0
        )
        with (
            ClickHouseShards(settings, client_name="tests") as shards,
            ClickHouse(settings, client_name="tests") as connection,
        ):
            create = replicated_clickhouse.create_replicated(connection.table, path="shard 1/e")
            connection.execute(create)
            assert shards.choose() == "/tables/shard 1/e"
            shards.sink("/tables/shard 1/e").insert_block(ROWS, "t", "t")
            for wanted in (2, 1):
                quorum = replace(settings, insert_quorum=wanted)
                with ClickHouseShards(quorum, client_name="tests") as strict:
                    sink = strict.sink("/tables/shard 1/e")
                    if wanted == 1:
                        sink.insert_block(ROWS, "t2", "t2")
                        assert sink.missing_rows(ROWS) == []
                        continue
                    with pytest.raises(Unavailable, match="285"):
                        sink.insert_block(ROWS, "t2", "t2")
                    with pytest.raises(Unavailable, match="CLICKHOUSE_INSERT_QUORUM is 2"):
                        sink.missing_rows(ROWS)
