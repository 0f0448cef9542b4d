"""Checks of the ClickHouse user of raw SQL: its rights and its limits. Read-only."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from octane_analytics.clickhouse.results import Result
from octane_analytics.clickhouse.schema import TableName, identifier
from octane_analytics.errors import NeedsOperator, OctaneError, StatementRejected, Unavailable
from octane_analytics.operations.checks.finding import Finding, fail, ok, warn
from octane_analytics.settings.sections import Settings

SUBJECT = "raw SQL"
_ADVICE = (
    "recreate the user with `octane-analytics schema grants` or conf/clickhouse/octane-query.xml"
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
    """Methods of `clickhouse.client.ClickHouse`, connected as that user, needed here."""

    @property
    def table(self) -> TableName: ...
    def select(self, sql: str, parameters: Mapping[str, object] | None = None) -> Result: ...


def check_no_query_user(settings: Settings) -> Finding | None:
    """Return a warning if raw SQL has no user of its own; None if it has one to be checked."""
    user, worker = settings.queries.user, settings.clickhouse.user
    if user is None:
        text = f"runs as {worker}, which may do far more than raw SQL should"
    elif user == worker:
        text = f"CLICKHOUSE_QUERY_USER is CLICKHOUSE_USER ({user}), which may do far more"
    else:
        return None
    return warn(
        SUBJECT,
        f"{text}: create a user with `octane-analytics schema grants` and set CLICKHOUSE_QUERY_USER",
    )


def check_query_user(
    server: QueryUserServer, address: str, settings: Settings
) -> Iterator[Finding]:
    """Yield the findings for one server, `address`; none if it cannot be reached, which other checks
    report. Blocks on the server."""
    user = settings.queries.user
    subject = f"{SUBJECT} at {address}"
    try:
        missing, excess = list(_missing_tables(server, settings)), list(_excess(server))
    except NeedsOperator as error:
        # That advice is about the worker's user.
        text = str(error).replace("CLICKHOUSE_USER", "CLICKHOUSE_QUERY_USER")
        text = text.replace("CLICKHOUSE_PASSWORD", "CLICKHOUSE_QUERY_PASSWORD")
        yield fail(subject, text)
        return
    except Unavailable:
        return
    except StatementRejected as error:
        yield fail(subject, f"ClickHouse refuses {user}: {str(error).rstrip('. ')}; {_ADVICE}")
        return
    except OctaneError as error:
        yield fail(subject, str(error))
        return
    for table in missing:
        yield fail(subject, f"{user} lacks SELECT on {table}: GRANT SELECT ON {table} TO {user}")
    if excess:
        yield warn(subject, f"{user} {', '.join(excess)}: {_ADVICE}")
    if not missing and not excess:
        yield ok(subject, f"{user} may only read, within limits that no query can lift")


def _missing_tables(server: QueryUserServer, settings: Settings) -> Iterator[str]:
    extra = [
        f"{identifier(database)}.{name if name == '*' else identifier(name)}"
        for database, name in sorted(settings.queries.tables)
    ]
    for table in (*map(str, dict.fromkeys((server.table, _read_table(settings)))), *extra):
        if not _has_right(server, f"SELECT ON {table}"):
            yield table


def _read_table(settings: Settings) -> TableName:
    return TableName(settings.clickhouse.database, settings.clickhouse.read_table)


def _excess(server: QueryUserServer) -> Iterator[str]:
    """Yield the permissions of the user beyond those of conf/clickhouse/octane-query.xml."""
    if _has_right(server, f"INSERT ON {server.table}"):
        yield f"may INSERT into {server.table}"
    if _has_right(server, "SELECT ON *.*"):
        yield "may read every table"
    rows = server.select(_SETTINGS, {"names": ["readonly", *_LIMITS]}).rows
    found = {name: (value, bool(is_fixed)) for name, value, is_fixed in rows}
    if found["readonly"][0] != 1:
        yield f"has readonly={found['readonly'][0]:g} instead of 1"
    open_ended = [name for name in _LIMITS if not found[name][0] or not found[name][1]]
    if open_ended:
        yield f"has no enforced limit of {', '.join(open_ended)}"


def _has_right(server: QueryUserServer, right: str) -> bool:
    return bool(server.select(f"CHECK GRANT {right}").rows[0][0])
