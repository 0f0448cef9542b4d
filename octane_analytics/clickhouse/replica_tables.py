"""Comparison of the tables of one shard: replicas of one table, or different ones.

A server may state the right shard and have another table: a plain one, created by hand after the loss of
its disk, or one with another path in ZooKeeper. Rows inserted there would reach no other server.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import StatementRejected

_ACCESS_DENIED = 497
_ENGINE = (
    "SELECT engine FROM system.tables WHERE database = {database:String} AND name = {table:String}"
)
_REPLICA = (
    "SELECT zookeeper_path, replica_name FROM system.replicas "
    "WHERE database = {database:String} AND table = {table:String}"
)
_SERVER = "SELECT toString(serverUUID())"
_NO_UUID = "00000000-0000-0000-0000-000000000000"

Run = Callable[[str, dict[str, object]], Sequence[Sequence[Any]]]
"""Runs a query with parameters and returns its rows."""


class ServerTable(NamedTuple):
    """The table as one server has it."""

    engine: str
    path: str | None = None
    """Path in ZooKeeper, equal in all replicas; None for a plain table, or if it may not be read."""
    replica: str | None = None
    """Name of the replica, different in each."""

    def is_replica_of(self, other: "ServerTable") -> bool:
        """Return False if the two are known to be different tables; two plain ones are not."""
        if schema.is_replicated(self.engine) != schema.is_replicated(other.engine):
            return False
        return self.path == other.path or self.path is None or other.path is None

    def __str__(self) -> str:
        return f"{self.engine} at {self.path}" if self.path else self.engine


def read_table(run: Run, table: TableName) -> ServerTable | None:
    """Return the table of one server; None if it does not exist. Raises as `run` does."""
    name: dict[str, object] = {"database": table.database, "table": table.table}
    for (engine,) in run(_ENGINE, name):
        if not schema.is_replicated(engine):
            return ServerTable(engine)
        try:
            return ServerTable(engine, *(run(_REPLICA, name) or [()])[0])
        except (driver_errors.ServerException, StatementRejected) as error:
            if error.code != _ACCESS_DENIED:
                raise
            return ServerTable(engine)
    return None


def select_table(server: ClickHouse) -> ServerTable | None:
    """Return the table of the connected server; None if it does not exist. Raises as `select` does."""
    return read_table(lambda query, named: server.select(query, named).rows, server.table)


def server_identity(server: ClickHouse) -> str:
    """Return what the servers of one table have in common and those of another one have not: the path of
    the replicas in ZooKeeper, or the id of the only server. Empty if the server states none, or has no
    table. Unlike the id of the table, it stays when the table is created again. Raises as `select`."""
    table = select_table(server)
    if table is None:
        return ""
    if schema.is_replicated(table.engine):
        return table.path or ""
    ((identity,),) = server.select(_SERVER).rows
    return "" if identity == _NO_UUID else str(identity)


def difference(servers: Iterable[tuple[str, ServerTable]]) -> str:
    """Return which servers have different tables, or are one server, with advice; empty if none."""
    found = list(servers)
    for number, (address, table) in enumerate(found):
        for other_address, other in found[:number]:
            if not table.is_replica_of(other):
                return (
                    f"{other_address} has {other} and {address} has {table}: CLICKHOUSE_HOST lists them "
                    "as replicas of one table, and rows inserted into one would never reach the other; "
                    "make them replicas of one table, or remove one from the list"
                )
            if table.replica is not None and table[1:] == other[1:]:
                return one_server(other_address, address, table.replica)
    return ""


def one_server(first: str, second: str, replica: str) -> str:
    """Return the message about two addresses of the same replica."""
    return (
        f"{first} and {second} are one server, replica {replica}: list it once, because each entry "
        "counts as a copy of the rows"
    )
