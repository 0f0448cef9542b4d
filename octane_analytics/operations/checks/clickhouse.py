"""Checks of a ClickHouse server: rights, table, deduplication window, views and disks. Read-only."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.results import Result
from octane_analytics.clickhouse.rollup_table import read_state
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.table_fit import required_rights, table_fit, window_refusal
from octane_analytics.clickhouse.views import View, view_findings
from octane_analytics.errors import NeedsOperator, OctaneError, StatementRejected
from octane_analytics.operations import insert_rate
from octane_analytics.operations.checks.finding import Finding, fail, failed, ok, warn
from octane_analytics.settings.sections import Settings

MAX_SKEW_SECONDS = 5.0
MIN_WINDOW_MINUTES = 10.0
"""Least time for which a token must be remembered, so that the partition's next owner can repeat the
insert: a session timeout, a restart, and a few failed attempts."""
_DENIED = 497
_EXACTLY_ONCE = "exactly-once"
_LOW_SHARE, _LOW_BYTES = 0.10, 1 << 30
_DISKS = """
SELECT name, free_space, total_space FROM system.disks WHERE name IN (
    SELECT arrayJoin(disks) FROM system.storage_policies WHERE policy_name = (
        SELECT storage_policy FROM system.tables
        WHERE database = {database:String} AND name = {table:String}))
"""


class CheckedServer(Protocol):
    """Methods of `clickhouse.client.ClickHouse` needed here."""

    @property
    def table(self) -> TableName: ...
    def select(self, sql: str, parameters: Mapping[str, object] | None = None) -> Result: ...
    def describe(self) -> LiveTable | None: ...
    def views(self) -> list[View]: ...
    def has_right(self, right: str) -> bool: ...
    def check_profile(self) -> None: ...


def check_clickhouse(
    server: CheckedServer,
    address: str,
    settings: Settings,
    now: Callable[[], float],
) -> Iterator[Finding]:
    """Yield the findings for one server; stops at a failure that makes later checks impossible.

    `address` names the server; `now` returns epoch seconds. Blocks on the server.
    """
    subject = f"clickhouse {address}"
    try:
        ((version, milliseconds),) = server.select(
            "SELECT version(), toUnixTimestamp64Milli(now64(3))"
        ).rows
    except OctaneError as error:
        yield _failed(subject, error)
        return
    ahead_seconds = milliseconds / 1000 - now()
    yield ok(subject, f"answers as version {version}")
    yield _clock(address, ahead_seconds)
    try:
        live = server.describe()
        yield from _rights(server, live, settings)
    except OctaneError as error:
        yield _failed(f"table at {address}", error)
        return
    if live is None:
        yield fail(
            f"table at {address}",
            f"{server.table} does not exist, or the user may not see it: run "
            "`octane-analytics schema apply`",
        )
        return
    yield from _table(address, server.table, live, settings)
    yield from _rollups(address, server)
    yield _window(address, server.table, live, settings)
    yield from _views(address, server, live, settings)
    yield _disks(address, server)


def _failed(subject: str, error: OctaneError) -> Finding:
    if isinstance(error, StatementRejected):
        advice = OPERATOR_ERRORS.get(error.code, "see the server's log")
        return failed(
            subject, NeedsOperator(f"ClickHouse refuses: {str(error).rstrip('. ')}; {advice}")
        )
    return failed(subject, error)


def _clock(address: str, ahead_seconds: float) -> Finding:
    subject = f"clock and {address}"
    if abs(ahead_seconds) > MAX_SKEW_SECONDS:
        direction = "fast" if ahead_seconds > 0 else "slow"
        return warn(
            subject,
            f"the server's clock is {abs(ahead_seconds):.0f} s {direction}, compared with this host: "
            "set both by NTP",
        )
    return ok(subject, "agree")


def _rights(server: CheckedServer, live: LiveTable | None, settings: Settings) -> Iterator[Finding]:
    user = settings.clickhouse.user
    subject = f"rights of {user}"
    is_exactly_once = settings.batch.delivery == _EXACTLY_ONCE
    rights = required_rights(live, is_exactly_once=is_exactly_once)
    missing = [right for right in rights if not server.has_right(right)]
    if not missing:
        yield ok(subject, f"{', '.join(rights[:-1])} and {rights[-1]} on {server.table}")
    if "INSERT" in missing:
        try:
            server.check_profile()
        except NeedsOperator as error:
            yield failed(subject, error)
            missing.remove("INSERT")  # a read-only profile hides whether it is granted
    for right in missing:
        yield fail(
            subject, f"lacks {right} on {server.table}: GRANT {right} ON {server.table} TO {user}"
        )


def _table(address: str, name: TableName, live: LiveTable, settings: Settings) -> Iterator[Finding]:
    subject = f"table at {address}"
    is_exactly_once = settings.batch.delivery == _EXACTLY_ONCE
    servers = settings.clickhouse.topology().replicas
    fit = table_fit(
        name, live, window_user=_EXACTLY_ONCE if is_exactly_once else None, servers=servers
    )
    window = window_refusal(name, live, _EXACTLY_ONCE)  # `_window` reports it
    refusals = [refusal for refusal in fit.refusals if refusal != window]
    if refusals:
        yield fail(subject, f"{'; '.join(refusals)}; `worker` does not start")
    if fit.differences:
        listed = "; ".join(fit.differences)
        yield warn(subject, f"{listed}; see `octane-analytics schema check`")
    if not refusals and not fit.differences:
        yield ok(subject, f"{name} has the expected schema")


def _window(address: str, name: TableName, live: LiveTable, settings: Settings) -> Finding:
    subject = f"deduplication at {address}"
    if settings.batch.delivery != _EXACTLY_ONCE:
        return ok(subject, f"not needed: DELIVERY={settings.batch.delivery}")
    if refusal := window_refusal(name, live, _EXACTLY_ONCE):
        return fail(subject, refusal)
    if live.is_window_short_lived:
        return warn(
            subject,
            f"window of {live.window:,} inserts and {live.window_seconds:,} s: rows of a batch that "
            "waits longer are looked up one by one. Run `octane-analytics schema apply`, which sets "
            f"{schema.REPLICATED_WINDOW_SECONDS_SETTING} to {schema.DEDUPLICATION_WINDOW_SECONDS:,}",
        )
    age = "" if live.window_seconds is None else f" and {live.window_seconds:,} s"
    pace = settings.batch.inserts_per_second, settings.worker.procs, settings.batch.flush_seconds
    minutes, span = insert_rate.window_span(live.window, *pace)
    text = f"window of {live.window:,} inserts{age}, {span}"
    if minutes is not None and minutes < MIN_WINDOW_MINUTES:
        wanted = int(live.window * MIN_WINDOW_MINUTES / minutes) + 1
        return warn(
            subject,
            f"{text}: run `octane-analytics schema apply --window {wanted}` or lower INSERTS_PER_SECOND",
        )
    return ok(subject, text)


def _views(
    address: str, server: CheckedServer, live: LiveTable, settings: Settings
) -> Iterator[Finding]:
    subject = f"views at {address}"
    if settings.batch.delivery != _EXACTLY_ONCE:
        return
    try:
        views = server.views()
    except OctaneError as error:
        yield _failed(subject, error)
        return
    servers = settings.clickhouse.topology().replicas
    findings = view_findings(server.table, live, views, servers=servers)
    for finding in findings:
        yield (fail if finding.is_refusal else warn)(subject, finding.message)
    if views and not findings:
        names = ", ".join(str(view.name) for view in views)
        yield ok(subject, f"{names}: their targets recognise repeated inserts")


def _rollups(address: str, server: CheckedServer) -> Iterator[Finding]:
    subject = f"rollups at {address}"
    try:
        state = read_state(server.select, server.table)
    except StatementRejected as error:
        if error.code == _DENIED:
            yield warn(subject, "not visible: GRANT SELECT ON system.projections, system.parts")
        return  # an older server has none
    except OctaneError as error:
        yield _failed(subject, error)
        return
    if found := state.differences():
        yield warn(
            subject,
            f"{'; '.join(found)}: reports read these rows one by one. Run `octane-analytics schema "
            "apply --rollups`",
        )
    elif state.projections:
        yield ok(subject, f"{len(state.projections)} rollups have all rows")
    else:
        yield ok(subject, "none: reports read every event")


def _disks(address: str, server: CheckedServer) -> Finding:
    subject = f"disk at {address}"
    name = server.table
    try:
        found = server.select(_DISKS, {"database": name.database, "table": name.table}).rows
    except StatementRejected:
        return warn(subject, "not visible: GRANT SELECT ON system.disks, system.storage_policies")
    except OctaneError as error:
        return failed(subject, error)
    text = ", ".join(
        f"{disk} has {_gibibytes(free)} of {_gibibytes(total)} free" for disk, free, total in found
    )
    if any(free < _LOW_BYTES for _, free, _ in found):
        return fail(subject, f"{text}: free or add space, or inserts will stop")
    if any(total and free / total < _LOW_SHARE for _, free, total in found):
        return warn(subject, f"{text}: free or add space soon")
    return ok(subject, text or "no disk is reported")


def _gibibytes(size: int) -> str:
    return f"{size / (1 << 30):,.1f} GiB"
