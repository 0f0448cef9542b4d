"""Ledgers with all rollups in several shards, each a server of its own, read as one Distributed table.

Slices of time take turns among the shards, as the batches of workers do. The servers end with the run.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.rollups import SETS
from octane_analytics.sandbox.engine import EngineError
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.bench.reports import ledgers, rollups
from tests.tools.bench.reports.ledger_events import Ledger
from tests.tools.bench.reports.ledgers import Built
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster, Node

SHARDED = "sharded"
_SLICES_OF_A_SHARD = 10


class ShardedLedgers:
    """Tables on the servers of a cluster. Not thread-safe."""

    def __init__(self, cluster: ClickHouseCluster, of_one_server: ledgers.Ledgers) -> None:
        self._cluster = cluster
        self._of_one_server = of_one_server

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self._cluster.nodes

    def settings(self, table: str) -> ClickHouseSettings:
        """Return the settings of the first server, which reads the others' shards."""
        return _settings(self.nodes[0], table)

    def build(self, events: int) -> Built:
        """Return the Distributed table over shards with these events; block while they are built."""
        began = time.monotonic()
        table, rows, size, parts = f"{SHARDED}_{events}", 0, 0, 0
        ledger = self._of_one_server.ledger(events)
        for number, node in enumerate(self.nodes):
            with ClickHouse(_settings(node, table), client_name="bench") as clickhouse:
                ledgers.create(clickhouse, is_merged=True)
                self._fill(clickhouse, ledger, number)
                ledgers.merge(clickhouse)
                rollups.apply(_settings(node, table), ",".join(SETS))
                of_all = schema.TableName(clickhouse.table.database, f"{table}_all")
                create = schema.create_distributed_table(of_all, clickhouse.table, CLUSTER)
                clickhouse.execute(create)
                found = ledgers.sizes(clickhouse)
                rows, size, parts = rows + found[0], size + found[1], parts + found[2]
        seconds = time.monotonic() - began
        return Built(f"{table}_all", SHARDED, events, 1, rows, size, parts, seconds, SETS)

    def _fill(self, clickhouse: ClickHouse, ledger: Ledger, number: int) -> None:
        shards = len(self.nodes)
        step = max(ledger.sessions // (_SLICES_OF_A_SHARD * shards), 1)
        ledgers.fill(clickhouse, ledger, range(0, ledger.sessions, step)[number::shards], step)


@contextmanager
def sharded(
    directory: Path, of_one_server: ledgers.Ledgers, shards: int
) -> Iterator[ShardedLedgers]:
    """Context of that many servers, in the directory."""
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(
                ClickHouseCluster(directory, shards=shards, replicas=1, is_replicated=False)
            )
        except EngineError as error:
            raise click.ClickException(str(error)) from error
        yield ShardedLedgers(cluster, of_one_server)


def _settings(node: Node, table: str) -> ClickHouseSettings:
    return ClickHouseSettings(
        host=node.host, port=node.tcp_port, table=table, timeout_seconds=ledgers.TIMEOUT_SECONDS
    )
