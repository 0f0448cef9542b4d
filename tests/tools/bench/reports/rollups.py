"""Rollups of a ledger, added as an operator adds them: by `octane-analytics schema apply --rollups`."""

import subprocess
import sys

import click

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import COMMAND, environment, run


def are_available() -> bool:
    """Return whether the installed command can add rollups."""
    return "--rollups" in run("schema", "apply", "--help").stdout


def apply(settings: ClickHouseSettings, sets: str = "") -> None:
    """Block until the table has its rollups for all data. Raise ClickException if it has none then.

    `sets` are separated by commas; those of a new table by default.
    """
    done = subprocess.run(
        [COMMAND, "schema", "apply", f"--rollups={sets}" if sets else "--rollups", "--yes"],
        env=environment(
            {
                "CLICKHOUSE_HOST": settings.host,
                "CLICKHOUSE_PORT": str(settings.port),
                "CLICKHOUSE_TABLE": settings.table,
            }
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=sys.stderr if sys.stderr.isatty() else subprocess.STDOUT,
        text=True,
    )
    with ClickHouse(settings, client_name="bench") as clickhouse:
        # The exit code is 1 for a table without a TTL, as ledgers are.
        if done.returncode not in (0, 1) or not names(clickhouse):
            raise click.ClickException(
                f"schema apply --rollups added no rollups to {clickhouse.table}: {done.stdout.strip()}"
            )
        if lacking := _parts_without(clickhouse):
            raise click.ClickException(
                f"{lacking} parts of {clickhouse.table} lack a rollup after schema apply --rollups"
            )


def names(clickhouse: ClickHouse) -> list[str]:
    """Return the names of the table's projections."""
    found = clickhouse.select(
        "SELECT name FROM system.projections "
        "WHERE database = {database:String} AND table = {table:String} ORDER BY name",
        {"database": clickhouse.table.database, "table": clickhouse.table.table},
    )
    return [str(name) for (name,) in found.rows]


def _parts_without(clickhouse: ClickHouse) -> int:
    """Return the number of active parts that do not have all projections of the table."""
    found = clickhouse.select(
        "SELECT countIf(length(projections) < {names:UInt32}) FROM system.parts "
        "WHERE active AND database = {database:String} AND table = {table:String}",
        {
            "database": clickhouse.table.database,
            "table": clickhouse.table.table,
            "names": len(names(clickhouse)),
        },
    )
    return int(found.rows[0][0])


def drop(clickhouse: ClickHouse) -> None:
    """Drop all projections of the table: a new table may have the default ones."""
    for name in names(clickhouse):
        clickhouse.execute(f"ALTER TABLE {clickhouse.table} DROP PROJECTION `{name}`")
