"""`bin/bench`: what this service costs and how fast it is, beside what one would otherwise use.

One command for each question; without one it is `throughput`.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.bench import options
from tests.bench.api import api
from tests.bench.contenders import CONTENDERS, NAIVE_ROWS
from tests.bench.latency import latency
from tests.bench.measure import Run
from tests.bench.place import Backlog, Place, Shape
from tests.bench.plot import svg
from tests.bench.profile import profile, stages
from tests.bench.start import start
from tests.bench.tables import side_by_side, sweep_table

_FEWEST_EVENTS = 20_000


class _Questions(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["throughput", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Questions, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measures on one ClickHouse and one Kafka, started here: Apache Kafka where Java is there, else the
    embedded mock cluster. CPU and memory are read from /proc. Without a command: `throughput`.
    """


@main.command()
@options.events
@options.partitions
@click.option(
    "--procs",
    "processes",
    multiple=True,
    type=int,
    default=(1, 2),
    show_default=True,
    help="Worker processes, or consumers of the Kafka engine; may be given several times.",
)
@options.rounds
@options.batch_sizes
@options.may_grow
@options.contenders
@click.option(
    "--compression", default="lz4", show_default=True, help="Of the records in the topic."
)
@options.json_file
@options.plot_file
@click.option(
    "--profile", "is_profiled", is_flag=True, help="Then tell a worker's CPU by stage too."
)
def throughput(
    events: int,
    partitions: int,
    processes: Sequence[int],
    rounds: int,
    batch_sizes: Sequence[int],
    may_grow: bool,
    contenders: Sequence[str],
    compression: str,
    json_file: Path | None,
    plot_file: Path | None,
    is_profiled: bool,
) -> None:
    """Works off one backlog again and again: worker, ClickHouse's own Kafka engine and a naive loop
    take turns, so that the machine's moods meet them alike.
    """
    names = list(contenders or CONTENDERS)
    backlog = Backlog(events, partitions)
    runs: list[Run] = []
    with Place([backlog], compression) as place:
        for number in range(rounds):
            for size in batch_sizes:
                for procs in processes:
                    shape = Shape(backlog, size, procs, may_grow)
                    for name in names[:: -1 if number % 2 else 1]:
                        if name != "naive" or (size, procs) == (NAIVE_ROWS, 1):
                            runs.append(place.run(name, shape))
        _write(runs, place, json_file)
        _print(side_by_side(runs, names), f"{events:,} events, {partitions} partitions", place)
        if is_profiled:
            for size in batch_sizes:
                _print(stages(place, Shape(backlog, size, may_grow=may_grow)), "", place)
    if plot_file is not None:
        plot_file.write_text(svg(runs))


_AXES = {
    "batch": (1_000, 10_000, 50_000, 100_000),
    "partitions": (4, 16, 64),
    "size": (200, 1_000, 10_000),
    "events": (100_000, 1_000_000),
}


@main.command()
@click.argument("axis", type=click.Choice(list(_AXES)))
@click.option(
    "--value", "values", multiple=True, type=int, help="Values instead of the usual ones."
)
@click.option("--events", default=300_000, show_default=True, help="Events in a topic.")
@click.option("--batch-size", default=10_000, show_default=True, help="Where it is not the axis.")
@options.rounds
@options.contenders
@options.json_file
def sweep(
    axis: str,
    values: Sequence[int],
    events: int,
    batch_size: int,
    rounds: int,
    contenders: Sequence[str],
    json_file: Path | None,
) -> None:
    """How the cost of an event changes with AXIS: the batch, the partitions, the bytes of an event, or
    the events in the topic.
    """
    shapes = [_shape(axis, value, events, batch_size) for value in (values or _AXES[axis])]
    names = list(contenders or ("exactly-once",))
    found: list[tuple[Shape, Run]] = []
    with Place([shape.backlog for shape in shapes]) as place:
        for number in range(rounds):
            for shape in shapes[:: -1 if number % 2 else 1]:
                found += [(shape, place.run(name, shape)) for name in names]
        _write([run for _, run in found], place, json_file)
        _print(sweep_table(axis, shapes, names, found), "", place)


def _shape(axis: str, value: int, events: int, batch_size: int) -> Shape:
    if axis == "batch":
        return Shape(Backlog(events, 8), value)
    if axis == "partitions":
        return Shape(Backlog(events, value), batch_size)
    if axis == "events":
        return Shape(Backlog(value, 8), batch_size)
    # Large events: fewer of them, or producing takes longer than measuring.
    fewer = max(min(events, events * 1_000 // value), _FEWEST_EVENTS)
    return Shape(Backlog(fewer, 8, value), min(batch_size, fewer // 20))


def _write(runs: Sequence[Run], place: Place, json_file: Path | None) -> None:
    if json_file is not None:
        machine = {
            "broker": place.broker,
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        }
        content = {**machine, "runs": [asdict(run) for run in runs]}
        json_file.write_text(json.dumps(content, indent=1))


def _print(table: Table, about: str, place: Place) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140)
    if about:
        console.print(f"{about}, {place.broker}")
    console.print(table)


main.add_command(latency)
main.add_command(profile)
main.add_command(api)
main.add_command(start)

if __name__ == "__main__":
    main(prog_name="bin/bench")
