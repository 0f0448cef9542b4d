"""Tables and the picture of `bin/bench reports`."""

from collections.abc import Sequence
from statistics import median

from rich.table import Table

from tests.tools.bench.reports.goals import Goal
from tests.tools.bench.reports.insert_cost import InsertCost
from tests.tools.bench.reports.ledgers import RAW, ROLLUPS, Built
from tests.tools.bench.reports.questions import Cell
from tests.tools.bench.reports.through_api import ApiCell
from tests.tools.bench.svg_bars import Bar, bars
from tests.tools.bench.tables import spread


def ledger_table(built: Sequence[Built]) -> Table:
    """Return one line for each table; ratios are against the one without rollups."""
    table = _table("Ledgers", ("table", "events", "parts", "s to build", "MiB", "B an event", "x"))
    table.add_column("rollups")
    raw = {(each.events, each.parts): each for each in built if each.way == RAW}
    for each in built:
        table.add_row(
            each.way,
            f"{each.rows:,}",
            f"{each.parts_on_disk:,}",
            f"{each.build_seconds:,.0f}",
            f"{each.bytes_on_disk >> 20:,}",
            f"{each.bytes_on_disk / each.rows:.1f}",
            _ratio(each.bytes_on_disk, raw[each.events, each.parts].bytes_on_disk),
            " ".join(each.rollups),
        )
    return table


def cell_tables(cells: Sequence[Cell]) -> list[Table]:
    """Return a table for each ledger; ratios are against the template without rollups."""
    ledgers = dict.fromkeys((cell.events, cell.parts) for cell in cells)
    return [
        _cell_table(
            f"{_ledger(events, parts)}: reports without the API, median (lowest to highest)",
            [cell for cell in cells if (cell.events, cell.parts) == (events, parts)],
        )
        for events, parts in ledgers
    ]


def _cell_table(title: str, cells: Sequence[Cell]) -> Table:
    table = _table(
        title, ("report", "range", "way", "cold ms", "warm ms", "x", "CPU s", "peak MiB")
    )
    for heading in ("rows read", "MiB read"):
        table.add_column(heading, justify="right")
    table.add_column("rollups read")
    raw = {(cell.report, cell.span): cell for cell in cells if cell.way == RAW and cell.warm}
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        base = raw.get((cell.report, cell.span))
        table.add_row(
            cell.report,
            cell.span,
            cell.way,
            _milliseconds(cell.cold) if cell.cold else cell.error,
            _milliseconds(cell.warm) if cell.warm else cell.error,
            _ratio(median(cell.warm), median(base.warm)) if base and cell.warm else "",
            f"{cell.cpu_seconds:.2f}",
            f"{cell.peak_bytes >> 20:,}",
            f"{cell.read_rows:,}",
            f"{cell.read_bytes >> 20:,}",
            " ".join(cell.projections),
            end_section=after is None or after.report != cell.report,
        )
    return table


def remarks(cells: Sequence[Cell]) -> list[str]:
    """Return a sentence for each report whose answer with rollups begins with another value."""
    raw = {
        (cell.report, cell.span, cell.events, cell.parts): cell.first_value
        for cell in cells
        if cell.way == RAW and cell.warm
    }
    return [
        f"{cell.report} over {cell.span} of {_ledger(cell.events, cell.parts)}: the answer begins "
        f"with {cell.first_value!r} with rollups and with {raw[key]!r} without"
        for cell in cells
        if (key := (cell.report, cell.span, cell.events, cell.parts)) in raw
        if cell.way == ROLLUPS and cell.warm and cell.first_value != raw[key]
    ]


def insert_table(costs: Sequence[InsertCost]) -> Table:
    """Return one line for each size and way; ratios are against the table without rollups."""
    table = _table(
        "ClickHouse's CPU for inserts, and for merging their parts into one",
        ("rows an insert", "way", "µs an event", "x", "merge µs", "B an event", "x"),
    )
    raw = {cost.rows: cost for cost in costs if cost.way == RAW}
    for cost in costs:
        base = raw[cost.rows]
        table.add_row(
            f"{cost.rows:,}",
            cost.way,
            spread(cost.insert_us, ".2f"),
            _ratio(median(cost.insert_us), median(base.insert_us)),
            spread(cost.merge_us, ".2f"),
            f"{cost.bytes_per_event:.1f}",
            _ratio(cost.bytes_per_event, base.bytes_per_event),
        )
    return table


def api_cell_table(cells: Sequence[ApiCell]) -> Table:
    """Return one line for each report, range, ledger and way, with a column for each crowd."""
    crowds = list(dict.fromkeys(cell.clients for cell in cells))
    headings = [f"{crowd} client{'s' if crowd > 1 else ''}" for crowd in crowds]
    table = _table(
        "Through the API, uncached: requests a second; median and 99th percentile in ms",
        ("report", "range", "ledger", "way", *headings),
    )
    lines: dict[tuple[str, str, str, str], dict[int, str]] = {}
    for cell in cells:
        key = (cell.report, cell.span, _ledger(cell.events, cell.parts), cell.way)
        figures = f"{cell.per_second:,.1f}/s; {cell.p50_ms:,.0f}, {cell.p99_ms:,.0f}"
        lines.setdefault(key, {})[cell.clients] = cell.error or figures
    for key in sorted(lines):
        table.add_row(*key, *(lines[key].get(crowd, "") for crowd in crowds))
    return table


def _ledger(events: int, parts: int) -> str:
    return f"{events:,} events" + (f" in {parts:,} parts" if parts > 1 else "")


def goal_table(found: Sequence[Goal], title: str) -> Table:
    """Return one line for each goal."""
    table = Table(title=title)
    for heading in ("goal", "measured", "reached"):
        table.add_column(heading)
    for goal in found:
        reached = ("yes" if goal.is_reached else "no") if goal.measured else ""
        table.add_row(goal.goal, goal.measured or "not measured", reached)
    return table


def picture(cells: Sequence[Cell]) -> str:
    """Return a group of bars for each report and range: warm, and on to cold."""
    drawn = []
    for cell in cells:
        if cell.warm:
            warm, cold = median(cell.warm) * 1000, median(cell.cold) * 1000
            drawn.append(
                Bar(
                    f"{cell.report} over {cell.span}, {_ledger(cell.events, cell.parts)}",
                    cell.way,
                    (warm, max(cold - warm, 0.0)),
                    f"{warm:,.0f} and {cold:,.0f} ms, {cell.read_rows:,} rows",
                )
            )
    return bars("Time of a report", "ms", drawn, ("warm", "on to cold"))


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title)
    for heading in headings:
        is_text = heading in ("table", "report", "range", "ledger", "way")
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=is_text)
    return table


def _milliseconds(seconds: Sequence[float]) -> str:
    return spread([one * 1000 for one in seconds], ",.0f")


def _ratio(mine: float, base: float) -> str:
    return f"{mine / base:.2f}" if base else ""
