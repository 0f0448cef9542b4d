"""Tables of runs: medians with minimum and maximum, and their ratios to a baseline."""

import statistics
from collections.abc import Callable, Sequence

from rich.table import Table

from tests.tools.bench.backlog import Shape
from tests.tools.bench.measure import Run

BASELINE = "kafka-engine"


def side_by_side(runs: Sequence[Run], names: Sequence[str]) -> Table:
    """Return one line for each batch size, process count and contender."""
    baseline = BASELINE if BASELINE in names else names[0]
    table = Table(title=f"median (lowest to highest) of {len(runs)} runs; x is against {baseline}")
    table.add_column("batch", justify="right")
    table.add_column("procs", justify="right")
    table.add_column("contender", no_wrap=True)
    for heading in (
        *("events/s", "x", "client µs", "ClickHouse µs", "events/CPU s x"),
        *("peak MiB", "ClickHouse MiB", "parts"),
    ):
        table.add_column(heading, justify="right")
    for batch_size, procs in dict.fromkeys((run.batch_size, run.processes) for run in runs):
        of_shape = [run for run in runs if (run.batch_size, run.processes) == (batch_size, procs)]
        compared = [run for run in of_shape if run.contender == baseline]
        for name in names:
            mine = [run for run in of_shape if run.contender == name]
            if mine:
                table.add_row(
                    f"{batch_size:,}", str(procs), name, *_figures(mine, compared), *_sizes(mine)
                )
    return table


def _figures(mine: Sequence[Run], compared: Sequence[Run]) -> list[str]:
    return [
        _spread(mine, lambda run: run.events_per_second, ",.0f"),
        _ratio(mine, compared, lambda run: run.events_per_second),
        _spread(mine, lambda run: run.client_cpu_us, ".2f"),
        _spread(mine, lambda run: run.clickhouse_cpu_us, ".2f"),
        _ratio(mine, compared, lambda run: 1 / run.cpu_us),
    ]


def _sizes(mine: Sequence[Run]) -> list[str]:
    return [
        str(max(run.peak_client_mib for run in mine) or ""),
        str(max(run.peak_clickhouse_mib for run in mine)),
        f"{statistics.median(run.parts for run in mine):,.0f}",
    ]


def sweep_table(
    axis: str, shapes: Sequence[Shape], names: Sequence[str], found: Sequence[tuple[Shape, Run]]
) -> Table:
    """Return one line for each shape and contender, against the contender's first shape."""
    table = Table(title=f"median (lowest to highest); x is against the first {axis}")
    table.add_column(axis, justify="right")
    table.add_column("contender", no_wrap=True)
    for heading in (
        "events/s",
        "client µs",
        "x",
        "ClickHouse µs",
        "µs in all",
        "x",
        *(["µs a kB"] if axis == "size" else []),
        "peak MiB",
        "parts",
    ):
        table.add_column(heading, justify="right")
    for name in names:
        first = [run for shape, run in found if shape == shapes[0] and run.contender == name]
        for shape in shapes:
            mine = [run for of, run in found if of == shape and run.contender == name]
            table.add_row(
                f"{value_of(axis, shape):,}",
                name,
                _spread(mine, lambda run: run.events_per_second, ",.0f"),
                _spread(mine, lambda run: run.client_cpu_us, ".2f"),
                _ratio(mine, first, lambda run: run.client_cpu_us),
                _spread(mine, lambda run: run.clickhouse_cpu_us, ".2f"),
                _spread(mine, lambda run: run.cpu_us, ".2f"),
                _ratio(mine, first, lambda run: run.cpu_us),
                *([_spread(mine, _us_a_kilobyte, ".2f")] if axis == "size" else []),
                str(max(run.peak_client_mib for run in mine) or ""),
                f"{statistics.median(run.parts for run in mine):,.0f}",
            )
    return table


def _us_a_kilobyte(run: Run) -> float:
    assert run.event_bytes is not None
    return run.cpu_us / run.event_bytes * 1_000


_COSTS: dict[str, Callable[[Run], float]] = {
    "client": lambda run: run.client_cpu_us,
    "in all": lambda run: run.cpu_us,
}


def extremes(
    axis: str, shapes: Sequence[Shape], names: Sequence[str], found: Sequence[tuple[Shape, Run]]
) -> list[str]:
    """Return sentences on the spread of the contenders' costs: the client's, and all processes'."""
    told = []
    for name in names:
        for what, of in _COSTS.items():
            medians = {
                value_of(axis, shape): statistics.median(
                    of(run) for at, run in found if at == shape and run.contender == name
                )
                for shape in shapes
            }
            if not all(medians.values()):
                continue  # the engine has no client
            dear, cheap = (pick(medians, key=medians.__getitem__) for pick in (max, min))
            told.append(
                f"{name}, {what}: {medians[dear]:.2f} µs an event at {axis} {dear:,} against "
                f"{medians[cheap]:.2f} at {cheap:,}: {medians[dear] / medians[cheap]:.2f} x"
            )
    return told


def value_of(axis: str, shape: Shape) -> int:
    return {
        "batch": shape.batch_size,
        "partitions": shape.backlog.partitions,
        "size": shape.backlog.event_bytes or 0,
        "events": shape.backlog.events,
    }[axis]


def _spread(runs: Sequence[Run], of: Callable[[Run], float], form: str) -> str:
    return spread([of(run) for run in runs], form)


def spread(values: Sequence[float], form: str) -> str:
    """Return the median, with minimum and maximum in brackets if there are several."""
    median = format(statistics.median(values), form)
    if len(values) == 1:
        return median
    return f"{median} ({min(values):{form}} to {max(values):{form}})"


def _ratio(mine: Sequence[Run], compared: Sequence[Run], of: Callable[[Run], float]) -> str:
    if not compared:
        return ""
    return f"{statistics.median(map(of, mine)) / statistics.median(map(of, compared)):.2f}"
