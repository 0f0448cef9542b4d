"""`bin/bench`: cost and speed of this service, compared with its alternatives.

One command for each question; without one it is `throughput`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from tests.tools.bench import options
from tests.tools.bench.api import api
from tests.tools.bench.backlog import Backlog, Shape
from tests.tools.bench.capacity import capacity
from tests.tools.bench.contenders import CONTENDERS, NAIVE_ROWS, WORKERS
from tests.tools.bench.cost_goals import backlog_goals
from tests.tools.bench.dashboard.command import dashboard
from tests.tools.bench.environment import Place, labelled
from tests.tools.bench.latency import latency
from tests.tools.bench.layouts import SHAPES
from tests.tools.bench.measure import Run
from tests.tools.bench.plot import side_by_side_svg
from tests.tools.bench.profile import profile, told_stages
from tests.tools.bench.report import show, write_json, write_picture
from tests.tools.bench.reports.command import reports
from tests.tools.bench.reports.tables import goal_table
from tests.tools.bench.start import start
from tests.tools.bench.steady import steady
from tests.tools.bench.sweep import sweep
from tests.tools.bench.tables import side_by_side


class _Questions(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["throughput", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Questions, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure on one ClickHouse and one Kafka, started here: Apache Kafka if Java is available, else the
    embedded mock cluster. CPU and memory are read from /proc. Without a command: `throughput`.
    """


@main.command()
@options.events
@options.partitions
@click.option(
    "--procs",
    "processes",
    multiple=True,
    type=click.IntRange(1),
    default=(1, 2),
    show_default=True,
    help="Worker processes, or consumers of the Kafka engine; may be given several times.",
)
@options.rounds
@options.batch_sizes
@options.may_grow
@options.contenders
@click.option(
    "--layout",
    "layouts",
    multiple=True,
    type=click.Choice(list(SHAPES)),
    help="Compare workers on these layouts of the table instead: one server, one shard of two replicas, "
    "two shards, two shards of two replicas; may be given several times. Replicas need Java.",
)
@click.option(
    "--compression", default="lz4", show_default=True, help="Of the records in the topic."
)
@options.json_file
@options.plot_file
@click.option(
    "--profile", "is_profiled", is_flag=True, help="Then tell a worker's CPU by stage too."
)
@options.flame_file
def throughput(
    events: int,
    partitions: int,
    processes: Sequence[int],
    rounds: int,
    batch_sizes: Sequence[int],
    may_grow: bool,
    contenders: Sequence[str],
    layouts: Sequence[str],
    compression: str,
    json_file: Path | None,
    plot_file: Path | None,
    is_profiled: bool,
    flame_file: Path | None,
) -> None:
    """Consume one backlog repeatedly: worker, ClickHouse's own Kafka engine and a naive loop
    take turns, so that the machine's moods meet them alike.
    """
    competing = _competing(contenders, layouts)
    names = list(competing)
    backlog = Backlog(events, partitions)
    runs: list[Run] = []
    with Place([backlog], compression, layouts) as place:
        for number in range(rounds):
            for size in batch_sizes:
                for procs in processes:
                    shape = Shape(backlog, size, procs, may_grow)
                    for name in names[:: -1 if number % 2 else 1]:
                        if name != "naive" or (size, procs) == (NAIVE_ROWS, 1):
                            runs.append(place.run(competing[name][0], shape, competing[name][1]))
        goals = backlog_goals(runs)
        write_json(
            json_file,
            broker=place.broker,
            runs=[asdict(run) for run in runs],
            goals=[asdict(goal) for goal in goals],
        )
        write_picture(plot_file, side_by_side_svg(runs, names))
        show(
            f"{events:,} events, {partitions} partitions, {place.broker}",
            side_by_side(runs, names),
            *([] if layouts else [goal_table(goals, "Goals, at the median")]),
        )
        shapes = [Shape(backlog, size, may_grow=may_grow) for size in batch_sizes]
        if is_profiled or flame_file is not None:
            told_stages(place, shapes, flame_file)


def _competing(
    contenders: Sequence[str], layouts: Sequence[str]
) -> dict[str, tuple[str, str | None]]:
    """Return contender and layout by the name of the combination. Raises click.UsageError."""
    if not layouts:
        return {name: (name, None) for name in contenders or CONTENDERS}
    if others := set(contenders) - set(WORKERS):
        raise click.UsageError(f"--layout is for workers: leave out {', '.join(sorted(others))}")
    return {
        labelled(name, layout): (name, layout)
        for name in contenders or WORKERS[:1]
        for layout in dict.fromkeys(layouts)
    }


for question in (steady, sweep, latency, start, profile, api, reports, dashboard, capacity):
    main.add_command(question)

if __name__ == "__main__":
    main(prog_name="bin/bench")
