"""`octane-analytics schema`: print, create and check the table."""

from dataclasses import replace

import click

from octane_analytics.cli import options
from octane_analytics.cli.commands.schema_grants import grants
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import setting_options
from octane_analytics.clickhouse import schema as expected_schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.table_fit import table_fit
from octane_analytics.errors import StatementRejected
from octane_analytics.operations.insert_rate import window_span
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import Loaded
from octane_analytics.settings.sections import Settings

_CLIENT_NAME = "octane-analytics schema"
_UNKNOWN_DATABASE = 81
_AT_LEAST_ONCE = "at-least-once"

_window = click.option(
    "--window",
    type=click.IntRange(min=1),
    default=expected_schema.DEDUPLICATION_WINDOW,
    show_default=True,
    metavar="INSERTS",
    help="Deduplication window: the number of inserts into the table whose tokens ClickHouse remembers.",
)


@click.group(cls=CommandGroup)
def schema() -> None:
    """Show, create or check the table, and create the user of raw SQL."""


schema.add_command(grants)


@schema.command()
@setting_options("CLICKHOUSE_DATABASE", "CLICKHOUSE_TABLE")
@_window
def show(loaded: Loaded, window: int) -> None:
    """Print the statement that creates the table, without connecting to a server."""
    click.echo(f"{expected_schema.create_table(_name(loaded.settings.clickhouse), window)};")


@schema.command()
@setting_options(
    *options.CLICKHOUSE, "WORKER_PROCS", "FLUSH_INTERVAL", "INSERTS_PER_SECOND", "DELIVERY"
)
@_window
def apply(loaded: Loaded, window: int) -> Exit:
    """Create the database and the table if they are missing, and widen the deduplication window.

    Safe to repeat. In an existing table, changes only a window narrower than --window and, if the table
    is replicated, a window shorter than a day. Every other difference from the expected schema is
    printed, and the exit code is 1.
    """
    settings = loaded.settings.clickhouse
    with ClickHouse(settings, client_name=_CLIENT_NAME) as clickhouse:
        live = _ensure(clickhouse, settings, window)
    click.echo(_window_text(live, loaded.settings))
    return _report(clickhouse.table, live, loaded.settings)


@schema.command()
@setting_options(*options.CLICKHOUSE, "DELIVERY")
def check(loaded: Loaded) -> Exit:
    """Compare the live table with the expected schema: columns, codecs, keys, partitions, TTL, window.

    Changes nothing. Prints each difference, and those for which `worker` and `replay` do not start; the
    exit code is 1 if there is one.
    """
    settings = loaded.settings.clickhouse
    with ClickHouse(settings, client_name=_CLIENT_NAME) as clickhouse:
        live = _describe(clickhouse)
    if live is None:
        click.echo(f"{clickhouse.table} does not exist: run `octane-analytics schema apply`")
        return Exit.FAILED
    click.echo(f"deduplication window: {_extent(live)}")
    return _report(clickhouse.table, live, loaded.settings)


def _ensure(clickhouse: ClickHouse, settings: ClickHouseSettings, window: int) -> LiveTable:
    """Create or widen what is missing, print each change, and return the resulting table."""
    if not _has_database(clickhouse):
        _create_database(settings)
        click.echo(f"created database {expected_schema.identifier(settings.database)}")
    live = _describe(clickhouse)
    if live is None:
        _execute(clickhouse, expected_schema.create_table(clickhouse.table, window))
        click.echo(f"created table {clickhouse.table}")
    elif not _widen(clickhouse, live, window):
        click.echo(f"table {clickhouse.table} exists: nothing to do")
        return live
    created = _describe(clickhouse)
    if created is None:
        raise StatementRejected(
            60, "UNKNOWN_TABLE", f"{clickhouse.table} was dropped right after it was created"
        )
    return created


def _widen(clickhouse: ClickHouse, live: LiveTable, window: int) -> bool:
    """Widen the table's deduplication window if it is too narrow; return whether it was."""
    table = clickhouse.table
    if live.window < window:
        setting = live.window_setting
        _execute(clickhouse, expected_schema.alter_window(table, setting, window))
        click.echo(
            f"widened the deduplication window of {table} from {live.window:,} to "
            f"{window:,} inserts ({setting})"
        )
    if live.is_window_short_lived:
        setting, seconds = (
            expected_schema.REPLICATED_WINDOW_SECONDS_SETTING,
            expected_schema.DEDUPLICATION_WINDOW_SECONDS,
        )
        _execute(clickhouse, expected_schema.alter_window(table, setting, seconds))
        click.echo(
            f"widened the deduplication window of {table} from {live.window_seconds:,} to "
            f"{seconds:,} seconds ({setting})"
        )
    return live.window < window or live.is_window_short_lived


def _describe(clickhouse: ClickHouse) -> LiveTable | None:
    """Return `ClickHouse.describe()`, or None if the database does not exist."""
    try:
        return clickhouse.describe()
    except StatementRejected as error:
        if error.code == _UNKNOWN_DATABASE:
            return None
        raise _with_advice(error) from error


def _has_database(clickhouse: ClickHouse) -> bool:
    """Return whether the database of the settings exists.

    ClickHouse rejects every query of a connection whose default database does not exist.
    """
    try:
        clickhouse.select("SELECT 1")
    except StatementRejected as error:
        if error.code == _UNKNOWN_DATABASE:
            return False
        raise _with_advice(error) from error
    return True


def _create_database(settings: ClickHouseSettings) -> None:
    system = replace(settings, database="system")
    with ClickHouse(system, client_name=_CLIENT_NAME) as clickhouse:
        name = expected_schema.identifier(settings.database)
        _execute(clickhouse, f"CREATE DATABASE IF NOT EXISTS {name}")


def _execute(clickhouse: ClickHouse, statement: str) -> None:
    try:
        clickhouse.execute(statement)
    except StatementRejected as error:
        raise _with_advice(error) from error


def _with_advice(error: StatementRejected) -> StatementRejected:
    advice = OPERATOR_ERRORS.get(error.code)
    message = f"ClickHouse rejected a statement: {error}" + (f"; {advice}" if advice else "")
    return StatementRejected(error.code, error.name, message)


def _name(settings: ClickHouseSettings) -> TableName:
    return TableName(settings.database, settings.table)


def _window_text(live: LiveTable, settings: Settings) -> str:
    pace = settings.batch.inserts_per_second, settings.worker.procs, settings.batch.flush_seconds
    _, span = window_span(live.window, *pace)
    return f"deduplication window: {_extent(live)}, {span}"


def _extent(live: LiveTable) -> str:
    age = "" if live.window_seconds is None else f" and {live.window_seconds:,} seconds"
    return f"{live.window:,} inserts{age}"


def _report(table: TableName, live: LiveTable, settings: Settings) -> Exit:
    delivery = settings.batch.delivery
    fit = table_fit(
        table,
        live,
        window_user=None if delivery == _AT_LEAST_ONCE else delivery,
        servers=len(settings.clickhouse.hosts()),
    )
    differences = dict.fromkeys((*expected_schema.differences(live), *fit.differences))
    for difference in differences:
        click.echo(f"difference: {difference}")
    for refusal in fit.refusals:
        click.echo(f"refused by worker and replay: {refusal}")
    if differences or fit.refusals:
        return Exit.FAILED
    click.echo(f"{table} matches the expected schema")
    return Exit.OK
