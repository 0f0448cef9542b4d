"""Inserts: columns, deduplication tokens, and what a repeated insert has to look for."""

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
"""How the server begins its message; the same code speaks of merges that do not keep up, too."""
_INSERT_SETTINGS: dict[str, object] = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}
_SAFE_SHARE = 0.5
"""Of a window's age limit: what is older may have been forgotten, as clocks differ and forgetting is
the business of a thread that runs now and then."""


class _Table(NamedTuple):
    engine: str
    window_seconds: int | None


class ClickHouseSink(ClickHouse):
    """A connection that inserts too; `types.Sink` for the configured table."""

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
        self._known_table = None  # it may have been altered meanwhile

    def insert(
        self,
        columns: Sequence[Sequence[object]],
        token: str | None,
        *,
        is_repeat: bool = False,
        not_before: float | None = None,
        may_overlap: bool = False,
    ) -> None:
        """See `types.Sink`. Blocks up to CLICKHOUSE_TIMEOUT for each exchange with the server.

        A repeat relies on the token as far as the table keeps it:

        - A plain MergeTree notes a token before it adds the part. Killed between the two, it drops the
          repeated insert of rows that it does not have. So the rows are looked for afterwards, and those
          that are missing are inserted under a token of their own.
        - A replicated table adds token and part in one step, but forgets tokens by age. So the rows of
          an old batch are looked for first. Those that are missing keep the token: each partition of
          the table has its own record of it.

        A token says nothing of rows that went in with a block of other bounds. Where there may be such
        a block, the rows are looked for first as well.
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
        for again in range(1, _REPEATS):
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
            self._insert(columns, f"{token}/again{again}")

    def _insert(self, columns: Sequence[Sequence[object]], token: str | None) -> None:
        self.insert_into(self.table, schema.COLUMN_NAMES, columns, token)

    def insert_into(
        self,
        table: TableName,
        names: Sequence[str],
        columns: Sequence[Sequence[object]],
        token: str | None,
    ) -> None:
        """As `insert`, into any table and without looking whether a repeated block is there."""
        settings = dict(self._insert_settings())
        # Without any token ClickHouse goes by the rows, and would drop equal events that are not the
        # same event.
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
        """What makes this server go by our tokens, whatever the user's profile says."""
        if self._server_settings is None:
            known = self._ask(
                "SELECT name FROM system.settings WHERE name = {name:String}",
                {"name": "deduplicate_insert"},
            )
            # The newer setting overrules the older one, which older servers have alone.
            newer = {name: "enable" for (name,) in known}
            self._server_settings = _INSERT_SETTINGS | newer
        return self._server_settings

    def _table(self) -> _Table:
        if self._known_table is None:
            found = self._ask(
                "SELECT engine, engine_full FROM system.tables "
                "WHERE database = {database:String} AND name = {table:String}",
                {"database": self._settings.database, "table": self._settings.table},
            )
            engine, engine_full = found[0] if found else ("", "")
            self._known_table = _Table(engine, self._window_seconds(engine, engine_full))
        return self._known_table

    def missing(self, columns: Sequence[Sequence[object]]) -> list[list[object]]:
        """The rows that the table lacks: of equal rows, as many as it has too few of.

        Rows that the TTL is about to take are not looked for. Raises Unavailable.
        """
        names = ", ".join(schema.COLUMN_NAMES)
        found = self._ask(
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
            """,  # noqa: S608  # nothing but names from the contract and the quoted table
            external_tables=[_batch(columns)],
        )
        rows = [row for (row,) in found]
        return [[values[row] for row in rows] for values in map(list, columns)]

    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]:
        """For each of these rows, in their order, how many equal ones the table has.

        For some thousands of rows at a time. Raises Unavailable.
        """
        names = ", ".join(schema.COLUMN_NAMES)
        found = self._ask(
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

    def _ask(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        external_tables: list[dict[str, Any]] | None = None,
    ) -> list[tuple[Any, ...]]:
        """A question on the way of an insert: every failure means to wait and repeat the insert."""
        try:
            answer: list[tuple[Any, ...]] = self._connected().execute(
                sql, dict(parameters or {}), external_tables=external_tables
            )
        except driver_errors.ServerException as error:
            raise self._server_unavailable(error.code, plain_message(error)) from error
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error
        return answer

    def _insert_error(self, error: driver_errors.ServerException, table: TableName) -> OctaneError:
        """By code, and by what the server appends itself; its message may quote any text of a row."""
        message = plain_message(error)
        try:
            view = self._failing_view(message, table)
            missing = self._missing_targets(table) if error.code == UNKNOWN_TABLE else []
        except Unavailable as unavailable:
            return unavailable
        if view is not None:
            # The table itself may hold the rows already: only the very same block is safe to repeat.
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
        """Views whose target was dropped: the server reports them as an unknown table."""
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
    """Whether a table that forgets tokens by age still has that of a batch, if it was inserted.

    `not_before` is a time before which it was not inserted; None where nobody knows. A clock that is
    ahead of ours says nothing.
    """
    if window_seconds is None:
        return True
    if not_before is None or not_before > now:
        return False
    return now - not_before <= window_seconds * _SAFE_SHARE


def _batch(columns: Sequence[Sequence[object]]) -> dict[str, Any]:
    """Rows that go along with a question, as its table `batch`, numbered in the column `row`."""
    return {
        "name": "batch",
        "structure": [
            ("row", "UInt32"),
            *((column.name, column.type) for column in schema.COLUMNS),
        ],
        "data": list(zip(range(len(columns[0])), *columns, strict=True)),
    }
