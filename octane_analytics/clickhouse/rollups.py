"""Definitions of the rollups: aggregate projections on the table, from which reports are answered.

A projection is a part of each part of the table, so it follows deduplication tokens, deletes, TTL and
replaced partitions. The aggregates are declared as states, so that a report can combine them with the
states of rows that it reads itself; it must repeat the expressions of the definition, under any alias.

The name of a projection ends with a hash of its SQL. A changed definition is therefore recognised on a
live table by its name alone, whatever form a version of ClickHouse shows the SQL in, and both can exist
until the new one is materialized. Does not depend on a connection.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from octane_analytics.clickhouse.rollup_expressions import (
    EXPRESSIONS,
    HOUR,
    PLAYBACK,
    QUALITY,
    QUALITY_DIMENSIONS,
    WEEK,
    is_event,
)
from octane_analytics.clickhouse.schema import TableName

PREFIX = "octane_"
"""Start of the names of all projections that belong to the product."""
SETTINGS = {"lightweight_mutation_projection_mode": "'rebuild'"}
"""Settings of a table with rollups. By default ClickHouse refuses DELETE FROM on such a table."""


@dataclass(frozen=True)
class Rollup:
    """One projection: its aggregate states for each combination of its keys."""

    label: str
    """Name without the hash, of a-z and _."""
    set_name: str
    """Set by which it is added: `schema apply --rollups SET`."""
    keys: tuple[str, ...]
    states: tuple[str, ...]

    @cached_property
    def select(self) -> str:
        """SQL of the projection."""
        keys = ", ".join(self.keys)
        return f"SELECT {keys}, {', '.join(self.states)} GROUP BY {keys}"

    @cached_property
    def name(self) -> str:
        """Name of the projection: prefix, label and hash of the SQL."""
        digest = hashlib.sha256(self.select.encode()).hexdigest()
        return f"{PREFIX}{self.label}_{digest[:8]}"


def _count_if(event_name: str) -> str:
    return f"countIfState({is_event(event_name)})"


_USERS = "uniqCombined64State(user_id)"
"""Default precision, 17: exact up to 4,096 users, as a list of hashes; 96 KiB at most."""
_VIEWERS = f"uniqCombined64IfState(user_id, {is_event('video_heartbeat')})"
_CONTENT_STATES = (
    f"sumState({EXPRESSIONS['content_watch_ms']})",
    f"sumState({EXPRESSIONS['content_buffer_ms']})",
    *map(_count_if, PLAYBACK),
    _VIEWERS,
)

ROLLUPS = (
    Rollup(
        "totals",
        "totals",
        (HOUR, "app_id", "event_name"),
        ("countState()", _USERS),
    ),
    Rollup(
        "users",
        "users",
        (HOUR, "app_id"),
        (
            "countState()",
            _count_if("video_heartbeat"),
            _count_if("search"),
            f"sumState({EXPRESSIONS['watch_ms']})",
            "minState(timestamp)",
            "maxState(timestamp)",
            _USERS,
            _VIEWERS,
            f"uniqCombined64State({EXPRESSIONS['session']})",
        ),
    ),
    Rollup(
        "search",
        "search",
        (HOUR, "app_id", EXPRESSIONS["query"]),
        (
            _count_if("search"),
            _count_if("search_click"),
            f"countIfState({EXPRESSIONS['has_no_results']})",
            f"uniqCombined64IfState(user_id, {is_event('search')})",
        ),
    ),
    Rollup("content", "content", (HOUR, "app_id", EXPRESSIONS["content"]), _CONTENT_STATES),
    # Each hour has most of the content again, which a larger ledger has more of.
    Rollup("content_weeks", "content", (WEEK, "app_id", EXPRESSIONS["content"]), _CONTENT_STATES),
    Rollup(
        "quality",
        "quality",
        (
            HOUR,
            "app_id",
            *(EXPRESSIONS[f"quality_{name}"] for name in QUALITY_DIMENSIONS),
        ),
        (
            f"sumState({EXPRESSIONS['quality_watch_ms']})",
            f"sumState({EXPRESSIONS['quality_buffer_ms']})",
            *map(_count_if, QUALITY),
            f"countIfState({EXPRESSIONS['quality_is_fatal']})",
            _VIEWERS,
            f"uniqCombined64IfState(user_id, {is_event('video_buffering')})",
            # Exact, unlike a digest: whole milliseconds of two rare events.
            *(
                f"quantilesExactLowIfState(0.5, 0.95)(toUInt32({each}), {each} > 0)"
                for each in (EXPRESSIONS["quality_startup_ms"], EXPRESSIONS["quality_buffer_ms"])
            ),
        ),
    ),
)
SETS = tuple(dict.fromkeys(rollup.set_name for rollup in ROLLUPS))
DEFAULT_SETS = ("totals", "users", "search")
"""Sets of a new table. The others are opt-in: each costs inserts about as much CPU as all of these."""


def of_sets(names: Iterable[str]) -> tuple[Rollup, ...]:
    """Return the rollups of these sets, in the order of their definition."""
    wanted = frozenset(names)
    return tuple(rollup for rollup in ROLLUPS if rollup.set_name in wanted)


def name_of(label: str) -> str:
    """Return the name of the projection with this label. Raise ValueError for an unknown label."""
    names = {rollup.label: rollup.name for rollup in ROLLUPS}
    if label not in names:
        raise ValueError(f"rollup {label!r} is not one of {', '.join(names)}")
    return names[label]


def label_of(projection: str) -> str | None:
    """Return the label in the name of a projection of any version; None for a foreign projection."""
    label, _, digest = projection.removeprefix(PREFIX).rpartition("_")
    is_ours = projection.startswith(PREFIX) and len(digest) == 8 and bool(label)
    return label if is_ours else None


def add(table: TableName, rollup: Rollup) -> str:
    """Return the statement that adds the rollup: rows inserted from then on are in it."""
    return f"ALTER TABLE {table} ADD PROJECTION IF NOT EXISTS {rollup.name} ({rollup.select})"


def materialize(table: TableName, projections: Iterable[str], partition_id: str) -> str:
    """Return the statement that builds projections for one partition's existing parts, in one mutation.

    `partition_id` is that of system.parts: digits only, for a partition by month.
    """
    steps = (f"MATERIALIZE PROJECTION {p} IN PARTITION ID '{partition_id}'" for p in projections)
    return f"ALTER TABLE {table} {', '.join(steps)}"


def drop(table: TableName, projection: str) -> str:
    return f"ALTER TABLE {table} DROP PROJECTION IF EXISTS {projection}"


def alter_settings(table: TableName) -> str:
    """Return the statement for the settings that a table with rollups needs."""
    listed = ", ".join(f"{name} = {value}" for name, value in SETTINGS.items())
    return f"ALTER TABLE {table} MODIFY SETTING {listed}"
