"""`octane-analytics schema`: print, create and check the table."""

import click

from octane_analytics.cli import options
from octane_analytics.cli.commands import (
    schema_report,
    schema_rollups,
    schema_servers,
    schema_table,
)
from octane_analytics.cli.commands.schema_grants import grants
from octane_analytics.cli.commands.schema_table import CLIENT_NAME
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import setting_options
from octane_analytics.cli.output.confirmation import yes_option
from octane_analytics.clickhouse import rollups
from octane_analytics.clickhouse import schema as expected_schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.rollups import Rollup
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import Loaded

_window = click.option(
    "--window",
    type=click.IntRange(min=1),
    default=expected_schema.DEDUPLICATION_WINDOW,
    show_default=True,
    metavar="INSERTS",
    help="Deduplication window: the number of inserts into the table whose tokens ClickHouse remembers.",
)
_rollups = click.option(
    "--rollups",
    "wanted",
    is_flag=False,
    flag_value=schema_rollups.DEFAULT,
    callback=schema_rollups.parse_sets,
    metavar="SETS",
    help=f"Sets of rollups, separated by commas: {', '.join(rollups.SETS)}.  "
    f"[default: {schema_rollups.DEFAULT} for a new table and without SETS, none for an existing table]",
)
_no_rollups = click.option("--no-rollups", is_flag=True, help="Create a new table without rollups.")


@click.group(cls=CommandGroup)
def schema() -> None:
    """Show, create or check the table, and create the user of raw SQL."""


schema.add_command(grants)
schema.add_command(schema_rollups.drop_rollups)


@schema.command()
@setting_options("CLICKHOUSE_DATABASE", "CLICKHOUSE_TABLE")
@_window
@_rollups
@_no_rollups
def show(loaded: Loaded, window: int, wanted: tuple[Rollup, ...] | None, no_rollups: bool) -> None:
    """Print the statements that create the table and its rollups, without connecting to a server."""
    name = _name(loaded.settings.clickhouse)
    click.echo(f"{expected_schema.create_table(name, window)};")
    if chosen := _chosen(wanted, no_rollups=no_rollups, is_new=True):
        click.echo(f"{rollups.alter_settings(name)};")
        for rollup in chosen:
            click.echo(f"{rollups.add(name, rollup)};")


@schema.command()
@setting_options(
    *options.CLICKHOUSE, "WORKER_PROCS", "FLUSH_INTERVAL", "INSERTS_PER_SECOND", "DELIVERY"
)
@_window
@_rollups
@_no_rollups
@click.option(
    "--replicated",
    "is_replicated",
    is_flag=True,
    help="Create a missing table as ReplicatedMergeTree, with the servers' default path and macros.",
)
@click.option(
    "--on-cluster",
    "is_on_cluster",
    is_flag=True,
    help="With --replicated: create a table that no server has by one statement ON CLUSTER. The "
    "statements were tried on each server, but not yet by a cluster.",
)
@yes_option
def apply(
    loaded: Loaded,
    window: int,
    wanted: tuple[Rollup, ...] | None,
    no_rollups: bool,
    is_replicated: bool,
    is_on_cluster: bool,
    yes: bool,
) -> Exit:
    """Create the database and the table if they are missing, and widen the deduplication window.

    A new table gets the default rollups, from which reports are answered. --rollups adds them to an
    existing table and builds them for its rows, month by month, while workers insert; after Ctrl-C or a
    failure the same command continues. It asks first if a million rows lack them.

    With several servers in CLICKHOUSE_HOST, visits each in turn and prints what it did there: table,
    windows, rollups, and with several shards the Distributed table. A server that lacks the table gets
    the definition of one that has it. With a server that cannot be reached the exit code is 69.

    Safe to repeat. In an existing table, changes only a window narrower than --window and, if the table
    is replicated, a window shorter than a day. Every other difference from the expected schema is
    printed, and the exit code is 1.
    """
    settings = loaded.settings.clickhouse
    if is_on_cluster and not is_replicated:
        raise click.UsageError("--on-cluster requires --replicated")
    of_new_table = _chosen(wanted, no_rollups=no_rollups, is_new=True)
    chosen = _chosen(wanted, no_rollups=no_rollups, is_new=False)
    if is_replicated or len(settings.hosts()) > 1:
        is_sharded = settings.topology().is_sharded
        request = schema_servers.Request(
            window=window,
            wanted=chosen,
            of_new_table=of_new_table,
            is_replicated=is_replicated,
            is_on_cluster=is_on_cluster,
            distributed=TableName(settings.database, settings.distributed_table)
            if is_sharded
            else None,
            yes=yes,
        )
        code = schema_servers.apply(settings, request)
        return code if code is not Exit.OK else schema_report.report_all(loaded.settings)
    with ClickHouse(settings, client_name=CLIENT_NAME) as clickhouse:
        create = expected_schema.create_table(clickhouse.table, window)
        live, is_new = schema_table.ensure(clickhouse, settings, create, window)
        code = schema_rollups.apply(clickhouse, of_new_table if is_new else chosen, yes=yes)
    if code is not Exit.OK:
        return code
    click.echo(schema_report.window_text(live, loaded.settings))
    return schema_report.report(clickhouse.table, live, loaded.settings)


@schema.command()
@setting_options(*options.CLICKHOUSE, "DELIVERY")
def check(loaded: Loaded) -> Exit:
    """Compare the live table with the expected schema: columns, codecs, keys, partitions, TTL, window.

    With several servers in CLICKHOUSE_HOST, compares each, and all with one another: replicas must be of
    one table, shards of different ones, windows and rollups equal, and with several shards the
    Distributed table must read them all.

    Changes nothing. Prints each difference, and those for which `worker` and `replay` do not start; the
    exit code is 1 if there is one, 69 if a server cannot be reached.
    """
    settings = loaded.settings.clickhouse
    if len(settings.hosts()) > 1:
        return schema_report.report_all(loaded.settings)
    with ClickHouse(settings, client_name=CLIENT_NAME) as clickhouse:
        live = schema_table.describe(clickhouse)
        if live is None:
            click.echo(f"{clickhouse.table} does not exist: run `octane-analytics schema apply`")
            return Exit.FAILED
        click.echo(f"deduplication window: {schema_report.extent(live)}")
        missing = schema_report.rollup_differences(clickhouse)
    return schema_report.report(clickhouse.table, live, loaded.settings, missing)


def _chosen(
    wanted: tuple[Rollup, ...] | None, *, no_rollups: bool, is_new: bool
) -> tuple[Rollup, ...]:
    if no_rollups and wanted is not None:
        raise click.UsageError("--rollups and --no-rollups exclude each other")
    if wanted is not None:
        return wanted
    return rollups.of_sets(rollups.DEFAULT_SETS) if is_new and not no_rollups else ()


def _name(settings: ClickHouseSettings) -> TableName:
    return TableName(settings.database, settings.table)
