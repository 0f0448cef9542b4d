"""Layouts of a run's table: on one server, on replicas, on shards, and on both.

The servers of the last three are those of one cluster; each run uses as many of them as its layout has,
and the others are idle.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.engine import EngineError
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster
from tests.tools.kafka.jars import KafkaError

PLAIN = "plain"
SHAPES = {
    PLAIN: (1, 1),
    "replicated": (1, 2),
    "sharded": (2, 1),
    "sharded-replicated": (2, 2),
}
"""Shards and replicas of each layout."""


@dataclass(frozen=True)
class Target:
    """Empty table of one run."""

    shards: Sequence[Sequence[ClickHouse]]
    """Connections to the replicas of each shard."""
    pids: Sequence[int]
    is_replicated: bool
    settings: Mapping[str, str]
    """CLICKHOUSE_… of a worker that fills it."""

    @property
    def first(self) -> ClickHouse:
        return self.shards[0][0]

    def rows(self) -> int:
        """Return the rows of all shards, by the replica that workers prefer."""
        return sum(
            int(first.select(f"SELECT count() FROM {first.table}").rows[0][0])
            for first, *_ in self.shards
        )

    def synchronise(self) -> None:
        """Block until every replica has all parts."""
        for shard in self.shards:
            for replica in shard[1:]:
                replica.execute(f"SYSTEM SYNC REPLICA {replica.table} LIGHTWEIGHT")


def start_cluster(
    stack: ExitStack, directory: Path, layouts: Sequence[str]
) -> ClickHouseCluster | None:
    """Start as many servers as the layouts need; None if they need none but the usual one.

    Raises click.ClickException if ZooKeeper is needed and cannot run.
    """
    shapes = [SHAPES[layout] for layout in layouts if layout != PLAIN]
    if not shapes:
        return None
    replicas = max(replicas for _, replicas in shapes)
    cluster = ClickHouseCluster(
        directory / "cluster",
        shards=max(shards for shards, _ in shapes),
        replicas=replicas,
        is_replicated=replicas > 1,
    )
    try:
        return stack.enter_context(cluster)
    except (KafkaError, EngineError) as error:
        raise click.ClickException(f"--layout: {error}") from error


@contextmanager
def single(engine: EmbeddedClickHouse, table: str) -> Iterator[Target]:
    """Yield a table on one server, dropped at the end."""
    settings = {"CLICKHOUSE_HOST": engine.host, "CLICKHOUSE_PORT": str(engine.tcp_port)}
    with _created([[engine]], table, settings, is_replicated=False) as target:
        yield target


@contextmanager
def in_cluster(cluster: ClickHouseCluster, layout: str, table: str) -> Iterator[Target]:
    """Yield a table on as many servers of the cluster as the layout has, dropped at the end."""
    shards, replicas = SHAPES[layout]
    nodes = [shard[:replicas] for shard in cluster.shards[:shards]]
    hosts = ";".join(",".join(node.authority for node in shard) for shard in nodes)
    settings = {"CLICKHOUSE_HOST": hosts, "CLICKHOUSE_CLUSTER": CLUSTER}
    with _created(nodes, table, settings, is_replicated=replicas > 1) as target:
        yield target


@contextmanager
def _created(
    servers: Sequence[Sequence[EmbeddedClickHouse]],
    table: str,
    settings: Mapping[str, str],
    *,
    is_replicated: bool,
) -> Iterator[Target]:
    with ExitStack() as stack:
        shards = [
            [stack.enter_context(_connection(server, table)) for server in shard]
            for shard in servers
        ]
        same = uuid.uuid4()
        for replica in (each for shard in shards for each in shard):
            replica.execute(
                schema.create_replicated_table(replica.table, uuid=same)
                if is_replicated
                else schema.create_table(replica.table)
            )
            stack.callback(replica.execute, f"DROP TABLE {replica.table} SYNC")
        pids = [server.pid for shard in servers for server in shard if server.pid is not None]
        yield Target(shards, pids, is_replicated, settings)


def _connection(server: EmbeddedClickHouse, table: str) -> ClickHouse:
    settings = ClickHouseSettings(host=server.host, port=server.tcp_port, table=table)
    return ClickHouse(settings, client_name="bench")
