"""Cost of an event as a function of one variable while all others stay constant."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from tests.tools.bench import options
from tests.tools.bench.backlog import Backlog, Shape, even_events
from tests.tools.bench.environment import Place
from tests.tools.bench.measure import Run
from tests.tools.bench.plot import sweep_svg
from tests.tools.bench.report import show, write_json, write_picture
from tests.tools.bench.tables import extremes, sweep_table

_PARTITIONS = 8
_AXES = {
    "batch": (1_000, 10_000, 50_000, 100_000),
    "partitions": (4, 16, 64),
    "size": (200, 1_000, 10_000),
    "events": (400_000, 4_000_000),
}
_BATCH_SIZE = 10_000
_BATCH_SIZE_OF_LARGE = 1_000
"""Batch size for the axis of sizes: ten thousand large events would exceed a batch."""
_TOPIC_BYTES = 400_000_000


@click.command()
@click.argument("axis", type=click.Choice(list(_AXES)))
@click.option(
    "--value",
    "values",
    multiple=True,
    type=click.IntRange(1),
    help="Values instead of the usual ones.",
)
@click.option(
    "--events",
    type=click.IntRange(1),
    help="Events in a topic where they are not the axis.  [default: as many as fill whole "
    "batches, two in each partition]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help=f"Where it is not the axis.  [default: {_BATCH_SIZE}; for sizes {_BATCH_SIZE_OF_LARGE}]",
)
@options.rounds
@options.contenders
@options.json_file
@options.plot_file
def sweep(
    axis: str,
    values: Sequence[int],
    events: int | None,
    batch_size: int | None,
    rounds: int,
    contenders: Sequence[str],
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure the cost of an event over AXIS: the batch, the partitions, the bytes of an event, or
    the events in the topic.
    """
    shapes = swept(axis, values or _AXES[axis], events, batch_size)
    names = list(contenders or ("exactly-once",))
    found: list[tuple[Shape, Run]] = []
    with Place([shape.backlog for shape in shapes]) as place:
        for number in range(rounds):
            for shape in shapes[:: -1 if number % 2 else 1]:
                found += [(shape, place.run(name, shape)) for name in names]
    write_json(json_file, broker=place.broker, axis=axis, runs=[asdict(run) for _, run in found])
    write_picture(plot_file, sweep_svg(axis, found, names))
    show(f"{place.broker}, {rounds} rounds", sweep_table(axis, shapes, names, found))
    show(*extremes(axis, shapes, names, found))


def swept(
    axis: str, values: Sequence[int], events: int | None, batch_size: int | None
) -> list[Shape]:
    """Return a shape for each value, otherwise equal."""
    size = batch_size or (_BATCH_SIZE_OF_LARGE if axis == "size" else _BATCH_SIZE)

    def shapes(count: int) -> list[Shape]:
        if axis == "batch":
            return [Shape(Backlog(count, _PARTITIONS), value) for value in values]
        if axis == "partitions":
            return [Shape(Backlog(count, value), size) for value in values]
        if axis == "events":
            return [Shape(Backlog(value, _PARTITIONS), size) for value in values]
        return [Shape(Backlog(count, _PARTITIONS, value), size) for value in values]

    if events is None and axis == "size":
        whole = _PARTITIONS * size
        events = max(_TOPIC_BYTES // max(values) // whole, 2) * whole
    return shapes(events or even_events(shapes(0)))
