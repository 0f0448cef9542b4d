"""Inserts: columns, deduplication tokens, and what a repeated insert has to look for."""

import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clickhouse_driver import errors as driver_errors

from octane_analytics import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.codes import DATA_ERRORS, plain_message
from octane_analytics.errors import DataRejected, NeedsOperator, OctaneError
from octane_analytics.schema import TableName
from octane_analytics.settings.sections import ClickHouseSettings

_TOO_MANY_PARTS = 252
_REPEATS = 4
_INSERT_SETTINGS: dict[str, object] = {"async_insert": 0, "insert_deduplicate": 1}


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
        self._engine: str | None = None
        self._server_settings: dict[str, object] | None = None

    def close(self) -> None:
        super().close()
        self._server_settings = None  # the next server may be of another version

    def insert(
        self, columns: Sequence[Sequence[object]], token: str | None, *, is_repeat: bool = False
    ) -> None:
        """See `types.Sink`. Blocks up to CLICKHOUSE_TIMEOUT for each exchange with the server.

        A plain MergeTree notes a token before it adds the part: killed between the two, it drops the
        repeated insert of rows that it does not have. So a repeat looks whether the rows are there,
        and inserts those that are not under a token of their own.
        """
        self._insert(columns, token)
        if not is_repeat or token is None or not self._forgets_parts():
            return
        for again in range(1, _REPEATS):
            columns = self._missing(columns)
            if not columns[0]:
                return
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
        try:
            self._connected().execute(
                f"INSERT INTO {table} ({listed}) VALUES",
                list(columns),
                columnar=True,
                settings=settings,
            )
        except (driver_errors.TypeMismatchError, struct.error, UnicodeError) as error:
            self.close()
            raise DataRejected(f"a value does not fit its column: {error}") from error
        except driver_errors.ServerException as error:
            raise self._insert_error(error) from error
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error

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

    def _forgets_parts(self) -> bool:
        """Replicated tables add part and token in one step; other engines' merges may replace rows."""
        if self._engine is None:
            found = self._ask(
                "SELECT engine FROM system.tables "
                "WHERE database = {database:String} AND name = {table:String}",
                {"database": self._settings.database, "table": self._settings.table},
            )
            self._engine = found[0][0] if found else ""
        return self._engine == schema.ENGINE

    def _missing(self, columns: Sequence[Sequence[object]]) -> list[list[object]]:
        """The rows of those partitions of the table in which one of the rows is not to be found.

        A part is there as a whole or not at all, and an insert makes one of each partition. Rows that
        the TTL is about to take are not looked for.
        """
        names = ", ".join(schema.COLUMN_NAMES)
        found = self._ask(
            f"""
            WITH fresh AS (SELECT * FROM batch WHERE {schema.TTL} > now())
            SELECT row FROM fresh WHERE {schema.PARTITION_KEY} IN (
                SELECT {schema.PARTITION_KEY} FROM fresh WHERE ({names}) NOT IN (
                    SELECT {names} FROM {self.table}
                    WHERE app_id IN (SELECT app_id FROM batch)
                    AND timestamp >= (SELECT min(timestamp) FROM batch)
                    AND timestamp <= (SELECT max(timestamp) FROM batch)
                )
            )
            ORDER BY row
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
            raise self._server_unavailable(error.code, plain_message(error.message)) from error
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error
        return answer

    def _insert_error(self, error: driver_errors.ServerException) -> OctaneError:
        message = plain_message(error.message)
        if "while pushing to view" in message:
            # The table itself may hold the rows already: only the very same block is safe to repeat.
            self._fail_over()
            return NeedsOperator(f"a materialized view on {self.table} fails: {message}")
        if error.code in DATA_ERRORS or (
            error.code == _TOO_MANY_PARTS and "single INSERT block" in message
        ):
            return DataRejected(message)
        return self._server_unavailable(error.code, message)


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
