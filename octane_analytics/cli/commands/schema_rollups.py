"""Rollups in `octane-analytics schema`: add them, build them month by month, compare and drop them."""

import contextlib
import time
from collections.abc import Sequence

import click

from octane_analytics.cli import options
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import setting_options
from octane_analytics.cli.output.confirmation import confirm, require_terminal_or_yes, yes_option
from octane_analytics.cli.output.progress import Reporter, reporter
from octane_analytics.clickhouse import rollups
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.rollup_table import Mutation, RollupTable, mutation_advice
from octane_analytics.clickhouse.rollups import DEFAULT_SETS, SETS, Rollup
from octane_analytics.errors import NeedsOperator, OctaneError
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.loading import Loaded

DEFAULT = ",".join(DEFAULT_SETS)
_LARGE_ROWS = 1_000_000
_POLL_SECONDS = 0.25
_FOLLOW_SECONDS = 30.0
_ATTEMPTS = 3
"""Number of mutations for one month: a part whose insert began before the rollup existed may appear
after the first of them."""


class BuildInterrupted(OctaneError):
    """Ctrl-C: the rollups are partly built."""


def parse_sets(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[Rollup, ...] | None:
    """Return the rollups of the named sets; None if the option is absent."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(SETS)}")
    return rollups.of_sets(names)


def apply(clickhouse: ClickHouse, wanted: Sequence[Rollup], *, yes: bool) -> Exit:
    """Run `build` for the table of the connection; return another code than OK after Ctrl-C."""
    if not wanted:
        return Exit.OK
    with StopSignal() as stop:
        try:
            build(RollupTable(clickhouse), wanted, yes=yes, stop=stop)
        except BuildInterrupted as interrupted:
            click.echo(str(interrupted), err=True)
            return stop.exit_code
    return Exit.OK


def follow(clickhouse: ClickHouse, wanted: Sequence[Rollup]) -> None:
    """Complete on one replica what `build` did on another of its shard; blocks until it has the rollups.

    Definitions and parts are replicated, the table's settings are not. Raises NeedsOperator if nothing
    has arrived for some time.
    """
    if not wanted:
        return
    table = RollupTable(clickhouse)
    least: tuple[int, int] | None = None
    deadline = 0.0
    while True:
        state = table.state()
        left = len(state.missing(wanted)), state.rows_lacking(wanted)
        if not any(left):
            break
        if least is None or left < least:
            least, deadline = left, time.monotonic() + _FOLLOW_SECONDS
        if time.monotonic() > deadline:
            raise NeedsOperator(
                f"{left[0]} rollups and {left[1]:,} rows of them have not been replicated for "
                f"{_FOLLOW_SECONDS:g} s: see system.replication_queue, then repeat the command"
            )
        time.sleep(_POLL_SECONDS)
    table.change_settings()
    click.echo(f"has rollups {', '.join(rollup.name for rollup in wanted)}")


def build(table: RollupTable, wanted: Sequence[Rollup], *, yes: bool, stop: StopSignal) -> None:
    """Add the rollups, build them for existing rows month by month, drop those they replace.

    Blocks until all are built. Raises NeedsOperator with advice, BuildInterrupted after Ctrl-C; in both
    cases a repetition continues with the parts that lack them.
    """
    state = table.state()
    missing = state.missing(wanted)
    rows = state.rows_lacking(wanted)
    if missing or rows:
        table.require_rights()
    if rows:
        _announce(table, wanted, rows)
        if rows >= _LARGE_ROWS:
            confirm("Build them?", "schema apply --rollups", yes=yes)
    table.add(missing)
    for rollup in missing:
        click.echo(f"added rollup {rollup.name}")
    if rows:
        with reporter("rollups", rows) as bar:
            _build_months(table, wanted, rows, bar, stop)
        click.echo(f"built rollups for {rows:,} rows")
    labels = {rollup.label for rollup in wanted}
    outdated = [name for name in table.state().outdated() if rollups.label_of(name) in labels]
    table.drop(outdated)
    for name in outdated:
        click.echo(f"dropped rollup {name}, which has another definition")


def _announce(table: RollupTable, wanted: Sequence[Rollup], rows: int) -> None:
    latest = max(month for rollup in wanted for month in table.state().lacking(rollup))
    cost = table.sample_cost(wanted, latest)
    estimate = "time and disk unknown"
    if cost is not None:
        estimate = (
            f"about {_duration(cost.seconds * rows)} and {cost.bytes * rows / (1 << 20):,.0f} MiB of "
            "disk, by a sample"
        )
    click.echo(f"{rows:,} rows lack rollups: {estimate}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"


def _build_months(
    table: RollupTable, wanted: Sequence[Rollup], total: int, bar: Reporter, stop: StopSignal
) -> None:
    _wait(table, wanted, total, bar, stop)
    for _ in range(_ATTEMPTS):
        months: dict[str, list[Rollup]] = {}
        state = table.state()
        for rollup in wanted:
            for month in state.lacking(rollup):
                months.setdefault(month, []).append(rollup)
        if not months:
            return
        for month in sorted(months, reverse=True):
            if stop.is_set():
                raise BuildInterrupted(_continue_text())
            table.require_room(months[month], month)
            table.materialize(months[month], month)
            _wait(table, wanted, total, bar, stop, month)
    if left := table.state().rows_lacking(wanted):
        raise NeedsOperator(
            f"{left:,} rows still lack rollups after {_ATTEMPTS} attempts: see system.mutations, then "
            "repeat the command"
        )


def _wait(
    table: RollupTable,
    wanted: Sequence[Rollup],
    total: int,
    bar: Reporter,
    stop: StopSignal,
    month: str = "",
) -> None:
    """Block until no mutation builds rollups; cancel it at a failure, a full disk or Ctrl-C."""
    while True:
        running = table.unfinished()
        ours = [mutation for mutation in running if mutation.is_ours]
        if not ours:
            return
        failed = [mutation for mutation in running if mutation.failure]
        if failed or stop.is_set():
            for mutation in ours:
                table.kill(mutation)
            raise _failure(failed[0]) if failed else BuildInterrupted(_continue_text())
        try:
            table.require_room(wanted, month)
        except NeedsOperator:
            for mutation in ours:
                table.kill(mutation)
            raise
        left = table.state().rows_lacking(wanted)
        bar.update(max(0, total - left), f"{max(0, total - left):,} rows, {left:,} left")
        stop.wait(_POLL_SECONDS)


def _failure(mutation: Mutation) -> NeedsOperator:
    reason = " ".join(mutation.failure.split())
    return NeedsOperator(
        f"ClickHouse cannot build the rollups: {reason.rstrip('. ')}; "
        f"{mutation_advice(mutation.error_name)}, then repeat the command"
    )


def _continue_text() -> str:
    return "rollups not finished; the parts built so far are kept: repeat the command to continue"


@click.command("drop-rollups", cls=Command)
@setting_options(*options.CLICKHOUSE)
@yes_option
def drop_rollups(loaded: Loaded, yes: bool) -> Exit:
    """Drop all rollups of the table. Events stay; reports become slower, not different."""
    require_terminal_or_yes("schema drop-rollups", yes=yes)
    with contextlib.ExitStack() as stack:
        shards = [
            stack.enter_context(ClickHouse(shard, client_name="octane-analytics schema"))
            for shard in loaded.settings.clickhouse.of_each_shard()
        ]
        tables = [RollupTable(clickhouse) for clickhouse in shards]
        found = [table.state().projections for table in tables]
        names = sorted(frozenset[str]().union(*found))
        if not names:
            click.echo(f"{shards[0].table} has no rollups: nothing to do")
            return Exit.OK
        click.echo(f"rollups of {shards[0].table}: {', '.join(names)}")
        confirm("Drop them?", "schema drop-rollups", yes=yes)
        for table in tables:
            table.require_rights()
        for table, projections in zip(tables, found, strict=True):
            table.drop(sorted(projections))
    click.echo(f"dropped {len(names)} rollups")
    return Exit.OK
