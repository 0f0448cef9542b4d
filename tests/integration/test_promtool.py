"""`promtool` accepts rules, their tests and the scrape configuration, and tests the dashboard."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CONF = Path(__file__).resolve().parents[2] / "conf" / "prometheus"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
)
def test_promtool_accepts_conf(arguments: tuple[str, ...]) -> None:
    promtool(*arguments)


def promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None and os.environ.get("CI") != "true":
        pytest.skip("no promtool: apt-get install prometheus")
    done = subprocess.run(
        ["promtool", *arguments], cwd=CONF, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each panel's title and each of its expressions."""
    dashboard = json.loads((CONF.parent / "grafana/dashboards/octane-analytics.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def series(name: str, values: str, host: int, labels: str = "") -> dict[str, str]:
    of_host = f'job="octane-analytics",instance="vm{host}:8000"'
    return {"series": f"{name}{{{of_host}{labels}}}", "values": values}


def test_dashboard_counts_three_hosts_once(tmp_path: Path) -> None:
    # The third host has lost Kafka: its last measurement is old, and its lag is not counted.
    given = [
        found
        for host, times, lag, age in (
            (1, "0+60x30", 70, 4),
            (2, "0+60x30", 70, 5),
            (3, "0x30", 9000, 900),
        )
        for found in (
            series("analytics_lag_updated_timestamp_seconds", times, host),
            series("analytics_lag_messages", f"{lag}x30", host, ',partition="0"'),
            series("analytics_lag_messages", "30x30", host, ',partition="1"'),
            series("analytics_lag_held_back_messages", f"{lag}x30", host, ',partition="0"'),
            series("analytics_lag_seconds", f"{age}x30", host, ',partition="0"'),
            series("analytics_events_inserted_total", "0+600x30", host),
            series("analytics_assigned_partitions", "4x30", host),
            series("analytics_outage", "1x30", host, ',dependency="kafka"'),
        )
    ]
    zero, one = '{partition="0"}', '{partition="1"}'
    expected = {
        "sum(max by (partition) (analytics_lag_messages": [("{}", 100)],
        "topk(5, max by (partition) (analytics_lag_messages": [(zero, 70), (one, 30)],
        "sum(max by (partition) (analytics_lag_held_back_messages": [("{}", 70)],
        "max(analytics_lag_seconds": [("{}", 5)],
        "topk(5, max by (partition) (analytics_lag_seconds": [(zero, 5)],
        "time() - max(analytics_lag_updated_timestamp_seconds": [("{}", 0)],
        "sum(rate(analytics_events_inserted_total[5m]))": [("{}", 30)],
        "sum(analytics_assigned_partitions": [("{}", 12)],
        "sum by (dependency) (analytics_outage": [('{dependency="kafka"}', 3)],
    }
    checks = [
        {
            "expr": expression,
            "eval_time": "25m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples],
        }
        for _, expression in expressions()
        for start, samples in expected.items()
        if expression.startswith(start)
    ]
    assert len(checks) >= len(expected)
    lag_panels = [text for _, text in expressions() if "analytics_lag" in text]
    assert set(lag_panels) <= {check["expr"] for check in checks}
    path = tmp_path / "test.yml"
    # JSON is a subset of YAML.
    test = {"interval": "1m", "input_series": given, "promql_expr_test": checks}
    path.write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", str(path))
