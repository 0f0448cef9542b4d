"""Arithmetic of `bin/bench reports`: goals, parameters of the reports, tables and the picture."""

import io
import json
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from tests.tools.bench.reports import estimate, questions, tables
from tests.tools.bench.reports.goals import GROUPS, TOTALS, USERS, VIEWS, Figures, Goal, goals
from tests.tools.bench.reports.insert_cost import InsertCost
from tests.tools.bench.reports.ledger_events import Ledger, select_events
from tests.tools.bench.reports.ledgers import RAW, ROLLUPS, Built, Ledgers
from tests.tools.bench.reports.questions import Cell
from tests.tools.bench.reports.through_api import ApiCell

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BUILT = Built("raw_1000_1", RAW, 1_000, 1, 1_000, 10_000, 4, 1.0)


def cell(report: str, span: str, milliseconds: float, **changes: object) -> Cell:
    fields = {"events": 1_000, "parts": 1, "way": ROLLUPS, **changes}
    seconds = milliseconds / 1000
    return Cell(report=report, span=span, warm=[seconds], cold=[2 * seconds], **fields)  # type: ignore[arg-type]


def reached(figures: Figures) -> dict[str, Goal]:
    return dict(
        zip(
            ("totals", "groups", "day", "growth", "users", "memory", "inserts", "disk", "views"),
            goals(figures),
            strict=True,
        )
    )


def test_goals_without_rollups_are_not_measured() -> None:
    figures = Figures([BUILT], [cell("overview_stats", "90d", 1, way=RAW)])
    assert {goal.measured for goal in goals(figures)} == {""}


@pytest.mark.parametrize(("slowest", "is_reached"), [(300, True), (301, False)])
def test_slowest_report_decides_the_goal(slowest: float, is_reached: bool) -> None:
    cells = [cell("overview_stats", "90d", 10), cell("search_analytics", "90d", slowest)]
    goal = reached(Figures([BUILT], cells))["totals"]
    assert goal.measured.startswith("search_analytics")
    assert goal.is_reached is is_reached


def test_report_that_failed_misses_its_goal() -> None:
    failed = replace(cell("funnel", "7d", 1), warm=[], error="over 30 s")
    goal = reached(Figures([BUILT], [failed]))["users"]
    assert (goal.measured, goal.is_reached) == ("funnel: over 30 s", False)


@pytest.mark.parametrize(("largest", "is_reached"), [(100, True), (101, False)])
def test_growth_compares_a_tenth_of_the_events(largest: float, is_reached: bool) -> None:
    cells = [
        cell("active_users", "90d", 50),
        cell("active_users", "90d", largest, events=10_000),
        cell("active_users", "90d", 1, events=100),
    ]
    assert reached(Figures([BUILT], cells))["growth"].is_reached is is_reached


def test_goals_judge_only_merged_ledgers() -> None:
    cells = [cell("overview_stats", "90d", 10), cell("overview_stats", "90d", 999, parts=300)]
    assert reached(Figures([BUILT], cells))["totals"].is_reached


def test_ratios_compare_rollups_with_raw() -> None:
    costs = [
        InsertCost(50_000, 8, RAW, [1.0, 1.1, 0.9], [0.0] * 3),
        InsertCost(50_000, 8, ROLLUPS, [2.1, 2.0, 1.9], [0.0] * 3),
        InsertCost(1_000, 8, ROLLUPS, [90.0], [0.0]),
    ]
    rolled_up = replace(BUILT, way=ROLLUPS, bytes_on_disk=13_001)
    found = reached(Figures([BUILT, rolled_up], [], costs))
    assert (found["inserts"].measured, found["inserts"].is_reached) == ("2.00 x", True)
    assert (found["disk"].measured, found["disk"].is_reached) == ("1.30 x", False)


def test_goals_name_every_report() -> None:
    assert set(TOTALS + GROUPS + USERS + VIEWS) == set(questions.reports())


@pytest.mark.parametrize("name", list(questions.reports()))
def test_every_report_has_its_parameters(name: str) -> None:
    for span in questions.RANGES.values():
        given = questions.parameters(questions.reports()[name], span, Ledger(1_000, NOW))
        assert given["to"] == NOW.isoformat()


def test_statement_depends_on_seed_and_sessions() -> None:
    ledger = Ledger(10_000, NOW)
    assert select_events(ledger, 0, 5) == select_events(ledger, 0, 5)
    assert select_events(ledger, 0, 5) != select_events(ledger, 5, 10)
    assert select_events(ledger, 0, 5) != select_events(replace(ledger, seed=2), 0, 5)


def test_tables_show_every_figure_of_a_run() -> None:
    cells = [cell("funnel", "7d", 40, way=RAW), cell("funnel", "7d", 10, projections=("r_hour",))]
    served = [
        ApiCell(1_000, 1, "funnel", "7d", RAW, clients, 8, 5.0, 150, 250) for clients in (1, 8)
    ]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(
        *tables.cell_tables(cells),
        tables.insert_table([InsertCost(1_000, 2, RAW, [7.0], [1.0], 12.0)]),
        tables.api_cell_table(served),
        tables.ledger_table([BUILT]),
        tables.goal_table([Goal("fast", "1 ms", True), Goal("small", "")], "Goals"),
    )
    shown = console.export_text()
    for figure in ("r_hour", "0.25", "5.0/s; 150, 250", "8 clients", "7.00", "not measured"):
        assert figure in shown


def test_picture_has_a_bar_for_each_way() -> None:
    cells = [cell("funnel", "7d", 40, way=RAW), cell("funnel", "7d", 10)]
    root = ET.fromstring(tables.picture(cells))  # noqa: S314
    texts = [each.text for each in root.iter() if each.text]
    assert {RAW, ROLLUPS} <= set(texts)


def test_answers_that_differ_are_remarked() -> None:
    cells = [cell("funnel", "7d", 40, way=RAW, first_value="3"), cell("funnel", "7d", 9)]
    cells += [cell("funnel", "24h", 40, way=RAW), cell("funnel", "24h", 9)]
    (remark,) = tables.remarks(cells)
    assert remark.startswith("funnel over 7d of 1,000 events")


def scope(**changes: object) -> estimate.Scope:
    fields = {
        "sizes": [1_000_000],
        "parts": [1],
        "reports": ["funnel"],
        "spans": ["90d"],
        "rounds": 3,
        "ways": (RAW, ROLLUPS),
        "insert_sizes": [],
        "crowds": [],
        "requests": 16,
        "timeout_seconds": 30.0,
    }
    return estimate.Scope(**fields | changes)  # type: ignore[arg-type]


def test_estimate_leaves_out_finished_ledgers(tmp_path: Path) -> None:
    file = tmp_path / "ledgers.json"
    engine = EmbeddedClickHouse(tmp_path)
    wanted = scope(sizes=[1_000])
    empty = Ledgers(engine, file, 90, 1)
    assert estimate.build_seconds(wanted, empty) > 0
    tables_built = [asdict(BUILT), asdict(replace(BUILT, table="rollups_1000_1", way=ROLLUPS))]
    kept = {"until": NOW.isoformat(), "days": 90, "seed": 1, "tables": tables_built}
    file.write_text(json.dumps(kept))
    full = Ledgers(engine, file, 90, 1)
    assert estimate.build_seconds(wanted, full) == estimate.new_bytes(wanted, full) == 0


def test_estimate_runs_slow_reports_once() -> None:
    raw = scope(ways=(RAW,), sizes=[10**9], crowds=[1, 8])
    assert estimate.measure_seconds(raw) == raw.timeout_seconds


def test_estimate_grows_with_clients_and_inserts() -> None:
    least = estimate.measure_seconds(scope())
    assert least < estimate.measure_seconds(scope(crowds=[1]))
    assert least < estimate.measure_seconds(scope(insert_sizes=[1_000]))
