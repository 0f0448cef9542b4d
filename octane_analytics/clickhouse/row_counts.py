"""Counts of a block's rows in the configured table: missing ones, and equal ones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse import row_lookups, schema, table_ttl
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import UNKNOWN_TABLE, plain_message
from octane_analytics.errors import NeedsOperator

_ACCESS_DENIED = 497
_WHOLE_RESULT: Mapping[str, object] = {
    "read_overflow_mode": "throw",
    "result_overflow_mode": "throw",
    "timeout_overflow_mode": "throw",
    "group_by_overflow_mode": "throw",
    "set_overflow_mode": "throw",
    "join_overflow_mode": "throw",
    "distinct_overflow_mode": "throw",
    "sort_overflow_mode": "throw",
    "transfer_overflow_mode": "throw",
    "limit": 0,
    "offset": 0,
    "use_query_cache": 0,
}
"""With other values in the user's profile a count could be of a part of the rows, or an earlier one, and
rows that are in the table would be inserted again."""


class CountedTable(NamedTuple):
    engine: str
    window_seconds: int | None
    ttl: str
    timestamp_type: str
    partition_key: str
    other_columns: Sequence[str]
    columns_with_ttl: Sequence[str]

    @property
    def is_countable(self) -> bool:
        """True if the table keeps each row as it was inserted: merges of other engines replace rows, and
        the TTL of a column replaces values."""
        is_kept = self.engine in schema.ENGINES and not self.columns_with_ttl
        return is_kept and self.unexpired is not None

    @property
    def unexpired(self) -> str | None:
        return table_ttl.unexpired_condition(self.ttl, self.other_columns)


class CountingConnection(ClickHouse):
    """Connection that counts rows; every failure is Unavailable: count again later."""

    pinned_settings = _WHOLE_RESULT

    def missing_rows(self, columns: Sequence[Sequence[object]]) -> list[int]:
        """See `interfaces.BlockSink`. Sends the rows, in chunks of bounded size."""
        table = self.counted_table()
        if table.unexpired is None or not table.is_countable:
            raise NeedsOperator(
                f"{self.table} is a {table.engine} whose merges replace rows or values, so that missing "
                "rows cannot be counted: use a MergeTree or ReplicatedMergeTree whose TTL removes whole "
                "rows, or DELIVERY=at-least-once"
            )
        if schema.is_replicated(table.engine):
            self.sync_replica()
        query = row_lookups.missing_query(self.table, table.unexpired)
        return sorted(
            row
            for chunk in row_lookups.chunks(columns, table.timestamp_type)
            for (row,) in self._query(query, external_tables=[chunk])
        )

    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]:
        """Return, for each of these rows, the number of equal rows in the table. Raise Unavailable.

        Includes rows that other replicas have acknowledged, if the user may wait for them: all commands
        that depend on it verify that right before."""
        if schema.is_replicated(self.counted_table().engine):
            self.sync_replica(is_required=False)
        counts = [0] * len(columns[0])
        for chunk in row_lookups.chunks(columns):
            for row, here in self._query(
                row_lookups.equal_query(self.table), external_tables=[chunk]
            ):
                counts[row] = here
        return counts

    def sync_replica(self, *, is_required: bool = True) -> None:
        """Block until this replica has the rows that others had acknowledged before, for up to half of
        CLICKHOUSE_TIMEOUT.

        LIGHTWEIGHT waits for the parts that are in the replication log now, and not for merges.
        """
        patience = max(1, int(self._settings.timeout_seconds / 2))
        try:
            self._run(
                f"SYSTEM SYNC REPLICA {self.table} LIGHTWEIGHT",
                settings={"receive_timeout": patience},
            )
        except driver_errors.ServerException as error:
            if error.code != _ACCESS_DENIED:
                raise self._server_unavailable(error.code, plain_message(error)) from error
            if not is_required:
                return
            raise NeedsOperator(
                f"cannot count the rows of {self.table}, because this replica may lack rows of others: "
                f"GRANT SYSTEM SYNC REPLICA ON {self.table} TO {self._settings.user}"
            ) from error

    def partitions(self, columns: Sequence[Sequence[object]]) -> list[object]:
        """See `interfaces.BlockSink`."""
        table = self.counted_table()
        found: list[object] = [""] * len(columns[0])
        if table.partition_key:
            query = row_lookups.partition_query(table.partition_key)
            for chunk in row_lookups.chunks(columns, table.timestamp_type):
                for row, partition in self._query(query, external_tables=[chunk]):
                    found[row] = partition
        return found

    def counted_table(self) -> CountedTable:
        name = {"database": self._settings.database, "table": self._settings.table}
        found = self._query(
            "SELECT engine, engine_full, partition_key, create_table_query FROM system.tables "
            "WHERE database = {database:String} AND name = {table:String}",
            name,
        )
        if not found:
            raise self._server_unavailable(UNKNOWN_TABLE, f"table {self.table} does not exist")
        engine, engine_full, partition_key, create_query = found[0]
        types: dict[str, str] = dict(
            self._query(
                "SELECT name, type FROM system.columns "
                "WHERE database = {database:String} AND table = {table:String}",
                name,
            )
        )
        return CountedTable(
            engine,
            self._window_seconds(engine, engine_full),
            table_ttl.ttl_of(engine_full),
            types.get("timestamp", ""),
            partition_key,
            sorted(set(types) - set(schema.COLUMN_NAMES)),
            schema.own_columns(table_ttl.columns_with_ttl(create_query)),
        )

    def _query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        external_tables: list[dict[str, Any]] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run a query that an insert needs; every failure is Unavailable: repeat the insert later."""
        try:
            rows: list[tuple[Any, ...]] = self._run(
                sql, parameters, external_tables=external_tables
            )
        except driver_errors.ServerException as error:
            raise self._server_unavailable(error.code, plain_message(error)) from error
        return rows

    def _run(self, sql: str, parameters: Mapping[str, object] | None = None, **options: Any) -> Any:
        """Run a statement. Raise Unavailable, or the driver's ServerException."""
        try:
            return self._connected().execute(sql, dict(parameters or {}), **options)
        except driver_errors.ServerException:
            raise
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error
