"""The Grafana dashboard's expressions, with its variables filled in as Grafana would."""

import json
from collections.abc import Iterator
from pathlib import Path

DASHBOARD = Path(__file__).resolve().parents[3] / "conf/grafana/dashboards/octane-analytics.json"


def expressions(*, rate_interval: str) -> Iterator[tuple[str, str]]:
    """The panel's title and what it asks Prometheus, for each target."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", rate_interval)
            assert "$" not in expression, f"{panel['title']}: {expression}"
            yield panel["title"], expression
