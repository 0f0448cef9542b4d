import json

from octane_analytics.api.reports.explain import PlanRead, plan_reads
from octane_analytics.clickhouse.rollups import ROLLUPS


def read(description: str, *granules: int) -> dict[str, object]:
    indexes = [{"Selected Parts": 2, "Selected Granules": each} for each in granules]
    return {"Node Type": "ReadFromMergeTree", "Description": description, "Indexes": indexes}


def plan(*nodes: dict[str, object]) -> list[str]:
    tree = [
        {"Plan": {"Node Type": "Expression", "Plans": [{"Node Type": "Union", "Plans": nodes}]}}
    ]
    return json.dumps(tree, indent=2).split("\n")


def test_reads_are_named_after_rollups_or_events() -> None:
    rollup = ROLLUPS[0]
    lines = plan(
        read(rollup.name, 9, 4), read("default.events", 8), read("default.octane_x_12345678")
    )
    assert plan_reads(lines) == [
        PlanRead(rollup.label, 2, 4),
        PlanRead(None, 2, 8),
        PlanRead(None, 0, 0),
    ]


def test_plan_without_reads_has_no_plan_reads() -> None:
    assert plan_reads(plan({"Node Type": "ReadFromPreparedSource"})) == []
