"""Whether ClickHouse has what worker and API need. Only reads."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.results import Result
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.views import View, view_findings
from octane_analytics.errors import NeedsOperator, OctaneError, StatementRejected
from octane_analytics.operations.checks.finding import Finding, fail, failed, ok, warn
from octane_analytics.settings.sections import Settings

MAX_SKEW_SECONDS = 5.0
LEAST_WINDOW_MINUTES = 10.0
"""A token is to be remembered until the partition's next owner has repeated the insert: a session's
time-out, a restart, and a few failed attempts."""
_EXACTLY_ONCE = "exactly-once"
_LOW_SHARE, _LOW_BYTES = 0.10, 1 << 30
_DISKS = """
SELECT name, free_space, total_space FROM system.disks WHERE name IN (
    SELECT arrayJoin(disks) FROM system.storage_policies WHERE policy_name = (
        SELECT storage_policy FROM system.tables
        WHERE database = {database:String} AND name = {table:String}))
"""


class CheckedServer(Protocol):
    """`clickhouse.ClickHouse`, as far as it is needed here."""

    @property
    def table(self) -> TableName: ...
    def select(self, sql: str, parameters: Mapping[str, object] | None = None) -> Result: ...
    def describe(self) -> LiveTable | None: ...
    def views(self) -> list[View]: ...
    def has_right(self, right: str) -> bool: ...
    def check_profile(self) -> None: ...


def check_clickhouse(
    server: CheckedServer,
    where: str,
    settings: Settings,
    partitions: Callable[[], int | None],
    now: Callable[[], float],
) -> Iterator[Finding]:
    """In order, and no further than what comes later can be told.

    `where` names the server; `partitions` answers how many the topic has, None where nobody knows;
    `now` in epoch seconds.
    """
    subject = f"clickhouse {where}"
    try:
        ((version, milliseconds),) = server.select(
            "SELECT version(), toUnixTimestamp64Milli(now64(3))"
        ).rows
    except OctaneError as error:
        yield _failed(subject, error)
        return
    ahead_seconds = milliseconds / 1000 - now()
    yield ok(subject, f"answers as version {version}")
    yield _clock(where, ahead_seconds)
    try:
        live = server.describe()
        yield from _rights(server, settings)
    except OctaneError as error:
        yield _failed(f"table at {where}", error)
        return
    if live is None:
        yield fail(
            f"table at {where}",
            f"{server.table} is not there, or the user may not see it: run "
            "`octane-analytics schema apply`",
        )
        return
    yield _table(where, server.table, live, settings)
    yield _window(where, live, settings, partitions())
    yield from _views(where, server, live, settings)
    yield _disks(where, server)


def _failed(subject: str, error: OctaneError) -> Finding:
    if isinstance(error, StatementRejected):
        advice = OPERATOR_ERRORS.get(error.code, "look at the server's log")
        return failed(
            subject, NeedsOperator(f"ClickHouse refuses: {str(error).rstrip('. ')}; {advice}")
        )
    return failed(subject, error)


def _clock(where: str, ahead_seconds: float) -> Finding:
    subject = f"clock and {where}"
    if abs(ahead_seconds) > MAX_SKEW_SECONDS:
        side = "ahead of" if ahead_seconds > 0 else "behind"
        return warn(
            subject, f"that server is {abs(ahead_seconds):.0f} s {side} this host: set both by NTP"
        )
    return ok(subject, "agree")


def _rights(server: CheckedServer, settings: Settings) -> Iterator[Finding]:
    user = settings.clickhouse.user
    subject = f"rights of {user}"
    lacking = [right for right in ("SELECT", "INSERT") if not server.has_right(right)]
    if not lacking:
        yield ok(subject, f"SELECT and INSERT on {server.table}")
    if "INSERT" in lacking:
        try:
            server.check_profile()
        except NeedsOperator as error:
            yield failed(subject, error)
            lacking.remove("INSERT")  # it may have been granted: with that profile it does not show
    for right in lacking:
        yield fail(
            subject, f"lacks {right} on {server.table}: GRANT {right} ON {server.table} TO {user}"
        )


def _table(where: str, name: TableName, live: LiveTable, settings: Settings) -> Finding:
    subject = f"table at {where}"
    missing = set(schema.COLUMN_NAMES) - {column.name for column in live.columns}
    if missing:
        return fail(
            subject,
            f"{name} lacks {', '.join(sorted(missing))}: see `octane-analytics schema check`",
        )
    if not live.is_replicated and len(settings.clickhouse.hosts()) > 1:
        return fail(
            subject,
            f"{name} is a {live.engine}, and CLICKHOUSE_HOST lists several servers: they must be "
            "replicas of one table, or what one has inserted another inserts again",
        )
    differences = [found for found in schema.differences(live) if live.window_setting not in found]
    if differences:
        return warn(subject, f"{'; '.join(differences)}; see `octane-analytics schema check`")
    return ok(subject, f"{name} is as the contract says")


def _window(where: str, live: LiveTable, settings: Settings, partitions: int | None) -> Finding:
    subject = f"deduplication at {where}"
    if settings.batch.delivery != _EXACTLY_ONCE:
        return ok(subject, f"not needed: DELIVERY={settings.batch.delivery}")
    if live.window < 1:
        return fail(subject, "the table has no window: run `octane-analytics schema apply`")
    if live.is_window_short_lived:
        return warn(
            subject,
            f"window of {live.window:,} inserts and {live.window_seconds:,} s: a batch that waits "
            "longer is looked for row by row. Run `octane-analytics schema apply`, which sets "
            f"{schema.REPLICATED_WINDOW_SECONDS_SETTING} to {schema.DEDUPLICATION_WINDOW_SECONDS:,}",
        )
    age = "" if live.window_seconds is None else f" and {live.window_seconds:,} s"
    if partitions is None:
        return ok(subject, f"window of {live.window:,} inserts{age}")
    minutes = schema.window_minutes(live.window, partitions / settings.batch.flush_seconds)
    told = (
        f"window of {live.window:,} inserts{age}, {minutes:,.0f} minutes of {partitions} partitions "
        f"with one insert each {settings.batch.flush_seconds:g} s"
    )
    if minutes < LEAST_WINDOW_MINUTES:
        wanted = int(live.window * LEAST_WINDOW_MINUTES / minutes) + 1
        return warn(
            subject,
            f"{told}: run `octane-analytics schema apply --window {wanted}` or raise FLUSH_INTERVAL",
        )
    return ok(subject, told)


def _views(
    where: str, server: CheckedServer, live: LiveTable, settings: Settings
) -> Iterator[Finding]:
    subject = f"views at {where}"
    if settings.batch.delivery != _EXACTLY_ONCE:
        return
    try:
        views = server.views()
    except OctaneError as error:
        yield _failed(subject, error)
        return
    findings = view_findings(server.table, live, views)
    for finding in findings:
        yield (fail if finding.is_refusal else warn)(subject, finding.message)
    if views and not findings:
        names = ", ".join(str(view.name) for view in views)
        yield ok(subject, f"{names}: their targets recognise repeated inserts")


def _disks(where: str, server: CheckedServer) -> Finding:
    subject = f"disk at {where}"
    name = server.table
    try:
        found = server.select(_DISKS, {"database": name.database, "table": name.table}).rows
    except StatementRejected:
        return warn(subject, "not seen: GRANT SELECT ON system.disks, system.storage_policies")
    except OctaneError as error:
        return failed(subject, error)
    told = ", ".join(f"{disk} has {_gigabytes(free)} of {_gigabytes(all_)} free"
                     for disk, free, all_ in found)  # fmt: skip
    if any(free < _LOW_BYTES for _, free, _ in found):
        return fail(subject, f"{told}: free or add space, or inserts will stop")
    if any(all_ and free / all_ < _LOW_SHARE for _, free, all_ in found):
        return warn(subject, f"{told}: free or add space soon")
    return ok(subject, told or "no disk is told of")


def _gigabytes(size: int) -> str:
    return f"{size / (1 << 30):,.1f} GiB"
