"""`POST /query`: validates a client's statement, runs it within limits, and logs it.

The rules are in `validator`, the limits in `query_settings`. No part of a statement is executed
before it is validated.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from octane_analytics.api import errors
from octane_analytics.api.connection_pool import ConnectionPool, PooledConnection
from octane_analytics.api.disconnect import cancel_on_disconnect
from octane_analytics.api.limits import QueryLimits
from octane_analytics.api.raw_sql import (
    quoted_names,
    statement_parameters,
    table_listing,
    validator,
)
from octane_analytics.api.raw_sql.paced_response import PacedResponse
from octane_analytics.api.raw_sql.query_settings import QuerySettings, without_limit
from octane_analytics.api.raw_sql.result import OFFERED, SerializedResult, serialize
from octane_analytics.api.raw_sql.validator import AccessRules
from octane_analytics.api.request_bodies import QueryRequest, decoded
from octane_analytics.api.results import formats
from octane_analytics.api.results.formats import Format
from octane_analytics.api.results.json_values import encode
from octane_analytics.clickhouse.connection import trace_settings
from octane_analytics.errors import QueryError, StatementRejected, Unavailable
from octane_analytics.telemetry.logging import fields

_PROFILE_CHANGED = frozenset({115, 164, 452})
"""UNKNOWN_SETTING, READONLY, SETTING_CONSTRAINT_VIOLATION: the negotiated settings are outdated."""
_UNKNOWN_FUNCTION = 46

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _QueryLogEntry:
    """Fields of the log line of one query."""

    fingerprint: str = ""
    rows_read: int = 0
    result_rows: int = 0
    is_truncated: bool = False
    outcome: str = "ok"


class RawSqlEndpoint:
    """Raw SQL endpoint.

    `user` is the ClickHouse user, for log lines; `on_rows_read` is called with the number of rows that
    ClickHouse read for an answer.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        rules: AccessRules,
        limits: QueryLimits,
        user: str,
        on_rows_read: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._pool = pool
        self._rules = rules
        self._limits = limits
        self._query_settings = QuerySettings(limits)
        self._user = user
        self._on_rows_read = on_rows_read

    def close(self) -> None:
        self._pool.close()

    async def query(self, request: Request) -> Response:
        body = await decoded(request, QueryRequest)
        if not body.sql.strip():
            raise QueryError(422, "invalid_body", "sql is empty")
        parameters = statement_parameters.validate(body.params)
        output_format = formats.choose(body.format, request.headers.get("accept", ""), OFFERED)
        log_entry = _QueryLogEntry()
        started = time.perf_counter()
        comment = str(request.state.request_id)
        trace = trace_settings(request.state.traceparent)

        def job(connection: PooledConnection) -> SerializedResult:
            return self._execute(
                connection, body, parameters, output_format, comment, trace, log_entry
            )

        try:
            answer = await cancel_on_disconnect(request.receive, self._pool.run(job))
        except Unavailable as error:
            log_entry.outcome = "unavailable"
            raise self._unavailable(error, comment) from error
        except QueryError as error:
            log_entry.outcome = error.code
            raise
        except ClientDisconnect:
            log_entry.outcome = "client_gone"
            raise
        except BaseException:
            log_entry.outcome = "failed"
            raise
        finally:
            self._log(request, log_entry, time.perf_counter() - started)
        headers = {
            **output_format.headers("query"),
            **formats.server_timing(time.perf_counter() - started),
            **formats.read_headers(answer.read),
            "X-Row-Limit": str(self._limits.result_rows),
            "X-Truncated": "true" if answer.is_truncated else "false",
        }
        return PacedResponse(answer.body, headers=headers)

    async def tables(self, request: Request) -> Response:
        """Respond to `GET /schema`."""
        comment = str(request.state.request_id)

        def job(connection: PooledConnection) -> list[table_listing.TableColumns]:
            settings = self._query_settings.negotiate(connection, comment)
            try:
                return table_listing.list_tables(connection, self._rules, settings)
            except StatementRejected as error:
                raise errors.from_report(error) from error

        try:
            tables = await cancel_on_disconnect(request.receive, self._pool.run(job))
        except Unavailable as error:
            raise self._unavailable(error, comment) from error
        return Response(encode({"tables": tables}), media_type="application/json")

    def _execute(
        self,
        connection: PooledConnection,
        body: QueryRequest,
        parameters: Mapping[str, object],
        output_format: Format,
        comment: str,
        trace: Mapping[str, object],
        log_entry: _QueryLogEntry,
    ) -> SerializedResult:
        started = time.perf_counter()
        try:
            settings = self._query_settings.negotiate(connection, comment)
        except StatementRejected as error:
            # A rejection of the service's own statement is not the client's error.
            log.error(
                "query settings not read; request answered 503",
                extra=fields(error=str(error), request_id=comment),
            )
            raise errors.unavailable(Unavailable(str(error))) from error
        try:
            log_entry.fingerprint = validate(
                connection, body.sql, parameters, self._rules, settings
            )
            excerpt = connection.excerpt(
                body.sql,
                parameters,
                settings={**settings, **trace},
                max_rows=self._limits.result_rows,
                max_bytes=self._limits.result_bytes,
            )
        except StatementRejected as error:
            if error.code in _PROFILE_CHANGED:
                self._query_settings.forget()
            raise errors.from_client(error) from error
        log_entry.rows_read = excerpt.data_read.rows
        self._on_rows_read(excerpt.data_read.rows)
        answer = serialize(
            excerpt,
            output_format,
            self._limits.result_bytes,
            started,
            is_csv_raw=body.csv_raw,
        )
        log_entry.result_rows, log_entry.is_truncated = answer.row_count, answer.is_truncated
        return answer

    def _unavailable(self, error: Unavailable, request_id: str) -> QueryError:
        """Log the outage and return the error (503) for the client."""
        log.error(
            "ClickHouse unavailable; request answered 503",
            extra=fields(error=str(error), clickhouse_user=self._user, request_id=request_id),
        )
        return errors.unavailable(error)

    def _log(self, request: Request, log_entry: _QueryLogEntry, seconds: float) -> None:
        log.info(
            "raw query",
            extra=fields(
                caller=getattr(request.state, "caller_name", "anonymous"),
                fingerprint=log_entry.fingerprint,
                outcome=log_entry.outcome,
                ms=round(seconds * 1000, 3),
                rows_read=log_entry.rows_read,
                result_rows=log_entry.result_rows,
                truncated=log_entry.is_truncated,
                request_id=str(request.state.request_id),
            ),
        )


def validate(
    connection: PooledConnection,
    sql: str,
    parameters: Mapping[str, object],
    rules: AccessRules,
    settings: Mapping[str, object],
) -> str:
    """Return the fingerprint (ClickHouse's normalizedQueryHash) of a statement that is allowed.

    Raises QueryError (403) for a statement that is not allowed, StatementRejected for invalid SQL.
    Executes no part of the statement.
    """
    own_settings = without_limit(settings)
    probed = _probe(connection, sql, own_settings)
    quoted_names.check(probed)
    syntax = validator.check_ast(
        _explain(connection, validator.EXPLAIN_AST, sql, parameters, own_settings), rules
    )
    if syntax.is_description:
        return probed.fingerprint
    tree = _explain(connection, validator.EXPLAIN_TREE, sql, parameters, own_settings)
    lookup = validator.check_tree(
        tree, rules, quoted_names.unquoted(probed), renames_columns=syntax.renames_columns
    )
    if lookup.tables:
        names: dict[str, object] = {"pairs": validator.qualified_names(lookup, rules)}
        found = connection.select(validator.SELECT_TABLES, names, settings=own_settings)
        validator.check_tables([(str(row[0]), str(row[1])) for row in found.rows], rules)
    if lookup.functions:
        names = {"names": sorted(lookup.functions)}
        found = connection.select(validator.SELECT_FUNCTIONS, names, settings=own_settings)
        validator.check_functions([str(row[0]) for row in found.rows])
    return probed.fingerprint


def _probe(
    connection: PooledConnection, sql: str, settings: Mapping[str, object]
) -> quoted_names.Probed:
    try:
        found = connection.select(quoted_names.PROBE, {"statement": sql}, settings=settings)
    except StatementRejected as error:
        if error.code == _UNKNOWN_FUNCTION:
            raise QueryError(
                501, "unsupported_server", "raw SQL needs ClickHouse 26.5 or newer"
            ) from error
        message = quoted_names.without_probe(str(error))
        raise StatementRejected(error.code, error.name, message) from error
    fingerprint, names, formatted_names, patterns, has_identifier, types, *others = found.rows[0]
    has_expression, has_dropped_clause = map(bool, others)
    return quoted_names.Probed(
        str(fingerprint),
        names,
        formatted_names,
        patterns,
        has_identifier_parameter=bool(has_identifier),
        parameter_types=types,
        has_qualified_expression=has_expression,
        has_dropped_clause=has_dropped_clause,
    )


def _explain(
    connection: PooledConnection,
    prefix: str,
    sql: str,
    parameters: Mapping[str, object],
    settings: Mapping[str, object],
) -> list[str]:
    try:
        found = connection.select(prefix + sql, parameters, settings=settings)
    except StatementRejected as error:
        message = validator.relocate(str(error), prefix)
        raise StatementRejected(error.code, error.name, message) from error
    return [_line(row[0]) for row in found.rows]


def _line(value: str | bytes) -> str:
    """Return a line of an EXPLAIN, which the driver returns as bytes if a literal is not UTF-8."""
    # No rule allows a text because it has U+FFFD, and names with other bytes are refused before.
    return value.decode(errors="replace") if isinstance(value, bytes) else value
