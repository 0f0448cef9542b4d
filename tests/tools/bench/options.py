"""Options that several of the bench's commands take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tests.tools.bench.contenders import CONTENDERS
from tests.tools.bench.report import picture_file

_Command = TypeVar("_Command", bound=Callable[..., Any])

events = click.option("--events", default=800_000, show_default=True, help="Events in the topic.")
partitions = click.option(
    "--partitions", default=8, show_default=True, help="Partitions of the topic."
)
batch_sizes = click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    type=click.IntRange(1),
    default=(1_000, 10_000, 50_000),
    show_default=True,
    help="BATCH_SIZE; also the most a batch may take, so that backlog does not make all alike; may be "
    "given several times.",
)
may_grow = click.option(
    "--grow",
    "may_grow",
    is_flag=True,
    help="Let backlog make batches larger, as it does by default.",
)
flame_file = click.option(
    "--flame",
    "flame_file",
    type=click.Path(path_type=Path),
    help="Draw a flame graph of the worker here, as SVG, at the last --batch-size.",
)


def rates(*defaults: int) -> Callable[[_Command], _Command]:
    """Option of the rates to measure at."""
    return click.option(
        "--rate",
        "rates",
        multiple=True,
        type=click.IntRange(1),
        default=defaults,
        show_default=True,
        help="Events a second; may be given several times.",
    )


rounds = click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each kind."
)
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
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path),
    callback=picture_file,
    help="Draw the medians here: FILE.svg, or FILE.png where rsvg-convert is installed.",
)
