"""Time from the production of an event until it can be read, at a steady rate.

With remarks on the figures that are not valid.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from tests.tools.bench import options
from tests.tools.bench.backlog import Backlog
from tests.tools.bench.contenders import CONTENDERS
from tests.tools.bench.environment import Place
from tests.tools.bench.latency_run import Latency, run_steadily
from tests.tools.bench.report import show, write_json, write_picture
from tests.tools.bench.svg_bars import Bar, bars
from tests.tools.bench.tables import spread


@click.command()
@options.rates(1_000, 10_000, 50_000)
@click.option(
    "--seconds",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How long at each rate.",
)
@click.option(
    "--procs", type=click.IntRange(1), default=1, show_default=True, help="Worker processes."
)
@options.partitions
@click.option("--batch-size", default=1_000, show_default=True, help="BATCH_SIZE.")
@click.option("--flush-interval", default=1, show_default=True, help="FLUSH_INTERVAL.")
@options.rounds
@click.option(
    "--contender",
    "contenders",
    multiple=True,
    type=click.Choice([name for name in CONTENDERS if name != "naive"]),
    default=("exactly-once",),
    show_default=True,
    help="Who is to be measured.",
)
@options.json_file
@options.plot_file
def latency(
    rates: Sequence[int],
    seconds: int,
    procs: int,
    partitions: int,
    batch_size: int,
    flush_interval: int,
    rounds: int,
    contenders: Sequence[str],
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure the time from an event's production until it can be read, at steady rates."""
    found = []
    backlog = Backlog(0, partitions)
    for number in range(rounds):
        for rate in rates:
            for name in contenders[:: -1 if number % 2 else 1]:
                # A new topic: the records of an earlier run would be a backlog.
                with Place([backlog]) as place:
                    run = run_steadily(
                        *(place, backlog, name, rate, seconds, procs, batch_size, flush_interval)
                    )
                    broker = place.broker
                click.echo(f"{name:>13} {rate:>7,}/s  p99 {run.p99:.3f} s", err=True)
                found.append(run)
    write_json(json_file, broker=broker, runs=[asdict(run) for run in found])
    write_picture(plot_file, _drawn(found))
    about = (
        f"{seconds} s each, FLUSH_INTERVAL {flush_interval} s, BATCH_SIZE {batch_size:,}, x{procs}"
    )
    show(f"{about}, {partitions} partitions, {broker}", latency_table(found), *remarks(found))


def latency_table(found: Sequence[Latency]) -> Table:
    """Return one line for each rate and contender."""
    table = Table(
        "contender", title="seconds until an event can be read, median (lowest to highest)"
    )
    for heading in ("events/s", "sent/s", "p50", "p95", "p99", "max", "parts"):
        table.add_column(heading, justify="right")
    for (rate, name), runs in _grouped(found).items():
        figures = (
            [run.p50 for run in runs],
            [run.p95 for run in runs],
            [run.p99 for run in runs],
            [run.max for run in runs],
        )
        table.add_row(
            name,
            f"{rate:,}",
            spread([run.sent for run in runs], ",.0f"),
            *(spread(figure, ".2f") for figure in figures),
            f"{statistics.median(run.parts for run in runs):,.0f}",
        )
    return table


def remarks(found: Sequence[Latency]) -> list[str]:
    """Return remarks on the figures that are not valid."""
    told = []
    for (rate, name), runs in _grouped(found).items():
        unsteady = [run for run in runs if not run.is_rate_held]
        behind = [run for run in runs if not run.is_kept_up]
        if unsteady:
            told.append(
                f"{name} at {rate:,}/s: the rate was not held in {len(unsteady)} of {len(runs)} runs "
                f"({min(run.sent for run in unsteady):,.0f}/s sent at the least, up to "
                f"{max(run.late_seconds for run in unsteady):.2f} s late)"
            )
        if behind:
            told.append(
                f"{name} at {rate:,}/s: not kept up with in {len(behind)} of {len(runs)} runs; latency "
                f"grew by up to {max(run.p50_last - run.p50_first for run in behind):.1f} s"
            )
    return told


def _grouped(found: Sequence[Latency]) -> dict[tuple[int, str], list[Latency]]:
    groups: dict[tuple[int, str], list[Latency]] = {}
    for run in sorted(found, key=lambda run: run.rate):
        groups.setdefault((run.rate, run.contender), []).append(run)
    return groups


def _drawn(found: Sequence[Latency]) -> str:
    drawn = []
    for (rate, name), runs in _grouped(found).items():
        p50 = statistics.median(run.p50 for run in runs)
        p99 = statistics.median(run.p99 for run in runs)
        drawn.append(
            Bar(f"{rate:,} events/s", name, (p50, p99 - p50), f"{p50:.2f} and {p99:.2f} s")
        )
    legend = ("median", "on to the 99th percentile")
    return bars("Time from production until an event can be read", "s", drawn, legend)
