"""ClickHouse over its native protocol: the only module that knows clickhouse_driver.

Owns the connection, failover over the listed servers, inserts, selects, and which of the server's
errors mean what for the caller. A connection is made at the first call and after each failure, so
an object may be built before a fork as long as it is used after it only.
"""

import contextlib
import itertools
import socket
import ssl
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from clickhouse_driver.bufferedreader import CompressedBufferedReader
from clickhouse_driver.defines import BUFFER_SIZE

from octane_analytics import schema
from octane_analytics.errors import (
    Abandoned,
    DataRejected,
    NeedsOperator,
    OctaneError,
    StatementRejected,
    Unavailable,
)
from octane_analytics.schema import LiveColumn, LiveTable, TableName
from octane_analytics.settings.sections import ClickHouseSettings

CONNECT_SECONDS = 5.0
STREAM_ROWS = 2_000

DATA_ERRORS = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        69,  # ARGUMENT_OUT_OF_BOUND
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        131,  # TOO_LARGE_STRING_SIZE
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        395,  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
        469,  # VIOLATED_CONSTRAINT
        691,  # UNKNOWN_ELEMENT_OF_ENUM
    }
)
"""The server refuses the rows themselves: find them, dead-letter them, insert the others."""

_READ_ONLY = 164
OPERATOR_ERRORS = {
    16: "the table lacks a column: run `octane-analytics schema check`",
    53: "a column is of another type: run `octane-analytics schema check`",
    60: "create the table with `octane-analytics schema apply`",
    81: "create the database, then the table with `octane-analytics schema apply`",
    115: "this ClickHouse is too old for a setting the delivery protocol needs",
    _READ_ONLY: "the user's profile is read-only: give it one that may insert",
    192: "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
    193: "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
    194: "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
    201: "the user's quota is used up: raise it or wait for its interval to end",
    242: "the table is read-only: look at the server's log and, if replicated, at Keeper",
    243: "the server's disk is full: free or add space",
    452: "the user's profile pins a setting: loosen its constraint",
    497: "grant the user what it lacks: INSERT and SELECT on the table",
    516: "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD",
}
"""Waiting alone does not mend these; what the operator is to do. All codes that stand in neither
table are outages: wait, and repeat the same insert. Nothing is ever skipped because of a code that
is not known here to speak of the data."""

_TOO_MANY_PARTS = 252
_RESULT_TOO_LARGE = 396
_REPEATS = 4
_INSERT_SETTINGS: dict[str, object] = {"async_insert": 0, "insert_deduplicate": 1}


@dataclass(frozen=True, slots=True)
class ResultColumn:
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Result:
    columns: tuple[ResultColumn, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class RowStream:
    columns: tuple[ResultColumn, ...]
    blocks: Iterator[list[tuple[Any, ...]]]
    """Of STREAM_ROWS rows at most, none empty; to be gone through once."""
    rows_read: Callable[[], int]
    """How many the server has read so far; of all, once the blocks have come to their end."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The beginning of a result, or all of it."""

    columns: tuple[ResultColumn, ...]
    rows: list[tuple[Any, ...]]
    is_whole: bool
    rows_read: int
    """By the server, as far as it had told when reading ended."""


class ClickHouse:
    """One connection. Not for use by several threads at once, but for `abort`."""

    def __init__(
        self,
        settings: ClickHouseSettings,
        *,
        client_name: str,
        is_confined: bool = False,
        traceparent: Callable[[], str | None] | None = None,
    ) -> None:
        """`is_confined` is for a user whose profile may pin any setting: none is sent unasked.

        `traceparent` answers which span the next statement belongs to, as W3C's header has it.
        """
        self._traceparent = traceparent
        self._settings = settings
        self._is_confined = is_confined
        self._is_aborted = False
        self._client_name = client_name
        self._client: Client | None = None
        self._hosts = settings.hosts()
        self._engine: str | None = None
        self._server_settings: dict[str, object] | None = None

    @property
    def table(self) -> TableName:
        return TableName(self._settings.database, self._settings.table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError, driver_errors.Error):
                self._client.disconnect()
            self._client = None
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
        return [[column[row] for row in rows] for column in columns]

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

    def select(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
    ) -> Result:
        """Runs one statement; `{name:Type}` in it is bound by the server.

        Blocks until the whole result is here. Raises StatementRejected for what the server says
        about the statement, Unavailable where it cannot be reached or cannot serve now.
        """
        with self._select_errors():
            rows, columns = self._connected().execute(
                sql,
                dict(parameters or {}),
                with_column_types=True,
                settings=dict(settings or {}),
                query_id=query_id,
            )
        return Result(_result_columns(columns), rows)

    @contextlib.contextmanager
    def stream(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
    ) -> Iterator[RowStream]:
        """As `select`, but the rows come as the server sends them.

        Going through the rows blocks and raises what `select` raises. Leaving before their end gives
        the connection up, at which the server cancels the query.
        """
        is_whole = False

        def blocks(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
            nonlocal is_whole
            while block := list(itertools.islice(rows, STREAM_ROWS)):
                yield block
            is_whole = True

        try:
            with self._select_errors():
                client = self._connected()
                rows = client.execute_iter(
                    sql,
                    dict(parameters or {}),
                    with_column_types=True,
                    settings=dict(settings or {}),
                    query_id=query_id,
                )
                columns = next(rows)
                told = client.last_query.progress
            yield RowStream(
                _result_columns(columns), self._checked_blocks(blocks(rows)), lambda: int(told.rows)
            )
        finally:
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
        self, sql: str, *, settings: Mapping[str, object], max_rows: int, max_bytes: int
    ) -> Excerpt:
        """As `select`, but reads no more than whole blocks of `max_bytes` in all, and `max_rows`.

        The bytes are those of the answer before compression: ClickHouse counts a constant once for
        a whole block and so lets through what is far beyond its own max_result_bytes. Where there is
        more, the connection is given up, at which the server cancels the query.
        """
        columns: tuple[ResultColumn, ...] = ()
        rows: list[tuple[Any, ...]] = []
        client = self._connected()
        try:
            answer = client.execute_iter(sql, with_column_types=True, settings=dict(settings))
            # As `use_client_time_zone` among the settings, which the server might refuse.
            context = client.connection.context
            context.settings = context.settings | {"use_client_time_zone": True}
            told = client.last_query
            source = client.connection.block_in
            source.fin = CompressedBufferedReader(_Meter(source.read_block, max_bytes), BUFFER_SIZE)
            columns = tuple(ResultColumn(name, kind) for name, kind in next(answer, ()))
            is_whole = True
            for row in answer:
                if len(rows) == max_rows:
                    is_whole = False
                    break
                rows.append(row)
        except _TooLong:
            is_whole = False
        except Exception as error:
            if not rows or getattr(error, "code", None) != _RESULT_TOO_LARGE:
                raise self._select_error(error) from error
            is_whole = False
        if not is_whole:
            self.close()
        return Excerpt(columns, rows, is_whole, told.progress.rows)

    def abort(self) -> None:
        """Ends this connection for good, from any thread: the call under way and all later ones raise
        Abandoned, and the server cancels its query within a moment, for which no right is needed."""
        self._is_aborted = True
        client = self._client
        if client is not None:
            # Not closed: its number could be another connection's before the other thread looks.
            with contextlib.suppress(OSError, AttributeError):
                client.connection.socket.shutdown(socket.SHUT_RDWR)

    def execute(self, statement: str) -> None:
        """Runs a statement that answers nothing (DDL). Raises as `select` does."""
        try:
            self._connected().execute(statement)
        except driver_errors.ServerException as error:
            raise self._statement_error(error) from error
        except (driver_errors.Error, OSError, EOFError) as error:
            raise self._unavailable(error) from error

    def describe(self) -> LiveTable | None:
        """What the server says of the configured table; None where there is none."""
        name = {"database": self._settings.database, "table": self._settings.table}
        found = self.select(
            "SELECT engine, sorting_key, partition_key, engine_full FROM system.tables "
            "WHERE database = {database:String} AND name = {table:String}",
            name,
        ).rows
        if not found:
            return None
        engine, sorting_key, partition_key, engine_full = found[0]
        columns = self.select(
            "SELECT name, type, compression_codec FROM system.columns "
            "WHERE database = {database:String} AND table = {table:String} ORDER BY position",
            name,
        ).rows
        is_replicated = engine.startswith(("Replicated", "Shared"))
        setting = schema.REPLICATED_WINDOW_SETTING if is_replicated else schema.WINDOW_SETTING
        return LiveTable(
            engine=engine,
            sorting_key=sorting_key,
            partition_key=partition_key,
            ttl=_between(engine_full, " TTL ", " SETTINGS "),
            window=self._window(setting, engine_full),
            columns=tuple(LiveColumn(*column) for column in columns),
        )

    def has_right(self, right: str) -> bool:
        """Whether the user has SELECT or INSERT on the configured table."""
        return bool(self.select(f"CHECK GRANT {right} ON {self.table}").rows[0][0])

    def check_profile(self) -> None:
        """Raises NeedsOperator where the user's profile forbids writing, whatever was granted."""
        found = self.select("SELECT value FROM system.settings WHERE name = 'readonly'").rows
        if found != [("0",)]:
            raise NeedsOperator(OPERATOR_ERRORS[_READ_ONLY])

    def _window(self, setting: str, engine_full: str) -> int:
        own = _between(engine_full, f" {setting} = ", ",")
        if own:
            return int(own)
        return int(
            self.select(
                "SELECT value FROM system.merge_tree_settings WHERE name = {name:String}",
                {"name": setting},
            ).rows[0][0]
        )

    def _connected(self) -> Client:
        if self._is_aborted:
            raise Abandoned("the connection was given up")
        if self._client is None:
            settings = self._settings
            _check_ca_file(settings.ca_file)
            first, *others = self._hosts
            compression: str | bool = settings.compression_method()
            session: dict[str, object] = {"server_side_params": True}
            if self._is_confined:
                # `excerpt` counts what it unpacks, in whatever method the server chooses.
                compression = "lz4" if compression == "none" else compression
            elif compression == "none":
                compression = False
            else:
                # The server answers in a method of its own choice unless told.
                session["network_compression_method"] = str(compression).upper()
            self._client = Client(
                host=first[0],
                port=first[1],
                alt_hosts=",".join(_authority(host, port) for host, port in others) or None,
                database=settings.database,
                user=settings.user,
                password=settings.password,
                secure=settings.is_secure,
                ca_certs=settings.ca_file,
                client_name=self._client_name,
                connect_timeout=min(CONNECT_SECONDS, settings.timeout_seconds),
                send_receive_timeout=settings.timeout_seconds,
                sync_request_timeout=min(CONNECT_SECONDS, settings.timeout_seconds),
                compression=compression,
                settings=session,
                # An unknown setting is an error: a server that does not know the deduplication
                # token would otherwise insert twice without a word.
                settings_is_important=True,
                tcp_keepalive=True,
            )
        if self._traceparent is not None:
            told = {"opentelemetry_traceparent": None, **trace_settings(self._traceparent())}
            self._client.client_settings.update(told)
        return self._client

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

    def _select_error(self, error: Exception) -> Exception:
        """What a caller of `select` is told of it. Raises it where that is no affair of ours."""
        if self._is_aborted:
            self.close()
            return Abandoned("the connection was given up")
        if isinstance(error, driver_errors.ServerException):
            return self._statement_error(error)
        if isinstance(error, NotImplementedError):
            self.close()
            return StatementRejected(0, "UNKNOWN_TYPE", str(error))
        if isinstance(error, driver_errors.UnknownTypeError):
            self.close()
            told = f"{error.message}: cast that column to String"
            return StatementRejected(50, "UNKNOWN_TYPE", told)
        if isinstance(error, (driver_errors.Error, OSError, EOFError)):
            return self._unavailable(error)
        self.close()
        raise error

    def _statement_error(self, error: driver_errors.ServerException) -> OctaneError:
        message = plain_message(error.message)
        if error.code in _CONNECTION_ERRORS:
            return self._server_unavailable(error.code, message)
        return StatementRejected(error.code, error_name(error.code), message)

    def _server_unavailable(self, code: int, message: str) -> Unavailable:
        self._fail_over()
        told = f"ClickHouse error {code}: {message.rstrip('. ')}"
        if code in OPERATOR_ERRORS:
            return NeedsOperator(f"{told}; {OPERATOR_ERRORS[code]}")
        return Unavailable(told)

    def _unavailable(self, error: BaseException) -> Unavailable:
        where = ", ".join(_authority(host, port) for host, port in self._hosts)
        self._fail_over()
        if isinstance(error, driver_errors.UnexpectedPacketFromServerError):
            return NeedsOperator(
                f"what listens at {where} does not speak ClickHouse's native protocol: "
                "check CLICKHOUSE_HOST, CLICKHOUSE_PORT and CLICKHOUSE_SECURE"
            )
        said = getattr(error, "message", None) or str(error) or type(error).__name__
        return Unavailable(
            f"cannot talk to ClickHouse at {where}: {' '.join(said.split())}; "
            "check CLICKHOUSE_HOST, CLICKHOUSE_PORT and CLICKHOUSE_SECURE"
        )

    def _fail_over(self) -> None:
        """The next call begins with the next server of the list."""
        self.close()
        self._hosts = [*self._hosts[1:], self._hosts[0]]


def trace_settings(traceparent: str | None) -> dict[str, object]:
    """For `settings` of a select: has the server's spans belong to the trace. None for no trace.

    `traceparent` is a valid W3C header of version 00. The driver (0.2.11) writes the trace's number with
    its halves exchanged, so they are exchanged here; a test against the server notices if that changes.
    """
    if traceparent is None:
        return {}
    version, trace, parent, flags = traceparent.split("-")
    exchanged = "-".join((version, trace[16:] + trace[:16], parent, flags))
    return {"opentelemetry_traceparent": exchanged}


class _TooLong(Exception):
    pass


class _Meter:
    """Passes on what a connection unpacks until that is more than allowed, then raises _TooLong."""

    def __init__(self, read_block: Callable[[], bytes], max_bytes: int) -> None:
        self._read_block = read_block
        self._left = max_bytes

    def __call__(self) -> bytes:
        block = self._read_block()
        self._left -= len(block)
        if self._left < 0:
            raise _TooLong
        return block


_CONNECTION_ERRORS = frozenset(
    {
        192,  # UNKNOWN_USER
        193,  # WRONG_PASSWORD
        194,  # REQUIRED_PASSWORD
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        516,  # AUTHENTICATION_FAILED
        745,  # SERVER_OVERLOADED
    }
)
"""Errors that say nothing of the statement but that this server does not serve us now."""

_NAMES = {
    code: name
    for name, code in vars(driver_errors.ErrorCodes).items()
    if name.isupper() and isinstance(code, int)
}


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


def _result_columns(columns: Sequence[tuple[str, str]]) -> tuple[ResultColumn, ...]:
    return tuple(ResultColumn(name, kind) for name, kind in columns)


def error_name(code: int) -> str:
    """ClickHouse's own name of one of its error codes."""
    return str(_NAMES.get(code, "UNKNOWN"))


def plain_message(message: str) -> str:
    """The server's message on one line, without its stack trace and the exception's class."""
    text = message.partition("Stack trace:")[0].strip()
    # What to do about a forgotten password, at length, follows a failed login.
    text = text.partition("If you use ClickHouse Cloud")[0].strip()
    return " ".join(text.removeprefix("DB::Exception: ").split())


def _check_ca_file(path: str | None) -> None:
    """The driver's own complaint would be taken for one about the connection."""
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        reason = (
            "it holds no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        )
        raise NeedsOperator(f"CLICKHOUSE_CA_FILE: cannot use {path}: {reason}") from error


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _between(text: str, before: str, after: str) -> str:
    _, found, rest = text.partition(before)
    return rest.partition(after)[0].strip() if found else ""
