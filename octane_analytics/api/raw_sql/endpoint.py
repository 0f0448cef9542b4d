"""`POST /query`: a statement of the client's own, judged, run within limits, logged.

Owns the order of the steps and the answer; what may run is `guard`'s to say, what it may take is
`terms`'. Nothing of a statement is executed before it is judged.
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
from octane_analytics.api.raw_sql.query_settings import QuerySettings
from octane_analytics.api.raw_sql.result import OFFERED, SerializedResult, serialize
from octane_analytics.api.raw_sql.validator import AccessRules
from octane_analytics.api.request_bodies import QueryRequest, decoded
from octane_analytics.api.results import formats
from octane_analytics.api.results.formats import Format
from octane_analytics.api.results.json_values import encode
from octane_analytics.clickhouse.connection import trace_settings
from octane_analytics.errors import QueryError, StatementRejected, Unavailable
from octane_analytics.telemetry.logging import fields

_PINNED = frozenset({115, 164, 452})
"""UNKNOWN_SETTING, READONLY, SETTING_CONSTRAINT_VIOLATION: the profile is not what it was."""
_UNKNOWN_FUNCTION = 46

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Account:
    """What the log line tells of one query."""

    fingerprint: str = ""
    rows_read: int = 0
    result_rows: int = 0
    is_truncated: bool = False
    outcome: str = "ok"


class RawSqlEndpoint:
    """The endpoint. `user` is ClickHouse's, for log lines; `on_rows_read` is told for each answer how
    many rows ClickHouse has read for it."""

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
        self._terms = QuerySettings(limits)
        self._user = user
        self._on_rows_read = on_rows_read

    def close(self) -> None:
        self._pool.close()

    async def query(self, request: Request) -> Response:
        asked = await decoded(request, QueryRequest)
        if not asked.sql.strip():
            raise QueryError(422, "invalid_body", "sql is empty")
        given = statement_parameters.checked(asked.params)
        chosen = formats.choose(asked.format, request.headers.get("accept", ""), OFFERED)
        account = _Account()
        started = time.perf_counter()
        comment = str(request.state.request_id)
        traced = trace_settings(request.state.traceparent)

        def job(connection: PooledConnection) -> SerializedResult:
            return self._answer(connection, asked, given, chosen, comment, traced, account)

        try:
            answer = await cancel_on_disconnect(request.receive, self._pool.run(job))
        except Unavailable as error:
            account.outcome = "unavailable"
            log.error(
                "ClickHouse cannot serve",
                extra=fields(error=str(error), clickhouse_user=self._user, request_id=comment),
            )
            raise errors.unavailable(error) from error
        except QueryError as error:
            account.outcome = error.code
            raise
        except ClientDisconnect:
            account.outcome = "client_gone"
            raise
        except BaseException:
            account.outcome = "failed"
            raise
        finally:
            self._record(request, account, time.perf_counter() - started)
        headers = {
            "Content-Type": chosen.media_type,
            "X-Row-Limit": str(self._limits.result_rows),
            "X-Truncated": "true" if answer.is_truncated else "false",
        }
        return PacedResponse(answer.body, headers=headers)

    async def tables(self, request: Request) -> Response:
        """`GET /schema`."""
        comment = str(request.state.request_id)

        def job(connection: PooledConnection) -> list[table_listing.TableColumns]:
            settings = self._terms.negotiate(connection, comment)
            try:
                return table_listing.read(connection, self._rules, settings)
            except StatementRejected as error:
                raise errors.from_report(error) from error

        try:
            found = await cancel_on_disconnect(request.receive, self._pool.run(job))
        except Unavailable as error:
            log.error(
                "ClickHouse cannot serve",
                extra=fields(error=str(error), clickhouse_user=self._user, request_id=comment),
            )
            raise errors.unavailable(error) from error
        return Response(encode({"tables": found}), media_type="application/json")

    def _answer(
        self,
        connection: PooledConnection,
        asked: QueryRequest,
        given: Mapping[str, object],
        chosen: Format,
        comment: str,
        traced: Mapping[str, object],
        account: _Account,
    ) -> SerializedResult:
        started = time.perf_counter()
        try:
            settings = self._terms.negotiate(connection, comment)
        except StatementRejected as error:
            # The statement is the service's own: no fault of the client's.
            log.error("query settings unknown", extra=fields(error=str(error), request_id=comment))
            raise errors.unavailable(Unavailable(str(error))) from error
        try:
            account.fingerprint = validate(connection, asked.sql, given, self._rules, settings)
            excerpt = connection.excerpt(
                asked.sql,
                given,
                settings={**settings, **traced},
                max_rows=self._limits.result_rows,
                max_bytes=self._limits.result_bytes,
            )
        except StatementRejected as error:
            if error.code in _PINNED:
                self._terms.forget()
            raise errors.from_client(error) from error
        account.rows_read = excerpt.rows_read
        self._on_rows_read(excerpt.rows_read)
        answer = serialize(
            excerpt,
            chosen,
            self._limits.result_bytes,
            started,
            is_csv_raw=asked.csv_raw,
        )
        account.result_rows, account.is_truncated = answer.row_count, answer.is_truncated
        return answer

    def _record(self, request: Request, account: _Account, seconds: float) -> None:
        log.info(
            "raw query",
            extra=fields(
                caller=getattr(request.state, "caller_name", "anonymous"),
                fingerprint=account.fingerprint,
                outcome=account.outcome,
                ms=round(seconds * 1000, 3),
                rows_read=account.rows_read,
                result_rows=account.result_rows,
                truncated=account.is_truncated,
                request_id=str(request.state.request_id),
            ),
        )


def validate(
    connection: PooledConnection,
    sql: str,
    given: Mapping[str, object],
    rules: AccessRules,
    settings: Mapping[str, object],
) -> str:
    """The statement's fingerprint (ClickHouse's normalizedQueryHash) if it may run with these values.

    Raises QueryError (403) if it may not, StatementRejected for what is no statement. Executes nothing
    of it.
    """
    asking = {name: value for name, value in settings.items() if name != "limit"}
    probed = _probed(connection, sql, asking)
    quoted_names.check(probed)
    if validator.check_ast(
        _explained(connection, validator.EXPLAIN_AST, sql, given, asking), rules
    ):
        return probed.fingerprint
    tree = _explained(connection, validator.EXPLAIN_TREE, sql, given, asking)
    findings = validator.check_tree(tree, rules, quoted_names.unquoted(probed))
    if findings.tables:
        names: dict[str, object] = {"pairs": validator.pairs(findings, rules)}
        found = connection.select(validator.LOOK_UP, names, settings=asking)
        validator.check_tables([(str(row[0]), str(row[1])) for row in found.rows], rules)
    if findings.functions:
        names = {"names": sorted(findings.functions)}
        found = connection.select(validator.LOOK_UP_FUNCTIONS, names, settings=asking)
        validator.check_functions([str(row[0]) for row in found.rows])
    return probed.fingerprint


def _probed(
    connection: PooledConnection, sql: str, settings: Mapping[str, object]
) -> quoted_names.Probed:
    try:
        found = connection.select(quoted_names.PROBE, {"statement": sql}, settings=settings)
    except StatementRejected as error:
        if error.code == _UNKNOWN_FUNCTION:
            raise QueryError(
                501, "unsupported_server", "raw SQL needs ClickHouse 26.5 or newer"
            ) from error
        told = quoted_names.without_probe(str(error))
        raise StatementRejected(error.code, error.name, told) from error
    fingerprint, names, formatted_names, patterns, has_identifier = found.rows[0]
    return quoted_names.Probed(
        str(fingerprint), names, formatted_names, patterns, bool(has_identifier)
    )


def _explained(
    connection: PooledConnection,
    prefix: str,
    sql: str,
    given: Mapping[str, object],
    settings: Mapping[str, object],
) -> list[str]:
    try:
        found = connection.select(prefix + sql, given, settings=settings)
    except StatementRejected as error:
        told = validator.located(str(error), prefix)
        raise StatementRejected(error.code, error.name, told) from error
    return [str(row[0]) for row in found.rows]
