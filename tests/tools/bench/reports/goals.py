"""Goals of reports over a large ledger, and whether a run reached them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from tests.tools.bench.reports.insert_cost import InsertCost
from tests.tools.bench.reports.ledgers import RAW, ROLLUPS, Built
from tests.tools.bench.reports.questions import Cell
from tests.tools.bench.reports.through_api import ApiCell

TOTALS = ("overview_stats", "events_over_time", "search_analytics", "searches_over_time")
GROUPS = (
    "top_content",
    "quality_of_experience",
    "active_users",
    "playback_over_time",
    "quality_over_time",
    "quality_breakdown",
)
USERS = ("funnel", "retention", "top_values", "property_percentiles")
VIEWS = (
    *("views", "qoe_scorecard", "audience_retention", "survival", "errors"),
    *("concurrent_viewers", "catalog", "session_timeline"),
)
GOAL_EVENTS = 100_000_000
"""Size of the ledger for which the goals are set."""
_LARGE_INSERT = 50_000

_OneWay = TypeVar("_OneWay", InsertCost, Built)


@dataclass(frozen=True)
class Goal:
    goal: str
    measured: str
    """Empty if it was not measured."""
    is_reached: bool = False


@dataclass
class Figures:
    """All figures of one run, so far."""

    built: list[Built]
    cells: list[Cell]
    inserts: list[InsertCost] = field(default_factory=list)
    api: list[ApiCell] = field(default_factory=list)


def goals(figures: Figures) -> list[Goal]:
    """Return the goals, judged by the largest ledger with one part per month, and its rollups."""
    merged = [cell for cell in figures.cells if cell.way == ROLLUPS and cell.parts == 1]
    largest = max((cell.events for cell in merged), default=0)
    cells = [cell for cell in merged if cell.events == largest]
    return [
        _slowest(cells, TOTALS, "90d", 300),
        _slowest(cells, GROUPS, "90d", 1_000),
        _slowest(cells, TOTALS + GROUPS, "24h", 150),
        _growth(merged, largest),
        _slowest(cells, USERS, "7d", 1_500),
        _memory(cells),
        _inserts(figures.inserts),
        _disk(figures.built),
        _slowest(cells, VIEWS, "7d", 1_500),
    ]


def _slowest(cells: Iterable[Cell], reports: Sequence[str], span: str, most_ms: int) -> Goal:
    text = f"{', '.join(reports)} over {span}: at most {most_ms:,} ms each"
    mine = [cell for cell in cells if cell.report in reports and cell.span == span]
    for cell in mine:
        if cell.error:
            return Goal(text, f"{cell.report}: {cell.error}")
    if not mine:
        return Goal(text, "")
    slowest = max(mine, key=lambda cell: median(cell.warm))
    took = median(slowest.warm) * 1000
    return Goal(text, f"{slowest.report} {took:,.0f} ms", took <= most_ms)


def _growth(merged: Sequence[Cell], largest: int) -> Goal:
    text = "the first six over 90d, ten times the events: at most 2 x"
    ratios = {}
    for cell in merged:
        for tenth in merged:
            if (
                cell.events == largest == tenth.events * 10
                and (cell.report, cell.span) == (tenth.report, "90d")
                and tenth.span == "90d"
                and cell.report in TOTALS + GROUPS
                and cell.warm
                and tenth.warm
            ):
                ratios[cell.report] = median(cell.warm) / median(tenth.warm)
    return _worst(text, ratios, "x", 2.0)


def _memory(cells: Iterable[Cell]) -> Goal:
    peaks = {f"{cell.report} {cell.span}": cell.peak_bytes / 1e6 for cell in cells if cell.warm}
    return _worst("peak memory of any report: at most 500 MB", peaks, "MB", 500.0)


def _inserts(costs: Sequence[InsertCost]) -> Goal:
    text = f"ClickHouse's CPU for inserts of {_LARGE_INSERT:,} rows: at most 2 x without rollups"
    return _against_raw(
        text,
        [cost for cost in costs if cost.rows == _LARGE_INSERT],
        lambda cost: median(cost.insert_us),
        2.0,
    )


def _disk(built: Sequence[Built]) -> Goal:
    largest = max((each.events for each in built), default=0)
    return _against_raw(
        "disk: at most 1.3 x without rollups",
        [each for each in built if each.events == largest and each.parts == 1],
        lambda each: each.bytes_on_disk,
        1.3,
    )


def _against_raw(
    text: str, found: Sequence[_OneWay], of: Callable[[_OneWay], float], most: float
) -> Goal:
    by_way = {each.way: of(each) for each in found}
    ratios = {}
    if RAW in by_way and ROLLUPS in by_way:
        ratios[""] = by_way[ROLLUPS] / by_way[RAW]
    return _worst(text, ratios, "x", most)


def _worst(text: str, values: dict[str, float], unit: str, most: float) -> Goal:
    if not values:
        return Goal(text, "")
    name = max(values, key=values.__getitem__)
    form = ".2f" if unit == "x" else ",.0f"
    return Goal(text, f"{name} {values[name]:{form}} {unit}".strip(), values[name] <= most)
