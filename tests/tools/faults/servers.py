"""ClickHouse servers of a fault run: shards of one server, or of replicas with one ZooKeeper.

Proxies stand before the first server, before the parts that a replica serves to others, and before
ZooKeeper.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from clickhouse_driver import Client
from clickhouse_driver.errors import Error, ServerException

from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.engine import HOST
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster, Node
from tests.tools.faults.proxy import Proxy

GROWN = "grown"
"""Name of the cluster that has the spare shard too."""
_ANSWER_SECONDS = 180.0
"""Exceeds the time for which a replica that was killed may be read-only on a busy machine."""


@dataclass(frozen=True)
class ReplicaLinks:
    """Connections of one replica that can be cut."""

    node: Node
    parts: Proxy
    """Connections of others that fetch its parts."""
    zookeeper: Proxy


class Servers:
    """Start and stop from the main thread. With replicas, there is one shard more: a spare one, for
    tables that grow."""

    def __init__(self, directory: Path, *, shards: int = 1, replicas: int = 1) -> None:
        self.usual = list(range(shards))
        """Numbers of the shards that a new table has, from 0."""
        self.cluster: ClickHouseCluster | None = None
        self.links: list[ReplicaLinks] = []
        self.shards: list[list[EmbeddedClickHouse]] = []
        """Servers of each shard, the preferred one first."""
        if replicas == 1:
            for number in range(1, shards + 1):
                server = EmbeddedClickHouse(
                    directory / f"clickhouse-{number}", macros={"shard": str(number)}
                )
                self.shards.append([server])
        else:
            self.cluster = ClickHouseCluster(
                directory,
                shards=shards,
                replicas=replicas,
                spare_shards=1,
                clusters={GROWN: range(shards + 1)},
            )
            self.links = [_linked(node, self.cluster) for node in self.cluster.nodes]
            self.shards = [list(shard) for shard in self.cluster.shards]
        self.proxy = Proxy(lambda: self.shards[0][0].tcp_port)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for link in self.links:
                stack.enter_context(link.parts)
                stack.enter_context(link.zookeeper)
            if self.cluster is not None:
                stack.enter_context(self.cluster)
            else:
                for server in self.all:
                    stack.enter_context(server)
            stack.enter_context(self.proxy)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def all(self) -> list[EmbeddedClickHouse]:
        """Servers of all shards, spare ones included."""
        return [server for shard in self.shards for server in shard]

    def heal(self) -> None:
        """Undo the faults that a scenario left."""
        self.proxy.heal()
        for link in self.links:
            link.parts.heal()
            link.zookeeper.heal()
        if self.cluster is not None:
            if self.cluster.zookeeper.pid is None:
                self.cluster.zookeeper.start()
            self.cluster.zookeeper.resume()
        for server in self.all:
            if server.pid is None:
                server.start()
            server.resume()

    def hosts(self, shards: Iterable[int], *, is_direct: bool = False) -> str:
        """Return CLICKHOUSE_HOST for shards numbered from 0; the first server is behind the proxy unless
        `is_direct`."""
        first = self.shards[0][0]
        return ";".join(
            ",".join(
                f"{HOST}:{self.proxy.port if server is first and not is_direct else server.tcp_port}"
                for server in self.shards[number]
            )
            for number in shards
        )

    def cluster_name(self, shards: Sequence[int]) -> str | None:
        """Return CLICKHOUSE_CLUSTER for these shards; None for a table on one server."""
        if len(self.all) == 1:
            return None
        return GROWN if len(shards) > len(self.usual) else CLUSTER

    def ports(self, shards: Iterable[int]) -> list[int]:
        """Return the native port of one server of each shard, one that runs if there is any."""
        found = []
        for number in shards:
            shard = self.shards[number]
            running = [server for server in shard if server.pid is not None]
            found.append((running or shard)[0].tcp_port)
        return found

    def execute(self, statement: str, shards: Iterable[int]) -> None:
        """Run a statement on every server of the shards, not through the proxy. Repeated while a replica
        has no session with ZooKeeper yet."""
        for number in shards:
            for server in self.shards[number]:
                if self.cluster is None:
                    ask(server, statement)
                else:
                    ask_until_answered(server, statement)


def ask(server: EmbeddedClickHouse, statement: str) -> list[tuple[object, ...]]:
    """Return the result of a statement on this server."""
    with Client(HOST, server.tcp_port, connect_timeout=5, send_receive_timeout=60) as client:
        found: list[tuple[object, ...]] = client.execute(statement)
        return found


def ask_until_answered(
    server: EmbeddedClickHouse, statement: str, seconds: float = _ANSWER_SECONDS
) -> list[tuple[object, ...]]:
    """Return the same as `ask`; repeat the statement while it fails, for some time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask(server, statement)
        except (Error, ServerException, OSError, EOFError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def _linked(node: Node, cluster: ClickHouseCluster) -> ReplicaLinks:
    """Return proxies for the connections of a replica, which it uses from its next start on."""
    parts = Proxy(_port_of_parts(node))
    zookeeper = Proxy(lambda: cluster.zookeeper.port)
    node.announced_port, node.zookeeper_port = parts.port, zookeeper.port
    return ReplicaLinks(node, parts, zookeeper)


def _port_of_parts(node: Node) -> Callable[[], int]:
    return lambda: node.exchange_port
