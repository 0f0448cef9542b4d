"""The command of bin/sandbox: `octane-analytics sandbox` with shards and replicas.

Not part of the package: replicas need ZooKeeper, which Maven fetches, and a build of chdb-core that is
changed in memory (see `tests.tools.replica_child`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from octane_analytics.cli.commands import sandbox as package
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.main import exit_with
from octane_analytics.cli.sandbox.servers import (
    CLIENT_NAME,
    Servers,
    SingleServer,
    address_line,
    reader,
    stop_ttl_merges,
)
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.sandbox.clickhouse import User
from octane_analytics.sandbox.engine import EngineError
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority
from tests.tools import replica_child
from tests.tools.cluster import zookeeper
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster
from tests.tools.kafka.jars import KafkaError

PROGRAM = "bin/sandbox"
_FETCH_SECONDS = 900
_MOST_SHARDS, _MOST_REPLICAS = 8, 4


class ClusterServers(Servers):
    """Shards of replicas with one ZooKeeper; a single replica each is a plain table, without it."""

    def __init__(self, directory: Path, *, shards: int, replicas: int) -> None:
        tables = ClickHouseSettings()
        self._user = reader(tables.table, *([tables.distributed_table] if shards > 1 else []))
        self._is_replicated = replicas > 1
        self._cluster = ClickHouseCluster(
            directory / "cluster",
            shards=shards,
            replicas=replicas,
            users=[self._user],
            is_replicated=self._is_replicated,
            keeps_data=True,
        )
        self._exited: set[str] = set()

    @property
    def user(self) -> User:
        return self._user

    @property
    def variables(self) -> Mapping[str, str]:
        return {"CLICKHOUSE_HOST": self._cluster.hosts(), "CLICKHOUSE_CLUSTER": CLUSTER}

    @property
    def addresses(self) -> Sequence[str]:
        return [
            f"{node.name}, pid {node.pid}: {address_line(node)}" for node in self._cluster.nodes
        ]

    def start(self) -> None:
        if self._is_replicated:
            _fetch_zookeeper()
        try:
            self._cluster.start()
        except EngineError as error:
            if replica_child.UNKNOWN_BUILD in str(error):
                raise ConfigError(
                    f"--replicas: {replica_child.UNKNOWN_BUILD}: run bin/setup --fresh"
                ) from error
            raise

    def close(self) -> None:
        self._cluster.close()

    def check(self) -> None:
        """Print a line for each server that has exited; its shard goes on with its other replicas."""
        if self._is_replicated and self._cluster.zookeeper.pid is None:
            raise Unavailable("ZooKeeper exited unexpectedly")
        for number, shard in enumerate(self._cluster.shards, 1):
            exited = [node.name for node in shard if node.pid is None]
            if len(exited) == len(shard):
                raise Unavailable(f"every server of shard {number} exited: {', '.join(exited)}")
            for name in sorted(set(exited) - self._exited):
                click.echo(f"{name} exited; shard {number} goes on without it", err=True)
                self._exited.add(name)

    def create_tables(
        self, settings: ClickHouseSettings, run: Callable[[str, Sequence[str]], None]
    ) -> None:
        run("schema", ["schema", "apply", *(["--replicated"] if self._is_replicated else [])])
        for host in settings.hosts():
            with ClickHouse(
                replace(settings, host=authority(*host)), client_name=CLIENT_NAME
            ) as server:
                stop_ttl_merges(server)


def _fetch_zookeeper() -> None:
    if reason := zookeeper.available():
        raise ConfigError(f"--replicas needs Java and Maven, for ZooKeeper: {reason}")
    try:
        zookeeper.fetch(_FETCH_SECONDS)
    except KafkaError as error:
        raise Unavailable(str(error)) from error


def _run(*, shards: int, replicas: int, **options: Any) -> Exit:
    port = options.pop("clickhouse_port")
    if port and shards * replicas > 1:
        raise click.UsageError("--clickhouse-port is for one server: leave it out")

    def servers_in(directory: Path) -> Servers:
        if shards * replicas == 1:
            return SingleServer(directory, tcp_port=port or 0)
        return ClusterServers(directory, shards=shards, replicas=replicas)

    return package.run(package.Options(**options), servers_in)


_SHARDS = click.Option(
    ["--shards"],
    type=click.IntRange(1, _MOST_SHARDS),
    default=1,
    show_default=True,
    metavar="SHARDS",
    help="Number of ClickHouse shards; from 2 on, reports read a Distributed table.",
)
_REPLICAS = click.Option(
    ["--replicas"],
    type=click.IntRange(1, _MOST_REPLICAS),
    default=1,
    show_default=True,
    metavar="REPLICAS",
    help="Number of replicas of each shard; from 2 on, tables are replicated, which needs Java 17 and "
    "Maven (fetches ZooKeeper once). About 240 MB of memory for each server.",
)
command = Command(
    PROGRAM,
    callback=_run,
    params=[_SHARDS, _REPLICAS, *package.sandbox.params],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Run the whole service on this machine, with embedded ClickHouse and Kafka.

    As `octane-analytics sandbox`, and with --shards and --replicas on a small ClickHouse cluster. There
    each server is listed with its process id: pause it (SIGSTOP) or end it, and watch the service go on
    with the other replicas of its shard. --once counts the events over all shards, and on each replica
    of a shard.

    Ctrl-C or SIGTERM stops everything within seconds.
    """,
)


if __name__ == "__main__":
    exit_with(lambda: command.main(prog_name=PROGRAM, standalone_mode=False), PROGRAM)
