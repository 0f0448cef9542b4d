"""Aggregates of a rollup, read from its projection and from the rows."""

from collections.abc import Sequence
from typing import Any

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.rollups import ROLLUPS, Rollup


def states(table: ClickHouse, rollup: Rollup, settings: dict[str, object]) -> list[Any]:
    """Merged aggregates of the rollup for each key, from the projection or from the rows."""
    keys = [f"key{n}" for n in range(len(rollup.keys))]
    aliased = [f"{sql} AS {key}" for sql, key in zip(rollup.keys, keys, strict=True)]
    aliased += [f"{sql} AS state{n}" for n, sql in enumerate(rollup.states)]
    merged = [f"finalizeAggregation(state{n})" for n in range(len(rollup.states))]
    return table.select(
        f"SELECT {', '.join([*keys, *merged])} FROM (SELECT {', '.join(aliased)} "
        f"FROM {table.table} GROUP BY {', '.join(keys)}) ORDER BY ALL",
        settings=settings,
    ).rows


def assert_equal_to_rows(table: ClickHouse, wanted: Sequence[Rollup] = ROLLUPS) -> None:
    """Require that each rollup is read, and equal to the rows."""
    for rollup in wanted:
        raw = states(table, rollup, {"optimize_use_projections": 0})
        # Its hours can answer a rollup of weeks, too, and may have fewer marks.
        used: dict[str, object] = {"preferred_optimize_projection_name": rollup.name}
        if raw:
            used["force_optimize_projection_name"] = rollup.name
        assert states(table, rollup, used) == raw, rollup.label
