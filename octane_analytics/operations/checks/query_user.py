"""Whether the ClickHouse user of raw SQL may do what it is for, and no more. Only reads."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from octane_analytics.clickhouse.results import Result
from octane_analytics.clickhouse.schema import TableName, identifier
from octane_analytics.errors import NeedsOperator, OctaneError, StatementRejected, Unavailable
from octane_analytics.operations.checks.finding import Finding, fail, ok, warn
from octane_analytics.settings.sections import Settings

SUBJECT = "raw SQL"
_ADVICE = (
    "make the user anew with `octane-analytics schema grants` or conf/clickhouse/octane-query.xml"
)
_LIMITS = (
    "max_execution_time",
    "max_memory_usage",
    "max_result_bytes",
    "max_rows_to_read",
    "max_bytes_to_read",
)
_SETTINGS = (
    "SELECT name, toFloat64OrZero(value), max IS NOT NULL OR readonly FROM system.settings "
    "WHERE has({names:Array(String)}, name)"
)


class QueryUserServer(Protocol):
    """`clickhouse.ClickHouse` of that user, as far as it is needed here."""

    @property
    def table(self) -> TableName: ...
    def select(self, sql: str, parameters: Mapping[str, object] | None = None) -> Result: ...


def check_no_query_user(settings: Settings) -> Finding | None:
    """What there is to say without asking a server; None where the user has to be looked at."""
    user, worker = settings.queries.user, settings.clickhouse.user
    if user is None:
        told = f"runs as {worker}, which may do far more than raw SQL should"
    elif user == worker:
        told = f"CLICKHOUSE_QUERY_USER is CLICKHOUSE_USER ({user}), which may do far more"
    else:
        return None
    return warn(
        SUBJECT,
        f"{told}: make a user for it with `octane-analytics schema grants`, set CLICKHOUSE_QUERY_USER",
    )


def check_query_user(server: QueryUserServer, where: str, settings: Settings) -> Iterator[Finding]:
    """Nothing where the server cannot be reached: other checks say so."""
    user = settings.queries.user
    subject = f"{SUBJECT} at {where}"
    try:
        rights, excess = list(_lacking(server, settings)), list(_excess(server))
    except NeedsOperator as error:
        # That advice is about the worker's user.
        told = str(error).replace("CLICKHOUSE_USER", "CLICKHOUSE_QUERY_USER")
        told = told.replace("CLICKHOUSE_PASSWORD", "CLICKHOUSE_QUERY_PASSWORD")
        yield fail(subject, told)
        return
    except Unavailable:
        return
    except StatementRejected as error:
        yield fail(subject, f"ClickHouse refuses {user}: {str(error).rstrip('. ')}; {_ADVICE}")
        return
    except OctaneError as error:
        yield fail(subject, str(error))
        return
    for table in rights:
        yield fail(subject, f"{user} lacks SELECT on {table}: GRANT SELECT ON {table} TO {user}")
    if excess:
        yield warn(subject, f"{user} {', '.join(excess)}: {_ADVICE}")
    if not rights and not excess:
        yield ok(subject, f"{user} may only read, within limits that no query can lift")


def _lacking(server: QueryUserServer, settings: Settings) -> Iterator[str]:
    extra = [
        f"{identifier(database)}.{name if name == '*' else identifier(name)}"
        for database, name in sorted(settings.queries.tables)
    ]
    for table in (str(server.table), *extra):
        if not _may(server, f"SELECT ON {table}"):
            yield table


def _excess(server: QueryUserServer) -> Iterator[str]:
    """What the user may do beyond what conf/clickhouse/octane-query.xml lets it."""
    if _may(server, f"INSERT ON {server.table}"):
        yield f"may INSERT into {server.table}"
    if _may(server, "SELECT ON *.*"):
        yield "may read every table"
    rows = server.select(_SETTINGS, {"names": ["readonly", *_LIMITS]}).rows
    found = {name: (value, bool(is_fixed)) for name, value, is_fixed in rows}
    if found["readonly"][0] != 1:
        yield f"has readonly={found['readonly'][0]:g} instead of 1"
    open_ended = [name for name in _LIMITS if not found[name][0] or not found[name][1]]
    if open_ended:
        yield f"has no limit that binds of {', '.join(open_ended)}"


def _may(server: QueryUserServer, right: str) -> bool:
    return bool(server.select(f"CHECK GRANT {right}").rows[0][0])
