"""`octane-analytics schema`: the table as it must be, brought about, and compared."""

from dataclasses import replace

import click

from octane_analytics.cli import options
from octane_analytics.cli.commands.schema_grants import grants
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import setting_options
from octane_analytics.clickhouse import schema as contract
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.errors import StatementRejected
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import Loaded
from octane_analytics.settings.sections import BatchSettings

_CLIENT_NAME = "octane-analytics schema"
_UNKNOWN_DATABASE = 81
_PARTITIONS = 16

_window = click.option(
    "--window",
    type=click.IntRange(min=1),
    default=contract.DEDUPLICATION_WINDOW,
    show_default=True,
    metavar="INSERTS",
    help="Inserts, over the whole table, whose deduplication tokens ClickHouse remembers.",
)


@click.group(cls=CommandGroup)
def schema() -> None:
    """Show, create or check the table; make the user that reads it."""


schema.add_command(grants)


@schema.command()
@setting_options("CLICKHOUSE_DATABASE", "CLICKHOUSE_TABLE")
@_window
def show(loaded: Loaded, window: int) -> None:
    """Print the statement that creates the table; talks to no server."""
    click.echo(f"{contract.create_table(_name(loaded.settings.clickhouse), window)};")


@schema.command()
@setting_options(*options.CLICKHOUSE, "FLUSH_INTERVAL")
@_window
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    default=_PARTITIONS,
    show_default=True,
    metavar="PARTITIONS",
    help="Partitions of the topic: together with FLUSH_INTERVAL they tell how many minutes the "
    "window spans.",
)
def apply(loaded: Loaded, window: int, partitions: int) -> Exit:
    """Create the database and the table where they are missing, and widen the deduplication window.

    Safe to repeat. Of a table that exists only a window narrower than --window is changed and, of a
    replicated one, a window shorter than a day. Whatever else differs from the contract is printed,
    and the exit code is 1.
    """
    settings = loaded.settings.clickhouse
    with ClickHouse(settings, client_name=_CLIENT_NAME) as clickhouse:
        live = _ensure(clickhouse, settings, window)
    found = contract.differences(live)
    click.echo(_window_told(live, loaded.settings.batch, partitions))
    return _report(clickhouse.table, found)


@schema.command()
@setting_options(*options.CLICKHOUSE)
def check(loaded: Loaded) -> Exit:
    """Compare the live table with the contract: columns, codecs, keys, partitions, TTL, window.

    Changes nothing. Prints each difference; the exit code is 1 when there is one.
    """
    settings = loaded.settings.clickhouse
    with ClickHouse(settings, client_name=_CLIENT_NAME) as clickhouse:
        live = _describe(clickhouse)
    if live is None:
        click.echo(f"{clickhouse.table} does not exist: run `octane-analytics schema apply`")
        return Exit.FAILED
    click.echo(f"deduplication window: {_extent(live)}")
    return _report(clickhouse.table, contract.differences(live))


def _ensure(clickhouse: ClickHouse, settings: ClickHouseSettings, window: int) -> LiveTable:
    """Brings about what is missing and says so; the table as it is then."""
    if not _has_database(clickhouse):
        _create_database(settings)
        click.echo(f"created database {contract.identifier(settings.database)}")
    live = _describe(clickhouse)
    if live is None:
        _execute(clickhouse, contract.create_table(clickhouse.table, window))
        click.echo(f"created table {clickhouse.table}")
    elif not _widen(clickhouse, live, window):
        click.echo(f"table {clickhouse.table} exists: nothing to do")
        return live
    made = _describe(clickhouse)
    if made is None:
        raise StatementRejected(60, "UNKNOWN_TABLE", f"{clickhouse.table} vanished again")
    return made


def _widen(clickhouse: ClickHouse, live: LiveTable, window: int) -> bool:
    """Widens what is too narrow of the table's deduplication window; whether anything was."""
    table = clickhouse.table
    if live.window < window:
        setting = live.window_setting
        _execute(clickhouse, contract.alter_window(table, setting, window))
        click.echo(
            f"widened the deduplication window of {table} from {live.window:,} to "
            f"{window:,} inserts ({setting})"
        )
    if live.is_window_short_lived:
        setting, seconds = (
            contract.REPLICATED_WINDOW_SECONDS_SETTING,
            contract.DEDUPLICATION_WINDOW_SECONDS,
        )
        _execute(clickhouse, contract.alter_window(table, setting, seconds))
        click.echo(
            f"widened the deduplication window of {table} from {live.window_seconds:,} to "
            f"{seconds:,} seconds ({setting})"
        )
    return live.window < window or live.is_window_short_lived


def _describe(clickhouse: ClickHouse) -> LiveTable | None:
    """As `ClickHouse.describe`; a table of a database that does not exist is absent too."""
    try:
        return clickhouse.describe()
    except StatementRejected as error:
        if error.code == _UNKNOWN_DATABASE:
            return None
        raise _explained(error) from error


def _has_database(clickhouse: ClickHouse) -> bool:
    """A connection names its database, and so cannot be made to one that does not exist."""
    try:
        clickhouse.select("SELECT 1")
    except StatementRejected as error:
        if error.code == _UNKNOWN_DATABASE:
            return False
        raise _explained(error) from error
    return True


def _create_database(settings: ClickHouseSettings) -> None:
    beside = replace(settings, database="system")
    with ClickHouse(beside, client_name=_CLIENT_NAME) as clickhouse:
        name = contract.identifier(settings.database)
        _execute(clickhouse, f"CREATE DATABASE IF NOT EXISTS {name}")


def _execute(clickhouse: ClickHouse, statement: str) -> None:
    try:
        clickhouse.execute(statement)
    except StatementRejected as error:
        raise _explained(error) from error


def _explained(error: StatementRejected) -> StatementRejected:
    advice = OPERATOR_ERRORS.get(error.code)
    told = f"ClickHouse refuses: {error}" + (f"; {advice}" if advice else "")
    return StatementRejected(error.code, error.name, told)


def _name(settings: ClickHouseSettings) -> TableName:
    return TableName(settings.database, settings.table)


def _window_told(live: LiveTable, batch: BatchSettings, partitions: int) -> str:
    minutes = contract.window_minutes(live.window, partitions / batch.flush_seconds)
    return (
        f"deduplication window: {_extent(live)}, that is {minutes:,.0f} minutes of "
        f"{partitions} partitions with one insert each {batch.flush_seconds:g} s"
    )


def _extent(live: LiveTable) -> str:
    age = "" if live.window_seconds is None else f" and {live.window_seconds:,} seconds"
    return f"{live.window:,} inserts{age}"


def _report(table: TableName, found: list[str]) -> Exit:
    for difference in found:
        click.echo(f"difference: {difference}")
    if found:
        return Exit.FAILED
    click.echo(f"{table} is as the contract says")
    return Exit.OK
