"""Statements: complete, streamed and truncated selects, DDL, and the description of the table."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse import schema, table_ttl
from octane_analytics.clickhouse.connection import NativeConnection
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS, READ_ONLY
from octane_analytics.clickhouse.result_blocks import ResultMeter, ResultTooLarge, UnreadableResult
from octane_analytics.clickhouse.results import (
    STREAM_ROWS,
    DataRead,
    Excerpt,
    Result,
    ResultColumn,
    RowStream,
    result_columns,
)
from octane_analytics.clickhouse.schema import LiveColumn, LiveTable, TableName
from octane_analytics.clickhouse.views import View
from octane_analytics.errors import Abandoned, NeedsOperator, StatementRejected

_RESULT_TOO_LARGE = 396


class ClickHouse(NativeConnection):
    """Connection that runs selects and DDL."""

    def select(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
    ) -> Result:
        """Run one statement and return its result; the server binds `{name:Type}` in it.

        Blocks until the whole result is received. Raise StatementRejected for the server's errors about
        the statement, Unavailable if it cannot be reached or cannot serve now.
        """
        with self._select_errors():
            rows, columns = self._connected().execute(
                sql,
                dict(parameters or {}),
                with_column_types=True,
                settings=dict(settings or {}),
                query_id=query_id,
            )
        return Result(result_columns(columns), rows)

    @contextlib.contextmanager
    def stream(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
        max_block_bytes: int | None = None,
    ) -> Iterator[RowStream]:
        """Run a select whose rows are yielded as the server sends them.

        A block that takes more memory than a result of `max_block_bytes` raises StatementRejected.
        Iterating over the rows blocks, and raises as `select` does. Leaving before their end closes the
        connection, upon which the server cancels the query.
        """
        is_whole = False

        def blocks(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
            nonlocal is_whole
            while block := list(itertools.islice(rows, STREAM_ROWS)):
                yield block
            is_whole = True

        client = self._connected()
        try:
            with self._select_errors():
                rows = client.execute_iter(
                    sql,
                    dict(parameters or {}),
                    with_column_types=True,
                    settings=dict(settings or {}),
                    query_id=query_id,
                )
                client.block_meter = (
                    None if max_block_bytes is None else ResultMeter(max_block_bytes)
                )
                columns = next(rows)
                progress = client.last_query.progress
            yield RowStream(
                result_columns(columns),
                self._checked_blocks(blocks(rows)),
                lambda: DataRead(progress.rows, progress.bytes),
                lambda: client.totals,
            )
        finally:
            client.block_meter = None
            if not is_whole:
                self.close()

    def _checked_blocks(
        self, blocks: Iterator[list[tuple[Any, ...]]]
    ) -> Iterator[list[tuple[Any, ...]]]:
        with self._select_errors():
            yield from blocks

    @contextlib.contextmanager
    def _select_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._select_error(error) from error

    def excerpt(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object],
        max_rows: int,
        max_bytes: int,
    ) -> Excerpt:
        """Run a select and return at most `max_rows` rows, of blocks with at most `max_bytes` in all.

        Counts the bytes of the result before compression: ClickHouse counts a constant once for a whole
        block, and so lets results far beyond its own max_result_bytes pass. A longer result closes the
        connection, upon which the server cancels the query.
        """
        columns: tuple[ResultColumn, ...] = ()
        rows: list[tuple[Any, ...]] = []
        client = self._connected()
        try:
            answer = client.execute_iter(
                sql, dict(parameters or {}), with_column_types=True, settings=dict(settings)
            )
            # Same effect as the setting `use_client_time_zone`, which the server might refuse.
            context = client.connection.context
            context.settings = context.settings | {"use_client_time_zone": True}
            query = client.last_query
            client.meter = ResultMeter(max_bytes)
            columns = tuple(ResultColumn(name, kind) for name, kind in next(answer, ()))
            is_whole = True
            for row in answer:
                if len(rows) == max_rows:
                    is_whole = False
                    break
                rows.append(row)
        except ResultTooLarge:
            is_whole = False
        except Exception as error:
            if not rows or getattr(error, "code", None) != _RESULT_TOO_LARGE:
                raise self._select_error(error) from error
            is_whole = False
        finally:
            client.meter = None
        if not is_whole:
            self.close()
        read = DataRead(query.progress.rows, query.progress.bytes)
        return Excerpt(columns, rows, is_whole, read, client.totals)

    def execute(self, statement: str) -> None:
        """Run a statement without a result (DDL). Raises as `select` does."""
        try:
            self._connected().execute(statement)
        except driver_errors.ServerException as error:
            raise self._statement_error(error) from error
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error

    def describe(self) -> LiveTable | None:
        """Return the description of the configured table; None if it does not exist."""
        name = {"database": self._settings.database, "table": self._settings.table}
        found = self.select(
            "SELECT engine, sorting_key, partition_key, engine_full, create_table_query "
            "FROM system.tables "
            "WHERE database = {database:String} AND name = {table:String}",
            name,
        ).rows
        if not found:
            return None
        engine, sorting_key, partition_key, engine_full, create_query = found[0]
        columns = self.select(
            "SELECT name, type, compression_codec FROM system.columns "
            "WHERE database = {database:String} AND table = {table:String} ORDER BY position",
            name,
        ).rows
        return LiveTable(
            engine=engine,
            sorting_key=sorting_key,
            partition_key=partition_key,
            ttl=table_ttl.ttl_of(engine_full),
            window=self._table_setting(schema.window_setting(engine), engine_full),
            columns=tuple(LiveColumn(*column) for column in columns),
            window_seconds=self._window_seconds(engine, engine_full),
            columns_with_ttl=schema.own_columns(table_ttl.columns_with_ttl(create_query)),
        )

    def _window_seconds(self, engine: str, engine_full: str) -> int | None:
        if not schema.is_replicated(engine):
            return None
        return self._table_setting(schema.REPLICATED_WINDOW_SECONDS_SETTING, engine_full)

    def exists(self, table: TableName) -> bool:
        """Return whether the table exists and the user may see it."""
        found = self.select(
            "SELECT 1 FROM system.tables WHERE database = {database:String} AND name = {table:String}",
            {"database": table.database, "table": table.table},
        )
        return bool(found.rows)

    def views(self) -> list[View]:
        """Return the materialized views that an insert into the configured table triggers, directly and
        through other views."""
        found: list[View] = []
        sources, visited = [self.table], {self.table}
        while sources:
            for name in self.direct_views(sources.pop()):
                view = self._view(name)
                found.append(view)
                if view.target is not None and view.target not in visited:
                    visited.add(view.target)
                    sources.append(view.target)
        return found

    def direct_views(self, source: TableName) -> list[TableName]:
        """Return the materialized views that read from this table."""
        rows = self.select(
            "SELECT arrayJoin(arrayZip(dependencies_database, dependencies_table)) AS view "
            "FROM system.tables WHERE database = {database:String} AND name = {table:String} "
            "ORDER BY view",
            {"database": source.database, "table": source.table},
        ).rows
        return [TableName(*view) for (view,) in rows]

    def _view(self, name: TableName) -> View:
        try:
            found = self.select(
                "SELECT target_database, target_table FROM system.tables "
                "WHERE database = {database:String} AND name = {table:String}",
                {"database": name.database, "table": name.table},
            ).rows
        except StatementRejected:
            return View(name, None)  # an older server does not list the targets
        if not found or not found[0][1]:
            return View(name, None)
        target = TableName(*found[0])
        rows = self.select(
            "SELECT engine, engine_full FROM system.tables "
            "WHERE database = {database:String} AND name = {table:String}",
            {"database": target.database, "table": target.table},
        ).rows
        if not rows:
            return View(name, target)
        engine, engine_full = rows[0]
        window = 0
        if engine.endswith(schema.ENGINE):
            window = self._table_setting(schema.window_setting(engine), engine_full)
        return View(name, target, engine, window)

    def has_right(self, right: str) -> bool:
        """Return whether the user has SELECT or INSERT on the configured table."""
        return bool(self.select(f"CHECK GRANT {right} ON {self.table}").rows[0][0])

    def check_profile(self) -> None:
        """Raise NeedsOperator if the user's profile forbids writes, regardless of grants."""
        found = self.select("SELECT value FROM system.settings WHERE name = 'readonly'").rows
        if found != [("0",)]:
            raise NeedsOperator(OPERATOR_ERRORS[READ_ONLY])

    def _table_setting(self, setting: str, engine_full: str) -> int:
        """Return a setting of the table with this `engine_full`, or the server's default."""
        own = table_ttl.setting_of(engine_full, setting)
        if own:
            return int(own)
        try:
            found = self.select(
                "SELECT value FROM system.merge_tree_settings WHERE name = {name:String}",
                {"name": setting},
            ).rows
        except StatementRejected:
            return schema.DEFAULT_WINDOWS[setting]  # the user may not read them
        return int(found[0][0])

    def _select_error(self, error: Exception) -> Exception:
        """Return the translated error for a caller of `select`; raise any other error unchanged."""
        if self._is_aborted:
            self.close()
            return Abandoned("the connection was aborted")
        if isinstance(error, driver_errors.ServerException):
            return self._statement_error(error)
        if isinstance(error, ResultTooLarge):
            self.close()
            return StatementRejected(
                _RESULT_TOO_LARGE,
                "TOO_MANY_ROWS_OR_BYTES",
                "one block of the result takes more memory than a result may",
            )
        if isinstance(error, UnreadableResult):
            self.close()
            return StatementRejected(
                50,
                "UNKNOWN_TYPE",
                f"a value of the result cannot be read ({error}): cast that column to String",
            )
        if isinstance(error, NotImplementedError):
            self.close()
            return StatementRejected(50, "UNKNOWN_TYPE", f"{error}: cast that column to String")
        if isinstance(error, driver_errors.UnknownTypeError):
            self.close()
            message = f"{error.message}: cast that column to String"
            return StatementRejected(50, "UNKNOWN_TYPE", message)
        if isinstance(error, (driver_errors.Error, OSError, EOFError)):
            return self._unavailable(error)
        self.close()
        raise error
