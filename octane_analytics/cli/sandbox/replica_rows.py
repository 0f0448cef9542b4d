"""Rows of each replica of each shard."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority

_CLIENT_NAME = "octane-analytics-sandbox"


@dataclass(frozen=True, slots=True)
class ShardRows:
    number: int
    rows: Mapping[str, int]
    """Rows by server."""

    @property
    def are_equal(self) -> bool:
        return len(set(self.rows.values())) == 1

    def __str__(self) -> str:
        if self.are_equal:
            servers = len(self.rows)
            replicas = f" on each of {servers} replicas" if servers > 1 else ""
            return f"shard {self.number}: {next(iter(self.rows.values())):,} rows{replicas}"
        differing = ", ".join(f"{server} has {rows:,}" for server, rows in self.rows.items())
        return f"shard {self.number}: its replicas differ: {differing}"


def count_rows(settings: ClickHouseSettings) -> list[ShardRows]:
    """Return the rows of every server, of replicas after they were synchronised.

    Queries each server: blocks, raises Unavailable if one does not answer.
    """
    return [
        ShardRows(
            shard.number,
            {
                where: _count(replace(settings, host=where), is_replica=len(shard.hosts) > 1)
                for where in (authority(*host) for host in shard.hosts)
            },
        )
        for shard in settings.topology().shards
    ]


def _count(settings: ClickHouseSettings, *, is_replica: bool) -> int:
    with ClickHouse(settings, client_name=_CLIENT_NAME) as server:
        if is_replica:
            server.execute(f"SYSTEM SYNC REPLICA {server.table} LIGHTWEIGHT")
        rows = server.select(
            "SELECT count() FROM {database:Identifier}.{table:Identifier}",
            {"database": server.table.database, "table": server.table.table},
        ).rows
        return int(rows[0][0])
