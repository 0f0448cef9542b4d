"""Pictures of runs: median CPU time of an event."""

import statistics
from collections.abc import Sequence

from tests.tools.bench.backlog import Shape
from tests.tools.bench.measure import Run
from tests.tools.bench.svg_bars import Bar, bars
from tests.tools.bench.tables import value_of

_TITLE, _UNIT = "CPU time of one event, median", "µs"
_PAYERS = ("worker or loop", "ClickHouse")


_SWEPT = {
    "batch": "batches of {:,}",
    "partitions": "{:,} partitions",
    "size": "{:,} bytes",
    "events": "{:,} events",
}


def side_by_side_svg(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Return one group of bars for each batch size and process count."""
    drawn = []
    for batch_size, processes in dict.fromkeys((run.batch_size, run.processes) for run in runs):
        group = f"batches of {batch_size:,}, {processes} " + (
            "processes or consumers" if processes > 1 else "process or consumer"
        )
        shape = [run for run in runs if (run.batch_size, run.processes) == (batch_size, processes)]
        for name in names:
            mine = [run for run in shape if run.contender == name]
            if mine:
                drawn.append(_bar(group, name, mine))
    return bars(_TITLE, _UNIT, drawn, _PAYERS)


def sweep_svg(axis: str, found: Sequence[tuple[Shape, Run]], names: Sequence[str]) -> str:
    """Return one group of bars for each contender, with a bar for each value."""
    drawn = []
    for name in names:
        values = dict.fromkeys(value_of(axis, shape) for shape, _ in found)
        for value in sorted(values):
            mine = [
                run
                for shape, run in found
                if run.contender == name and value_of(axis, shape) == value
            ]
            drawn.append(_bar(name, _SWEPT[axis].format(value), mine))
    return bars(_TITLE, _UNIT, drawn, _PAYERS)


def _bar(group: str, label: str, runs: Sequence[Run]) -> Bar:
    client = statistics.median(run.client_cpu_us for run in runs)
    clickhouse = statistics.median(run.clickhouse_cpu_us for run in runs)
    rate = statistics.median(run.events_per_second for run in runs)
    figures = f"{client + clickhouse:.2f} µs, {rate:,.0f} events/s"
    return Bar(group, label, (client, clickhouse), figures)
