"""Dashboard, alerts and runbook speak of metrics and sections that exist."""

import json
import re
from pathlib import Path

import pytest

from tests.unit.test_docs import metric_names

CONF = Path(__file__).resolve().parents[2] / "conf"
ALERTS = (CONF / "prometheus" / "alerts.yml").read_text()
RUNBOOK = (CONF / "runbook.md").read_text()
DASHBOARD = json.loads((CONF / "grafana/dashboards/octane-analytics.json").read_text())
NAMES = re.findall(r"- alert: (\w+)", ALERTS)


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


def test_every_metric_has_a_panel(tmp_path: Path) -> None:
    asked = " ".join(t["expr"] for p in DASHBOARD["panels"] for t in p.get("targets", ()))
    for name in metric_names(tmp_path):
        assert re.search(rf"\b{name}(_bucket|_sum|_count)?\b", asked), name


def test_alerts_and_their_tests_and_the_runbook_name_metrics_that_exist(tmp_path: Path) -> None:
    tested = (CONF / "prometheus" / "alerts_test.yml").read_text()
    for text in (ALERTS, tested, RUNBOOK.replace("analytics_(", "").replace("_(sum|count)", "")):
        assert not _unknown(text, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_its_section_in_the_runbook_and_a_test(name: str) -> None:
    assert f"runbook.md#{name.lower()}" in ALERTS
    assert f"\n### {name}\n" in RUNBOOK
    assert f"alertname: {name}" in (CONF / "prometheus" / "alerts_test.yml").read_text()
