"""Inserts: columns, deduplication tokens, and the lookups of a repeated insert."""

import struct
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import DATA_ERRORS, UNKNOWN_TABLE, plain_message
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.clickhouse.views import failing_view, may_be_of_a_view
from octane_analytics.errors import (
    DataRejected,
    NeedsOperator,
    OctaneError,
    StatementRejected,
    Unavailable,
)
from octane_analytics.settings.connections import ClickHouseSettings

_TOO_MANY_PARTS = 252
_REPEATS = 4
_TOO_MANY_PARTITIONS = "Too many partitions for single INSERT block"
"""Start of the server's message; the same code also reports merges slower than inserts."""
_INSERT_SETTINGS: dict[str, object] = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}
_SAFE_SHARE = 0.5
"""Share of a window's age limit within which a token counts as remembered: clocks differ, and the
server's cleanup thread runs only at intervals."""


class _Table(NamedTuple):
    engine: str
    window_seconds: int | None


class ClickHouseSink(ClickHouse):
    """Connection that inserts; implements `interfaces.Sink` for the configured table."""

    def __init__(
        self,
        settings: ClickHouseSettings,
        *,
        client_name: str,
        traceparent: Callable[[], str | None] | None = None,
        on_statement: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            settings, client_name=client_name, traceparent=traceparent, on_statement=on_statement
        )
        self._known_table: _Table | None = None
        self._server_settings: dict[str, object] | None = None

    def close(self) -> None:
        super().close()
        self._server_settings = None  # the next server may be of another version
        self._known_table = None  # may have been altered

    def insert(
        self,
        columns: Sequence[Sequence[object]],
        token: str | None,
        *,
        is_repeat: bool = False,
        not_before: float | None = None,
        may_overlap: bool = False,
    ) -> None:
        """Insert a block; see `interfaces.Sink`. Blocks for up to CLICKHOUSE_TIMEOUT per exchange.

        A repeat relies on the token as far as the table keeps it:

        - A plain MergeTree stores a token before it adds the part. If killed between the two, it drops
          the repeated insert of rows that it does not have. So the rows are looked up afterwards, and
          missing ones are inserted under a token of their own.
        - A replicated table adds token and part in one step, but forgets tokens by age. So the rows of
          an old batch are looked up first. Missing ones keep the token: each partition of the table
          has its own record of it.

        A token says nothing about rows that were inserted with a block of other bounds. With
        `may_overlap` the rows are looked up first as well.
        """
        if may_overlap:
            columns = self.missing(columns)
            if not columns[0]:
                return
        if not is_repeat or token is None:
            self._insert(columns, token)
            return
        table = self._table()
        if schema.is_replicated(table.engine):
            if not is_token_remembered(table.window_seconds, not_before, time.time()):
                columns = self.missing(columns)
            if columns[0]:
                self._insert(columns, token)
            return
        self._insert(columns, token)
        if table.engine == schema.ENGINE:  # the merges of other engines may replace rows
            self._repair(columns, token)

    def _repair(self, columns: Sequence[Sequence[object]], token: str) -> None:
        for attempt in range(1, _REPEATS):
            columns = self.missing(columns)
            if not columns[0]:
                return
            if views := self._views_of(self.table):
                listed = ", ".join(map(str, views))
                raise NeedsOperator(
                    f"{self.table} lacks {len(columns[0])} rows whose token it has, and inserting them "
                    f"again would count them twice in {listed}: set DELIVERY=at-least-once, or remove "
                    "the views and fill them again afterwards"
                )
            self._insert(columns, f"{token}/again{attempt}")

    def _insert(self, columns: Sequence[Sequence[object]], token: str | None) -> None:
        self.insert_into(self.table, schema.COLUMN_NAMES, columns, token)

    def insert_into(
        self,
        table: TableName,
        names: Sequence[str],
        columns: Sequence[Sequence[object]],
        token: str | None,
    ) -> None:
        """Insert into any table, without lookups for a repeated block."""
        settings = dict(self._insert_settings())
        # Without a token ClickHouse deduplicates by the rows, and would drop equal, distinct events.
        settings["insert_deduplication_token"] = uuid.uuid4().hex if token is None else token
        listed = ", ".join(schema.identifier(name) for name in names)
        client = self._connected()
        client.check_types = self._check_types if table == self.table else None
        try:
            client.execute(
                f"INSERT INTO {table} ({listed}) VALUES",
                list(columns),
                columnar=True,
                settings=settings,
            )
        except (driver_errors.TypeMismatchError, struct.error, UnicodeError) as error:
            self.close()
            raise DataRejected(f"a value does not fit its column: {error}") from error
        except driver_errors.ServerException as error:
            raise self._insert_error(error, table) from error
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error

    def _check_types(self, types: Mapping[str, str]) -> None:
        """The driver writes into any type what it can make of a value, as True for a text."""
        if unfit := schema.unfit_types(types):
            raise NeedsOperator(
                f"table {self.table} {', '.join(unfit)}: see `octane-analytics schema check`"
            )

    def _insert_settings(self) -> dict[str, object]:
        """Return the settings that make this server use our tokens, regardless of the user's profile."""
        if self._server_settings is None:
            known = self._query(
                "SELECT name FROM system.settings WHERE name = {name:String}",
                {"name": "deduplicate_insert"},
            )
            # The newer setting overrides the older one, the only one of older servers.
            newer = {name: "enable" for (name,) in known}
            self._server_settings = _INSERT_SETTINGS | newer
        return self._server_settings

    def _table(self) -> _Table:
        if self._known_table is None:
            found = self._query(
                "SELECT engine, engine_full FROM system.tables "
                "WHERE database = {database:String} AND name = {table:String}",
                {"database": self._settings.database, "table": self._settings.table},
            )
            engine, engine_full = found[0] if found else ("", "")
            self._known_table = _Table(engine, self._window_seconds(engine, engine_full))
        return self._known_table

    def missing(self, columns: Sequence[Sequence[object]]) -> list[list[object]]:
        """Return the rows missing from the table: of equal rows, as many as it has too few of.

        Rows past their TTL are not looked up. Raise Unavailable.
        """
        names = ", ".join(schema.COLUMN_NAMES)
        found = self._query(
            f"""
            SELECT row FROM (
                SELECT row, {names}, row_number() OVER (PARTITION BY {names} ORDER BY row) AS nth
                FROM batch WHERE {schema.TTL} > now()
            ) AS wanted LEFT JOIN (
                SELECT {names}, count() AS here FROM {self.table}
                WHERE app_id IN (SELECT app_id FROM batch)
                AND timestamp >= (SELECT min(timestamp) FROM batch)
                AND timestamp <= (SELECT max(timestamp) FROM batch)
                AND ({names}) IN (SELECT {names} FROM batch)
                GROUP BY {names}
            ) AS known USING ({names})
            WHERE nth > ifNull(here, 0) ORDER BY row
            """,  # noqa: S608  # only names of the expected schema and the quoted table
            external_tables=[_batch(columns)],
        )
        rows = [row for (row,) in found]
        return [[values[row] for row in rows] for values in map(list, columns)]

    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]:
        """Return, for each of these rows, the number of equal rows in the table.

        Meant for up to some thousands of rows. Raise Unavailable.
        """
        names = ", ".join(schema.COLUMN_NAMES)
        found = self._query(
            f"""
            SELECT row, here FROM batch INNER JOIN (
                SELECT {names}, count() AS here FROM {self.table}
                WHERE app_id IN (SELECT app_id FROM batch)
                AND timestamp >= (SELECT min(timestamp) FROM batch)
                AND timestamp <= (SELECT max(timestamp) FROM batch)
                AND ({names}) IN (SELECT {names} FROM batch)
                GROUP BY {names}
            ) AS known USING ({names})
            """,  # noqa: S608  # as above
            external_tables=[_batch(columns)],
        )
        counts = [0] * len(columns[0])
        for row, here in found:
            counts[row] = here
        return counts

    def _query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        external_tables: list[dict[str, Any]] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run a query that an insert needs; every failure is Unavailable: repeat the insert later."""
        try:
            rows: list[tuple[Any, ...]] = self._connected().execute(
                sql, dict(parameters or {}), external_tables=external_tables
            )
        except driver_errors.ServerException as error:
            raise self._server_unavailable(error.code, plain_message(error)) from error
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error
        return rows

    def _insert_error(self, error: driver_errors.ServerException, table: TableName) -> OctaneError:
        """Translate by code and by the text that the server appends itself, since its message may quote
        any text of a row."""
        message = plain_message(error)
        try:
            view = self._failing_view(message, table)
            missing = self._missing_targets(table) if error.code == UNKNOWN_TABLE else []
        except Unavailable as unavailable:
            return unavailable
        if view is not None:
            # The table itself may hold the rows already: only the same block is safe to repeat.
            self._fail_over()
            return NeedsOperator(f"the materialized view {view} on {table} fails: {message}")
        if missing:
            self._fail_over()
            return NeedsOperator(f"{'; '.join(missing)}; ClickHouse says: {message}")
        if error.code in DATA_ERRORS or (
            error.code == _TOO_MANY_PARTS and message.startswith(_TOO_MANY_PARTITIONS)
        ):
            return DataRejected(message)
        return self._server_unavailable(error.code, message)

    def _failing_view(self, message: str, table: TableName) -> TableName | None:
        if not may_be_of_a_view(message):
            return None
        return failing_view(message, self._views_of(table))

    def _views_of(self, table: TableName) -> list[TableName]:
        try:
            return self.direct_views(table)
        except StatementRejected as error:
            raise self._server_unavailable(error.code, str(error)) from error

    def _missing_targets(self, table: TableName) -> list[str]:
        """Describe views whose target was dropped, which the server reports as an unknown table."""
        if table != self.table:
            return []
        try:
            views = self.views()
        except StatementRejected as error:
            raise self._server_unavailable(error.code, str(error)) from error
        return [
            f"the materialized view {view.name} needs the table {view.target}, which does not exist: "
            f"create {view.target} or DROP VIEW {view.name}"
            for view in views
            if view.lacks_target
        ]


def is_token_remembered(window_seconds: int | None, not_before: float | None, now: float) -> bool:
    """Return whether a table that forgets tokens by age still has the token of a batch, if inserted.

    `not_before` is a time before which it was not inserted, epoch seconds; None if not known. A time
    later than `now` is of a wrong clock, and counts as not known.
    """
    if window_seconds is None:
        return True
    if not_before is None or not_before > now:
        return False
    return now - not_before <= window_seconds * _SAFE_SHARE


def _batch(columns: Sequence[Sequence[object]]) -> dict[str, Any]:
    """Return rows as the external table `batch` of a query, numbered in the column `row`."""
    return {
        "name": "batch",
        "structure": [
            ("row", "UInt32"),
            *((column.name, column.type) for column in schema.COLUMNS),
        ],
        "data": list(zip(range(len(columns[0])), *columns, strict=True)),
    }
