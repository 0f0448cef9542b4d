"""Dashboard, alerts and their pages name metrics, sections and log lines that exist."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_docs import MANUAL, PACKAGE, anchors, metric_names

CONF = Path(__file__).resolve().parents[2] / "conf"
ALERTS = (CONF / "prometheus" / "alerts.yml").read_text()
ALERTS_TESTS = (CONF / "prometheus" / "alerts_test.yml").read_text()
ALERTS_PAGE = (MANUAL / "alerts.md").read_text()
DASHBOARD = json.loads((CONF / "grafana/dashboards/octane-analytics.json").read_text())
PANELS = DASHBOARD["panels"]
NAMES = re.findall(r"- alert: (\w+)", ALERTS)
GRID_COLUMNS = 24
UNITS = frozenset({"s", "bytes", "ops", "reqps", "rowsps", "percentunit", "short"})
"""Grafana's names of the units in use; a misspelt one is shown without a unit."""


def _unknown(text: str, directory: Path) -> set[str]:
    asked = set(re.findall(r"\banalytics_\w+", text))
    known = metric_names(directory)
    return {name for name in asked if name not in known and _without_suffix(name) not in known} - {
        "analytics_worker"
    }


def _without_suffix(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_every_panel_asks_for_metrics_that_exist(tmp_path: Path) -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len(panels) > 20
    for panel in panels:
        for target in panel["targets"]:
            assert "analytics_" in target["expr"]
            assert not _unknown(target["expr"], tmp_path), panel["title"]


def test_panels_lie_side_by_side_below_their_rows() -> None:
    taken: dict[tuple[int, int], str] = {}
    rows = [panel for panel in PANELS if panel["type"] == "row"]
    assert PANELS[0] is rows[0]
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] >= 0
        assert at["x"] + at["w"] <= GRID_COLUMNS, panel["title"]
        for cell in itertools.product(
            range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        ):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]
    # Grafana puts a panel into the last row above it; in the file they stand in that order too.
    places = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in PANELS]
    assert places == sorted(places)
    # The most important panels are visible without scrolling: eight grid units are about 300 pixels.
    first_row = [panel for panel in PANELS if panel["gridPos"]["y"] < rows[1]["gridPos"]["y"]]
    assert [panel["type"] for panel in first_row] == ["row"] + ["stat"] * 6
    assert rows[1]["gridPos"]["y"] <= 8


@pytest.mark.parametrize(
    "panel", [p for p in PANELS if p["type"] != "row"], ids=lambda panel: str(panel["title"])
)
def test_panel_has_unit_query_and_legend(panel: Any) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    for target in panel["targets"]:
        legend, expression = target["legendFormat"], target["expr"]
        assert legend
        for label in re.findall(r"{{(\w+)}}", legend):
            assert re.search(rf"by \([^)]*\b{label}\b", expression), f"{expression} drops {label}"
        # A time of measurement is a condition, not the value shown.
        timed = expression.replace("_timestamp_seconds", "")
        if "_seconds" in timed and panel["fieldConfig"]["defaults"]["unit"] == "short":
            assert "rate(" in expression, "a time in no unit"


def test_dashboard_has_unique_ids_and_one_datasource() -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in PANELS]
        assert len(set(values)) == len(values)
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    (alerts,) = DASHBOARD["annotations"]["list"]
    (pattern,) = re.findall(r'alertname=~"([^"]+)"', alerts["expr"])
    assert all(re.fullmatch(pattern, name) for name in NAMES)


def test_every_metric_has_a_panel(tmp_path: Path) -> None:
    asked = " ".join(t["expr"] for p in DASHBOARD["panels"] for t in p.get("targets", ()))
    for name in metric_names(tmp_path):
        assert re.search(rf"\b{name}(_bucket|_sum|_count)?\b", asked), name


def test_alerts_readme_and_manual_name_metrics_that_exist(tmp_path: Path) -> None:
    pages = [path.read_text() for path in (CONF.parent / "README.md", *MANUAL.glob("*.md"))]
    for text in (ALERTS, ALERTS_TESTS, *pages):
        text = text.replace("analytics_(", "").replace("_(sum|count)", "")
        assert not _unknown(text, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_its_section_and_a_test(name: str) -> None:
    assert f'/manual/alerts.md#{name.lower()}"' in ALERTS
    assert name.lower() in anchors(ALERTS_PAGE)
    assert f"alertname: {name}" in ALERTS_TESTS


def test_alerts_page_has_no_section_without_alert() -> None:
    assert re.findall(r"^### (\w+)$", ALERTS_PAGE, re.MULTILINE) == NAMES


def test_alerts_link_to_the_pages_that_are_installed() -> None:
    (directory,) = set(re.findall(r"file://(\S+)/alerts\.md#", ALERTS))
    assert directory == "/opt/octane-analytics/current/octane_analytics/manual"
    installer = (CONF.parent / "bin" / "install").read_text()
    assert 'cp -R octane_analytics/manual "$building/octane_analytics"' in installer


GREPS = re.findall(r"journalctl .*?\| grep (?:-E )?'(.+?)'", ALERTS_PAGE)


@pytest.mark.parametrize("pattern", GREPS)
def test_alerts_page_greps_for_lines_that_are_logged(pattern: str) -> None:
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    logged = re.sub(r'"\s*\n\s*f?"', "", source)  # literals that go over several lines
    for alternative in set(pattern.split("|")) - {"Traceback", '"status": 5'}:
        assert re.search(rf'"[^"\n]*{re.escape(alternative)}', logged), alternative
