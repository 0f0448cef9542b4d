"""Steps of `octane-analytics schema` on one server: create database and table, widen the windows.

Each prints what it changed.
"""

from dataclasses import replace

import click

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS, UNKNOWN_DATABASE
from octane_analytics.clickhouse.schema import LiveTable
from octane_analytics.errors import StatementRejected
from octane_analytics.settings.connections import ClickHouseSettings

CLIENT_NAME = "octane-analytics schema"
_REPLICA_EXISTS = 253
_NO_DDL_QUEUE = 392
_ADVICE = OPERATOR_ERRORS | {
    _REPLICA_EXISTS: "if this server has lost its disk, remove its old replica on another one with "
    "SYSTEM DROP REPLICA, then repeat the command",
    _NO_DDL_QUEUE: "this server does not run statements ON CLUSTER: leave out --on-cluster",
}


def ensure(
    clickhouse: ClickHouse, settings: ClickHouseSettings, create: str, window: int
) -> tuple[LiveTable, bool]:
    """Run `create` if the table is missing, else widen its windows; return it and whether it is new."""
    ensure_database(clickhouse, settings)
    live = describe(clickhouse)
    is_new = live is None
    if live is None:
        execute(clickhouse, create)
        click.echo(f"created table {clickhouse.table}")
        live = _created(clickhouse)
    if widen(clickhouse, live, window):
        return _created(clickhouse), is_new
    if not is_new:
        click.echo(f"table {clickhouse.table} exists: nothing to do")
    return live, is_new


def ensure_database(clickhouse: ClickHouse, settings: ClickHouseSettings) -> None:
    if not has_database(clickhouse):
        create_database(settings)
        click.echo(f"created database {schema.identifier(settings.database)}")


def _created(clickhouse: ClickHouse) -> LiveTable:
    live = describe(clickhouse)
    if live is None:
        raise StatementRejected(
            60, "UNKNOWN_TABLE", f"{clickhouse.table} was dropped right after it was created"
        )
    return live


def widen(clickhouse: ClickHouse, live: LiveTable, window: int) -> bool:
    """Widen the table's deduplication window if it is too narrow; return whether it was."""
    table = clickhouse.table
    if live.window < window:
        setting = live.window_setting
        execute(clickhouse, schema.alter_window(table, setting, window))
        click.echo(
            f"widened the deduplication window of {table} from {live.window:,} to "
            f"{window:,} inserts ({setting})"
        )
    if live.is_window_short_lived:
        setting, seconds = (
            schema.REPLICATED_WINDOW_SECONDS_SETTING,
            schema.DEDUPLICATION_WINDOW_SECONDS,
        )
        execute(clickhouse, schema.alter_window(table, setting, seconds))
        click.echo(
            f"widened the deduplication window of {table} from {live.window_seconds:,} to "
            f"{seconds:,} seconds ({setting})"
        )
    return live.window < window or live.is_window_short_lived


def describe(clickhouse: ClickHouse) -> LiveTable | None:
    """Return `ClickHouse.describe()`, or None if the database does not exist."""
    try:
        return clickhouse.describe()
    except StatementRejected as error:
        if error.code == UNKNOWN_DATABASE:
            return None
        raise with_advice(error) from error


def has_database(clickhouse: ClickHouse) -> bool:
    """Return whether the database of the settings exists.

    ClickHouse rejects every query of a connection whose default database does not exist.
    """
    try:
        clickhouse.select("SELECT 1")
    except StatementRejected as error:
        if error.code == UNKNOWN_DATABASE:
            return False
        raise with_advice(error) from error
    return True


def create_database(settings: ClickHouseSettings, cluster: str | None = None) -> None:
    """Create the database if it does not exist; with `cluster`, on all its servers."""
    system = replace(settings, database="system")
    with ClickHouse(system, client_name=CLIENT_NAME) as clickhouse:
        name = schema.identifier(settings.database)
        execute(clickhouse, f"CREATE DATABASE IF NOT EXISTS {name}{schema.on_cluster(cluster)}")


def execute(clickhouse: ClickHouse, statement: str) -> None:
    """Run the statement. Raises as `ClickHouse.select` does, with advice."""
    try:
        clickhouse.execute(statement)
    except StatementRejected as error:
        raise with_advice(error) from error


def with_advice(error: StatementRejected) -> StatementRejected:
    advice = _ADVICE.get(error.code)
    message = f"ClickHouse rejected a statement: {error}" + (f"; {advice}" if advice else "")
    return StatementRejected(error.code, error.name, message)
