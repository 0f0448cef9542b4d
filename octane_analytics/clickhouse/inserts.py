"""Inserts: columns, deduplication tokens, and the counts of a repeated insert."""

import hashlib
import struct
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.error_codes import DATA_ERRORS, UNKNOWN_TABLE, plain_message
from octane_analytics.clickhouse.native_blocks import PackingClient
from octane_analytics.clickhouse.row_counts import CountingConnection
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
from octane_analytics.types import RepeatRules

QUERY_ID_PREFIX = "octane-insert-"
"""Start of the ids of all statements that insert a batch."""
_TOO_MANY_PARTS = 252
_QUERY_ID_IN_USE = 216
_RELEASE_PAUSES = (0.001, 0.01, 0.1, 0.4)
_TOO_MANY_PARTITIONS = "Too many partitions for single INSERT block"
"""Start of the server's message; the same code also reports merges slower than inserts."""
_INSERT_SETTINGS: dict[str, object] = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "replace_running_query": 0,
}
_QUORUM_SHARE = 0.5
"""Share of CLICKHOUSE_TIMEOUT for which an insert waits for its quorum."""
_SAFE_SHARE = 0.5
"""Share of a window's age limit within which a token counts as remembered: clocks differ, and the
server's cleanup thread runs only at intervals."""


class ClickHouseSink(CountingConnection):
    """Connection that inserts; implements `interfaces.BlockSink` for the configured table."""

    def __init__(
        self,
        settings: ClickHouseSettings,
        *,
        client_name: str,
        traceparent: Callable[[], str | None] | None = None,
        on_statement: Callable[[], None] = lambda: None,
        sorts_rows: bool = False,
    ) -> None:
        """With `sorts_rows` large packed blocks of the configured table are sent in the order of its
        key, which saves the server's sort, if the compiled part is there. Raise ConfigError for the
        settings of several shards; see `of_each_shard`.
        """
        settings.require_one_shard()
        super().__init__(
            settings, client_name=client_name, traceparent=traceparent, on_statement=on_statement
        )
        self._sorts_rows = sorts_rows
        self._server_settings: dict[str, object] | None = None
        self._refused_id: str | None = None
        """Id of the last insert, if this server refused it."""

    def close(self) -> None:
        super().close()
        self._refused_id = None
        self._server_settings = None  # the next server may be of another version

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> bool | None:
        """See `interfaces.BlockSink`. Blocks for up to CLICKHOUSE_TIMEOUT per exchange."""
        return self.insert_into(self.table, schema.COLUMN_NAMES, columns, token, query_id)

    def repeat_rules(self, not_before: float | None = None) -> RepeatRules:
        """See `interfaces.BlockSink`.

        - A plain MergeTree stores a token before it adds the part. If killed between the two, it drops
          the repeated insert of rows that it does not have; they go in under another token.
        - A replicated table adds token and part in one step, but forgets tokens by age.
        - Materialized views recognise the rows of a block only by the block's own token. They may lack
          rows that the table has, and would count rows twice that go in under another token.
        """
        table = self.counted_table()
        if not table.is_countable:
            return RepeatRules(inserts_whole=True, counts_rows=False)
        remembers = is_token_remembered(table.window_seconds, not_before, time.time())
        views = self._views_of(self.table)
        if not views:
            return RepeatRules(remembers_token=remembers)
        listed = ", ".join(map(str, views))
        return RepeatRules(
            inserts_whole=remembers,
            remembers_token=remembers,
            repair_refusal=f"inserting them into {self.table} under another token would count them "
            f"twice in {listed}: set DELIVERY=at-least-once, or remove the views and fill them again "
            "afterwards",
        )

    def insert_into(
        self,
        table: TableName,
        names: Sequence[str],
        columns: Sequence[Sequence[object]],
        token: str | None,
        query_id: str | None = None,
    ) -> bool | None:
        """Insert into any table; arguments and result as in `interfaces.BlockSink`."""
        settings = dict(self._insert_settings())
        # Without a token ClickHouse deduplicates by the rows, and would drop equal, distinct events.
        settings["insert_deduplication_token"] = uuid.uuid4().hex if token is None else token
        listed = ", ".join(schema.identifier(name) for name in names)
        options = {
            "columnar": True,
            "settings": settings,
            "query_id": None if query_id is None else server_query_id(table, query_id),
        }
        client = self._connected()
        client.check_types = self._check_types if table == self.table else None
        client.sorts_rows = self._sorts_rows and table == self.table
        try:
            self._execute_insert(client, f"INSERT INTO {table} ({listed}) VALUES", columns, options)
        except (driver_errors.TypeMismatchError, struct.error, UnicodeError) as error:
            self.close()
            raise DataRejected(f"a value does not fit its column: {error}") from error
        except driver_errors.ServerException as error:
            raise self._insert_error(error, table) from error
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error
        if client.dropped_blocks:
            return False
        return True if client.inserted_rows else None

    def _execute_insert(
        self,
        client: PackingClient,
        sql: str,
        columns: Sequence[Sequence[object]],
        options: dict[str, Any],
    ) -> None:
        """Run an insert; wait for the id of the last one, if the server refused that.

        The server answers with the exception before it gives the id free. An id that is in use otherwise
        belongs to another process: the rows must be counted again after that ends.
        """
        for pause_seconds in (*_RELEASE_PAUSES, None):
            try:
                client.execute(sql, list(columns), **options)
            except driver_errors.ServerException as error:
                if error.code != _QUERY_ID_IN_USE:
                    self._refused_id = options["query_id"]
                    raise
                if pause_seconds is None or options["query_id"] != self._refused_id:
                    raise
                time.sleep(pause_seconds)
            else:
                self._refused_id = None
                return

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
            self._server_settings = _INSERT_SETTINGS | self._quorum_settings() | newer
        return self._server_settings

    def _quorum_settings(self) -> dict[str, object]:
        """Return the settings of CLICKHOUSE_INSERT_QUORUM.

        Inserts of several workers wait for their quorum side by side. `select_sequential_consistency`
        would require them to wait for each other; a look for rows syncs its replica instead.
        """
        settings = self._settings
        if settings.insert_quorum < 1:
            return {}
        return {
            "insert_quorum": settings.insert_quorum,
            "insert_quorum_parallel": 1,
            # Shorter than the client's wait: a longer insert would keep its query id in use.
            "insert_quorum_timeout": int(settings.timeout_seconds * _QUORUM_SHARE * 1000),
        }

    def _insert_error(self, error: driver_errors.ServerException, table: TableName) -> OctaneError:
        """Translate by code and by the text that the server appends itself, since its message may quote
        any text of a row."""
        message = plain_message(error)
        if error.code == _QUERY_ID_IN_USE:
            # The connection stays with this server: only there does the id keep others out.
            return Unavailable(
                f"another insert of this batch is running: {message.rstrip('. ')}; waiting for its end "
                "(see system.processes)"
            )
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


def server_query_id(table: TableName, query_id: str) -> str:
    """Return the id of a statement on the server, where ids of all users and tables share one name space
    and appear in `system.processes` and `system.query_log`: a hash, which holds no text of ours."""
    named = "\0".join((table.database, table.table, query_id))
    return f"{QUERY_ID_PREFIX}{hashlib.blake2b(named.encode(), digest_size=16).hexdigest()}"
