"""Sources of a report's answer, from the server's EXPLAIN: rollups and events.

Does not depend on a connection.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octane_analytics.clickhouse.rollups import label_of

EXPLAIN = "EXPLAIN json = 1, description = 1, indexes = 1 "
_READ = "ReadFromMergeTree"


@dataclass(frozen=True, slots=True)
class PlanRead:
    """One read of the plan: a rollup's or the table's own parts."""

    rollup: str | None
    """Label of the rollup; None for events."""
    parts: int
    granules: int


def plan_reads(plan: Sequence[str]) -> list[PlanRead]:
    """Return the reads in the lines of EXPLAIN, in the order of the plan."""
    (tree,) = json.loads("\n".join(plan))
    return [_plan_read(node) for node in _nodes(tree["Plan"]) if node["Node Type"] == _READ]


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _plan_read(node: Mapping[str, Any]) -> PlanRead:
    # The last index is what remains to be read after those before it.
    last = node["Indexes"][-1] if node.get("Indexes") else {}
    return PlanRead(
        # The name of a projection has no dot; that of a table follows its database's and a dot.
        rollup=label_of(node["Description"]),
        parts=last.get("Selected Parts", 0),
        granules=last.get("Selected Granules", 0),
    )
