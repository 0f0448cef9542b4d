"""Contract of Shards, for the fake and for real ClickHouse servers."""

import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.interfaces import Shards
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.fakes.clickhouse import FakeClickHouse, FakeShards, FakeSink
from tests.fakes.clock import FakeClock

NAMES = ("a", "b")
ROWS: list[list[object]] = [[1_790_000_000], ["app"], ["e"], ["u"], ["{}"]]


class Bench(Protocol):
    """Empty tables in the shards `a` and `b`."""

    def listed(self, *names: str) -> Shards:
        """Return the shards of a worker whose settings list these; a single "" is the only one."""
        ...

    def counts(self) -> list[int]: ...
    def stop(self, name: str) -> None: ...
    def start(self, name: str) -> None: ...
    def close(self) -> None: ...


class FakeBench:
    def __init__(self) -> None:
        clock = FakeClock()
        self._tables = {name: FakeClickHouse(clock) for name in ("", *NAMES)}
        self._stopped: set[str] = set()

    def listed(self, *names: str) -> FakeShards:
        shards = FakeShards({name: FakeSink(self._tables[name]) for name in names})
        shards.unreachable = self._stopped
        return shards

    def counts(self) -> list[int]:
        return [len(self._tables[name].rows) for name in NAMES]

    def stop(self, name: str) -> None:
        self._stopped.add(name)

    def start(self, name: str) -> None:
        self._stopped.discard(name)

    def close(self) -> None:
        pass


class ClickHouseBench:
    def __init__(self, servers: dict[str, EmbeddedClickHouse]) -> None:
        self._servers = servers
        self._settings = ClickHouseSettings(
            table=f"events_{uuid.uuid4().hex[:8]}", timeout_seconds=10.0
        )
        self._opened: list[ClickHouseShards] = []
        self._stopped: set[str] = set()
        table = schema.TableName(self._settings.database, self._settings.table)
        self._execute(schema.create_table(table))

    def _host(self, name: str) -> str:
        server = self._servers[name or "a"]
        return f"{server.host}:{server.tcp_port}"

    def _each(self) -> Iterator[ClickHouse]:
        for name in NAMES:
            settings = replace(self._settings, host=self._host(name))
            with ClickHouse(settings, client_name="tests") as connection:
                yield connection

    def _execute(self, statement: str) -> None:
        for connection in self._each():
            connection.execute(statement)

    def listed(self, *names: str) -> ClickHouseShards:
        hosts = ";".join(map(self._host, names))
        cluster = None if names == ("",) else "cluster"
        settings = replace(self._settings, host=hosts, cluster=cluster)
        shards = ClickHouseShards(settings, client_name="tests")
        self._opened.append(shards)
        return shards

    def counts(self) -> list[int]:
        query = f"SELECT count() FROM {self._settings.table}"
        return [int(connection.select(query).rows[0][0]) for connection in self._each()]

    def stop(self, name: str) -> None:
        self._servers[name].kill()
        self._stopped.add(name)

    def start(self, name: str) -> None:
        self._servers[name].start()
        self._stopped.discard(name)

    def close(self) -> None:
        for shards in self._opened:
            shards.close()
        for name in sorted(self._stopped):
            self.start(name)
        self._execute(f"DROP TABLE {self._settings.table}")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EmbeddedClickHouse]]:
    if importlib.util.find_spec("chdb") is None and os.environ.get("CI") != "true":
        pytest.skip("pip install 'octane-analytics[embedded]'")
    directory: Path = tmp_path_factory.mktemp("shards")
    found = {
        name: EmbeddedClickHouse(directory / name, macros={"shard": name}, max_memory_bytes=1 << 30)
        for name in NAMES
    }
    for server in found.values():
        server.start()
    yield found
    for server in found.values():
        server.stop()


@pytest.fixture(params=["fake", "clickhouse"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    make: dict[str, Callable[[], Bench]] = {
        "fake": FakeBench,
        "clickhouse": lambda: ClickHouseBench(request.getfixturevalue("servers")),
    }
    made = make[request.param]()
    yield made
    made.close()


def test_batches_take_turns_among_shards(bench: Bench) -> None:
    shards = bench.listed("a", "b")
    assert [shards.choose() for _ in range(4)] == ["a", "b", "a", "b"]


@pytest.mark.parametrize("listed", [("a", "b"), ("b", "a"), ("b",)])
def test_sink_is_found_by_identity(bench: Bench, listed: tuple[str, ...]) -> None:
    bench.listed(*listed).sink("b").insert_block(ROWS, "t", "t")
    assert bench.counts() == [0, 1]


def test_shards_know_their_own_tokens(bench: Bench) -> None:
    shards = bench.listed("a", "b")
    for name in ("a", "b", "a"):
        shards.sink(name).insert_block(ROWS, "t", "t")
    assert bench.counts() == [1, 1]


@pytest.mark.parametrize("listed", [("a",), ("a", "b")])
def test_unlisted_shard_needs_operator(bench: Bench, listed: tuple[str, ...]) -> None:
    with pytest.raises(NeedsOperator, match="'c'"):
        bench.listed(*listed).sink("c")


def test_unnamed_batch_of_several_shards_needs_operator(bench: Bench) -> None:
    with pytest.raises(NeedsOperator):
        bench.listed("a", "b").sink("")


def test_only_shard_needs_no_name(bench: Bench) -> None:
    shards = bench.listed("")
    assert shards.choose() == ""
    shards.sink("").insert_block(ROWS, "t", "t")


def test_unreachable_shard_loses_its_turns(bench: Bench) -> None:
    bench.stop("a")
    shards = bench.listed("a", "b")
    assert [shards.choose() for _ in range(3)] == ["b", "b", "b"]


def test_shard_of_unknown_servers_is_not_given_up(bench: Bench) -> None:
    """While a server is down, nobody knows which shard it is: its batches wait."""
    bench.stop("b")
    shards = bench.listed("a", "b")
    with pytest.raises(Unavailable) as raised:
        shards.sink("b")
    assert not isinstance(raised.value, NeedsOperator)
    bench.start("b")
    shards.sink("b").insert_block(ROWS, "t", "t")
    assert bench.counts() == [0, 1]


def test_batch_waits_while_no_shard_is_reachable(bench: Bench) -> None:
    bench.stop("a")
    bench.stop("b")
    shards = bench.listed("a", "b")
    with pytest.raises(Unavailable):
        shards.choose()
    bench.start("b")
    assert shards.choose() == "b"
