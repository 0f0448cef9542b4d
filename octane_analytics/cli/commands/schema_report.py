"""Comparison of live tables with the expected schema, as `octane-analytics schema` prints it."""

from collections.abc import Sequence

import click

from octane_analytics.cli.commands import schema_servers, schema_table
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.rollup_table import RollupTable
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.table_fit import TableFit, table_fit
from octane_analytics.errors import NeedsOperator, OctaneError
from octane_analytics.operations.insert_rate import window_span
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.sections import Settings

_AT_LEAST_ONCE = "at-least-once"


def report(
    table: TableName, live: LiveTable, settings: Settings, rollups_missing: Sequence[str] = ()
) -> Exit:
    """Print the differences of the only server; return FAILED if there is one."""
    fit = _fit(table, live, settings, servers=len(settings.clickhouse.hosts()))
    differences = _differences(live, fit, rollups_missing)
    for difference in differences:
        click.echo(f"difference: {difference}")
    for refusal in fit.refusals:
        click.echo(f"refused by worker and replay: {refusal}")
    if differences or fit.refusals:
        return Exit.FAILED
    click.echo(f"{table} matches the expected schema")
    return Exit.OK


def report_all(settings: Settings) -> Exit:
    """Print the differences of each server and between them; return FAILED if there is one, and another
    code than OK if a server cannot be compared."""
    clickhouse = settings.clickhouse
    table = TableName(clickhouse.database, clickhouse.table)
    found = schema_servers.survey(clickhouse)
    replicas = {shard.number: len(shard.hosts) for shard in clickhouse.topology().shards}
    is_different = False
    for server in schema_servers.servers_of(clickhouse):
        if error := found.errors.get(server.address):
            click.echo(f"{server.title} not compared: {error}")
            continue
        live = found.facts[server.address].live
        if live is None:
            click.echo(
                f"{server.title} {table} does not exist: run `octane-analytics schema apply`"
            )
            is_different = True
            continue
        click.echo(f"{server.title} {window_text(live, settings)}")
        fit = _fit(table, live, settings, servers=replicas[server.shard])
        for difference in _differences(live, fit, _rollups_of(server)):
            click.echo(f"difference: {server.address}: {difference}")
            is_different = True
        for refusal in fit.refusals:
            click.echo(f"refused by worker and replay: {server.address}: {refusal}")
            is_different = True
    for finding in schema_servers.findings(clickhouse, found):
        click.echo(f"{'wrong' if finding.is_refusal else 'difference'}: {finding.text}")
        is_different = True
    if is_different:
        return Exit.FAILED
    if found.errors:
        return schema_servers.exit_for_all(list(found.errors.values()))
    click.echo(f"{table} matches the expected schema on {len(found.facts)} servers")
    return Exit.OK


def window_text(live: LiveTable, settings: Settings) -> str:
    """Return one line about the deduplication window, with the time that it spans."""
    pace = settings.batch.inserts_per_second, settings.worker.procs, settings.batch.flush_seconds
    _, span = window_span(live.window, *pace)
    return f"deduplication window: {extent(live)}, {span}"


def extent(live: LiveTable) -> str:
    """Return the size of the deduplication window."""
    age = "" if live.window_seconds is None else f" and {live.window_seconds:,} seconds"
    return f"{live.window:,} inserts{age}"


def rollup_differences(clickhouse: ClickHouse) -> list[str]:
    """Return the differences of the rollups; print why they cannot be compared."""
    try:
        return RollupTable(clickhouse).state().differences()
    except NeedsOperator as error:
        click.echo(f"rollups not compared: {error}")
        return []


def _rollups_of(server: schema_servers.Server) -> list[str]:
    try:
        with ClickHouse(server.settings, client_name=schema_table.CLIENT_NAME) as clickhouse:
            return rollup_differences(clickhouse)
    except OctaneError as error:
        click.echo(f"{server.title} rollups not compared: {error}")
        return []


def _fit(table: TableName, live: LiveTable, settings: Settings, *, servers: int) -> TableFit:
    delivery = settings.batch.delivery
    return table_fit(
        table,
        live,
        window_user=None if delivery == _AT_LEAST_ONCE else delivery,
        servers=servers,
    )


def _differences(live: LiveTable, fit: TableFit, rollups_missing: Sequence[str]) -> dict[str, None]:
    return dict.fromkeys((*schema.differences(live), *fit.differences, *rollups_missing))
