"""Sink for the replicas of one shard: verifies which shard its server is of, and how many replicas have
the rows of a repeated insert."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.error_codes import plain_message
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.native_blocks import PackingClient
from octane_analytics.clickhouse.replica_tables import (
    ServerTable,
    difference,
    read_table,
    select_table,
)
from octane_analytics.clickhouse.row_counts import CountingConnection
from octane_analytics.errors import NeedsOperator, StatementRejected, Unavailable
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import Address, authority

_ACCESS_DENIED = 497
_SLOW_INSERT_SECONDS = 10.0
"""Duration of an insert after which the next one goes to another replica: the server delays inserts
while it has too many parts, or is overloaded."""
_MACRO = "SELECT substitution FROM system.macros WHERE macro = 'shard'"
_PATH = (
    "SELECT zookeeper_path FROM system.replicas "
    "WHERE database = {database:String} AND table = {table:String}"
)


class ShardSink(ClickHouseSink):
    """Sink for one shard. Once its identity is known, no statement goes to a server of another one; nor
    to a server whose table is not a replica of the one that was in use before."""

    known_identity: str | None = None
    """Identity that a server of this shard has stated; None if none was asked yet."""
    _known_table: tuple[str, ServerTable] | None = None
    """Address and table of the first server that was connected, of several."""

    @property
    def settings(self) -> ClickHouseSettings:
        return self._settings

    @property
    def patience_seconds(self) -> float:
        """See `NativeConnection`; a new connection is asked for its identity before the statement."""
        return super().patience_seconds + self._settings.timeout_seconds

    def identity(self) -> str:
        """Return the shard's identity: its servers' `shard` macro, or the table's path in ZooKeeper;
        empty if they have neither. Blocks at the first call. Raise Unavailable."""
        if self.known_identity is None:
            try:
                self.known_identity = self._stated_identity(self._run)
            except driver_errors.ServerException as error:
                raise self._identity_error(error) from error
        return self.known_identity

    def probe(self) -> None:
        """Verify that some server can be reached, unless there is a connection. Raise Unavailable."""
        if self._client is None:
            self._query("SELECT 1")

    def return_to_preferred(self) -> None:
        """Close a connection to another than the first server of the list, once in a while: the next
        call tries the first one."""
        if len(self._failover) > 1 and self._failover.return_to_preferred(self._current()):
            self.close()

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> bool | None:
        """See `interfaces.BlockSink`. After a slow insert, the next one goes to another replica."""
        began = time.monotonic()
        is_stored = super().insert_block(columns, token, query_id)
        if time.monotonic() - began > _SLOW_INSERT_SECONDS and len(self._failover) > 1:
            self._fail_over()
        return is_stored

    def missing_rows(self, columns: Sequence[Sequence[object]]) -> list[int]:
        """See `interfaces.BlockSink`. Raise Unavailable too while fewer replicas than
        CLICKHOUSE_INSERT_QUORUM have the rows: their insert may not have been acknowledged."""
        missing = super().missing_rows(columns)
        if not missing and self._settings.insert_quorum > 1:
            self._require_quorum(columns)
        return missing

    def _current(self) -> Address:
        """Return the server in use: the connection's, or the next one to be tried."""
        connection = getattr(self._client, "connection", None)
        if connection is None or connection.host is None:
            return self._failover.hosts[0]
        return connection.host, int(connection.port)

    def _connected(self) -> PackingClient:
        client = super()._connected()
        # The driver connects to any server of the list by itself.
        is_verified = self.known_identity is not None or len(self._failover) > 1
        client.on_connect = partial(self._verify, client) if is_verified else None
        return client

    def _verify(self, client: PackingClient) -> None:
        """Raise NeedsOperator if the connected server is of another shard, or has another table."""
        if self.known_identity is not None:
            self._verify_shard(client)
        if len(self._failover) > 1:
            self._verify_table(client)

    def _verify_shard(self, client: PackingClient) -> None:
        stated = self._stated_identity(client.execute)
        if stated != self.known_identity:
            where = authority(*self._current())
            self._fail_over()
            raise NeedsOperator(
                f"{where} is of shard {stated!r}, but CLICKHOUSE_HOST lists it as a replica of shard "
                f"{self.known_identity!r}: separate shards by semicolons, correct the server's `shard` "
                "macro, or restart the worker if the shard was renamed"
            )

    def _verify_table(self, client: PackingClient) -> None:
        table = read_table(client.execute, self.table)
        if table is None:
            return  # the statement reports it
        where = authority(*self._current())
        known = self._known_table or (where, table)
        if not table.is_replica_of(known[1]) and not self._have_all(table):
            self._fail_over()
            raise NeedsOperator(difference([known, (where, table)]))
        self._known_table = where, table

    def _have_all(self, table: ServerTable) -> bool:
        """Return True if every server of the shard has this table now: it was created again."""
        try:
            others = [
                found
                for address in self._failover.hosts
                if (found := self._table_of(address)) is not None
            ]
        except Unavailable:
            return False
        return len(others) == len(self._failover.hosts) and all(map(table.is_replica_of, others))

    def _table_of(self, address: Address) -> ServerTable | None:
        """Return the table of one server, through a connection of its own. Raise Unavailable."""
        with self._connection_to(address) as replica:
            try:
                return select_table(replica)
            except StatementRejected as error:
                raise Unavailable(f"ClickHouse error {error.code}: {error}") from error

    def _connection_to(self, address: Address) -> CountingConnection:
        settings = replace(self._settings, host=authority(*address))
        return CountingConnection(
            settings, client_name=self._client_name, on_statement=self._on_statement
        )

    def _stated_identity(self, run: Any) -> str:
        name: Mapping[str, object] = {"database": self.table.database, "table": self.table.table}
        found = run(_MACRO, {}) or run(_PATH, name)
        return str(found[0][0]) if found else ""

    def _identity_error(self, error: driver_errors.ServerException) -> Unavailable:
        if error.code != _ACCESS_DENIED:
            return self._server_unavailable(error.code, plain_message(error))
        user = self._settings.user
        self._fail_over()
        return NeedsOperator(
            "cannot read which shard the server is of, and inserts depend on it: "
            f"GRANT SELECT ON system.macros TO {user}; GRANT SELECT ON system.replicas TO {user}"
        )

    def _require_quorum(self, columns: Sequence[Sequence[object]]) -> None:
        """Raise Unavailable unless enough replicas have the rows that this one has.

        An insert that ended before its quorum leaves its rows on one replica. A look there finds them,
        and does not prove that another one has them.
        """
        if not schema.is_replicated(self.counted_table().engine):
            return
        wanted, reason = self._settings.insert_quorum, ""
        current = self._current()
        holders = {self._replica_name(current)}
        for address in self._failover.hosts:
            if len(holders) >= wanted:
                return
            if address != current:
                try:
                    holders |= self._holder(address, columns)
                except Unavailable as error:
                    reason = f"; {error}"
        if len(holders) < wanted:
            raise Unavailable(
                f"{len(holders)} replicas have the rows of a batch, CLICKHOUSE_INSERT_QUORUM is "
                f"{wanted}: waiting for the others{reason}"
            )

    def _holder(self, address: Address, columns: Sequence[Sequence[object]]) -> set[str]:
        """Return the name of the replica there if it has the rows; two addresses may be one server."""
        with self._connection_to(address) as replica:
            has_rows = not replica.missing_rows(columns)
        return {self._replica_name(address)} if has_rows else set()

    def _replica_name(self, address: Address) -> str:
        table = self._table_of(address)
        if table is None or table.replica is None:
            raise NeedsOperator(
                f"cannot read which replica {authority(*address)} is, and CLICKHOUSE_INSERT_QUORUM "
                f"counts them: GRANT SELECT ON system.replicas TO {self._settings.user}"
            )
        return table.replica
