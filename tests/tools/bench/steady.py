"""What events cost at a steady rate, with many partitions and default settings: `bin/bench steady`."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from tests.tools.bench import options
from tests.tools.bench.backlog import Backlog
from tests.tools.bench.contenders import CONTENDERS
from tests.tools.bench.cost_goals import steady_goals
from tests.tools.bench.environment import Place
from tests.tools.bench.file_system import file_system_remarks
from tests.tools.bench.report import show, write_json, write_picture
from tests.tools.bench.reports.tables import goal_table
from tests.tools.bench.steady_run import SteadyLoad, SteadyRun, run_at_rate
from tests.tools.bench.svg_bars import Bar, bars
from tests.tools.bench.tables import BASELINE, spread

_CONTENDERS = ("exactly-once", "at-least-once", "with-rollups", "kafka-engine")


@click.command()
@options.rates(100, 1_000, 10_000, 50_000)
@click.option(
    "--partitions",
    multiple=True,
    type=click.IntRange(1),
    default=(8, 32, 128),
    show_default=True,
    help="Partitions of the topic; may be given several times.",
)
@click.option(
    "--procs",
    "processes",
    multiple=True,
    type=click.IntRange(1),
    default=(1, 2, 8),
    show_default=True,
    help="Worker processes, or consumers of the Kafka engine; may be given several times.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Seconds at each rate, after 3 that are counted as well.",
)
@click.option(
    "--flush-interval",
    "flush_seconds",
    type=click.IntRange(1),
    help="FLUSH_INTERVAL, and the engine's.  [default: the default of each]",
)
@options.rounds
@click.option(
    "--contender",
    "contenders",
    multiple=True,
    type=click.Choice([name for name in CONTENDERS if name != "naive"]),
    default=_CONTENDERS,
    show_default=True,
    help="Only these; may be given several times.",
)
@options.json_file
@options.plot_file
def steady(
    rates: Sequence[int],
    partitions: Sequence[int],
    processes: Sequence[int],
    seconds: int,
    flush_seconds: int | None,
    rounds: int,
    contenders: Sequence[str],
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """CPU time of an event at steady rates, inserts, and the time from produced to readable.

    Worker and ClickHouse beside the Kafka engine, with default settings; with-rollups inserts exactly
    once into a table with the default rollups, the others into one without. Every contender of one
    load follows the other, in turns, each on a new broker and a new ClickHouse: what is left of one
    run would be a backlog of the next.
    """
    loads = [
        SteadyLoad(rate, count, procs, seconds, flush_seconds)
        for rate in rates
        for count in partitions
        for procs in processes
    ]
    runs: list[SteadyRun] = []
    broker = ""
    for number in range(rounds):
        for load in loads:
            for name in contenders[:: -1 if number % 2 else 1]:
                with Place([Backlog(0, load.partitions)]) as place:
                    run = run_at_rate(place, name, load)
                    broker = place.broker
                runs.append(run)
                click.echo(
                    f"{name:>13} {load.rate:>7,}/s {load.partitions:>4} partitions x{load.processes} "
                    f"{run.cpu_us:8.2f} µs {run.inserts:>5} inserts, p99 {run.p99_seconds:.2f} s",
                    err=True,
                )
    goals = steady_goals(runs)
    write_json(
        json_file,
        broker=broker,
        runs=[asdict(run) for run in runs],
        goals=[asdict(goal) for goal in goals],
    )
    write_picture(plot_file, steady_svg(runs))
    show(
        f"{seconds} s at each rate, {broker}",
        steady_table(runs),
        goal_table(goals, "Goals, at the median"),
        *rate_remarks(runs),
        *file_system_remarks(),
    )


def steady_table(runs: Sequence[SteadyRun]) -> Table:
    """One line for each load and contender; ratios against the Kafka engine under the same load."""
    table = Table(title=f"median (lowest to highest) of {len(runs)} runs; x is against {BASELINE}")
    for heading in ("events/s", "partitions", "procs"):
        table.add_column(heading, justify="right")
    table.add_column("contender", no_wrap=True)
    for heading in ("client µs", "ClickHouse µs", "events/CPU s x", "CPU %"):
        table.add_column(heading, justify="right")
    for heading in ("inserts/s", "rows an insert", "parts", "p50 s", "p99 s", "MiB"):
        table.add_column(heading, justify="right")
    for (load, name), mine in grouped(runs).items():
        table.add_row(
            f"{load.rate:,}",
            str(load.partitions),
            str(load.processes),
            name,
            _spread(mine, lambda run: run.client_cpu_us, ".1f"),
            _spread(mine, lambda run: run.clickhouse_cpu_us, ".1f"),
            _ratio(mine, grouped(runs).get((load, BASELINE), [])),
            _spread(mine, lambda run: run.cpu_share * 100, ".1f"),
            f"{statistics.median(run.inserts_per_second for run in mine):.2f}",
            f"{statistics.median(run.rows_per_insert for run in mine):,.0f}",
            f"{statistics.median(run.parts for run in mine):,.0f}",
            _spread(mine, lambda run: run.p50_seconds, ".2f"),
            _spread(mine, lambda run: run.p99_seconds, ".2f"),
            str(max(run.peak_client_mib for run in mine) or ""),
        )
    return table


def rate_remarks(runs: Sequence[SteadyRun]) -> list[str]:
    """A sentence for each load whose rate the producer did not hold."""
    remarks = []
    for (load, name), mine in grouped(runs).items():
        unsteady = [run for run in mine if not run.is_rate_held]
        if unsteady:
            lowest = min(run.sent_per_second for run in unsteady)
            remarks.append(
                f"{name} at {load.rate:,}/s, {load.partitions} partitions: the rate was not held in "
                f"{len(unsteady)} of {len(mine)} runs ({lowest:,.0f}/s at the least)"
            )
    return remarks


def grouped(runs: Sequence[SteadyRun]) -> dict[tuple[SteadyLoad, str], list[SteadyRun]]:
    """Runs by load and contender, in the order in which they were first measured."""
    groups: dict[tuple[SteadyLoad, str], list[SteadyRun]] = {}
    for run in runs:
        groups.setdefault((run.load, run.contender), []).append(run)
    return groups


def steady_svg(runs: Sequence[SteadyRun]) -> str:
    """One group of bars for each load."""
    drawn = []
    for (load, name), mine in grouped(runs).items():
        client = statistics.median(run.client_cpu_us for run in mine)
        clickhouse = statistics.median(run.clickhouse_cpu_us for run in mine)
        group = f"{load.rate:,} events/s, {load.partitions} partitions, x{load.processes}"
        p50 = statistics.median(run.p50_seconds for run in mine)
        p99 = statistics.median(run.p99_seconds for run in mine)
        text = f"{client + clickhouse:.1f} µs, readable after {p50:.2f} s (p99 {p99:.2f} s)"
        drawn.append(Bar(group, name, (client, clickhouse), text))
    return bars("CPU time of one event, median", "µs", drawn, ("worker", "ClickHouse"))


def _spread(runs: Sequence[SteadyRun], of: Callable[[SteadyRun], float], form: str) -> str:
    return spread([of(run) for run in runs], form)


def _ratio(mine: Sequence[SteadyRun], baseline: Sequence[SteadyRun]) -> str:
    """How many more events a CPU second carries than in the baseline."""
    if not baseline:
        return ""
    costs = [statistics.median(run.cpu_us for run in runs) for runs in (baseline, mine)]
    return f"{costs[0] / costs[1]:.2f}"
