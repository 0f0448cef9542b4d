"""Options that several of the benchmark's commands have, each once."""

from pathlib import Path

import click

from tests.bench.contenders import CONTENDERS

events = click.option("--events", default=500_000, show_default=True, help="Events in the topic.")
partitions = click.option(
    "--partitions", default=8, show_default=True, help="Partitions of the topic."
)
batch_sizes = click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    type=int,
    default=(1_000, 10_000, 50_000),
    show_default=True,
    help="BATCH_SIZE; also the most a batch may take, so that backlog does not make all alike.",
)
may_grow = click.option(
    "--grow",
    "may_grow",
    is_flag=True,
    help="Let backlog make batches larger, as it does by default.",
)
rounds = click.option("--rounds", default=3, show_default=True, help="Runs of each combination.")
contenders = click.option(
    "--contender",
    "contenders",
    multiple=True,
    type=click.Choice(list(CONTENDERS)),
    help="Only these; may be given several times.",
)
json_file = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write all figures here."
)
plot_file = click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw the medians here, as SVG."
)
