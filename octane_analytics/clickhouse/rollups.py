r"""Definitions of the rollups: aggregate projections on the table, from which reports are answered.

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

from octane_analytics.clickhouse.schema import TableName

PREFIX = "octane_"
"""Start of the names of all projections that belong to the product."""
SETTINGS = {"lightweight_mutation_projection_mode": "'rebuild'"}
"""Settings of a table with rollups. By default ClickHouse refuses DELETE FROM on such a table."""

READABLE_PROPERTIES = (
    # Events may hold numbers beyond the range of a double, which are valid JSON; simdjson rejects a
    # whole document for one of them. In such a document, numbers with an exponent of three digits or
    # with 200 digits become null; strings and other numbers are left unchanged. Valid JSON has no
    # backspace or form feed, which mark the replaced numbers. Without a lambda, whose expressions
    # ClickHouse never finds in a projection.
    "if(isValidJSON(properties), properties, replaceAll(replaceRegexpAll(replaceRegexpAll(properties, "
    r"""'("(?:[^"\\\\]|\\\\.)*")"""
    r"|(-?[0-9]{200,}[-+.0-9eE]*|-?[0-9]+(?:\\.[0-9]+)?[eE]\\+?0*[1-9][0-9]{2,})"
    r"|(-?[0-9][-+.0-9eE]*)', '\\1\b\\2\f\\3'), '\b[^\f]+\f', 'null'), '\b\f', ''))"
)
"""`properties` as ClickHouse's JSON functions can parse it. One line."""

HOUR = "toStartOfHour(timestamp, 'UTC')"
"""Hours of UTC: without the zone they would be those of the server's time zone."""


def _text(name: str) -> str:
    return f"JSONExtractString({READABLE_PROPERTIES}, '{name}')"


def _milliseconds(event_name: str, name: str, limit: int, factor: int = 1) -> str:
    """Return the value of a number above 0 and up to `limit` in whole milliseconds, else 0."""
    # The raw text of a string has quotes, so only numbers are converted.
    number = (
        f"if(event_name = '{event_name}', "
        f"toFloat64OrZero(JSONExtractRaw({READABLE_PROPERTIES}, '{name}')), 0)"
    )
    scaled = number if factor == 1 else f"{number} * {factor}"
    return f"if({number} > 0 AND {number} <= {limit}, toUInt64(round({scaled})), 0)"


WATCH_MS = _milliseconds("video_heartbeat", "watch_time", 86_400, 1000)
BUFFER_MS = _milliseconds("video_buffering", "buffer_duration_ms", 86_400_000)
STARTUP_MS = _milliseconds("video_start", "startup_ms", 86_400_000)
SESSION = _text("session_id")
CONTENT = (
    f"coalesce(nullIf({_text('content_id')}, ''), nullIf({_text('stream_id')}, ''), "
    f"{_text('video_id')})"
)
QUERY = _text("query")
IS_FATAL = f"event_name = 'video_error' AND JSONExtractRaw({READABLE_PROPERTIES}, 'fatal') = 'true'"
HAS_NO_RESULTS = (
    "event_name = 'search' AND "
    f"toFloat64OrNull(JSONExtractRaw({READABLE_PROPERTIES}, 'results_count')) = 0"
)


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


_IS_HEARTBEAT = "event_name = 'video_heartbeat'"
_USERS = "uniqCombined64State(user_id)"
"""States of the default precision, 17: exact up to 4,096 users, and small for some more."""
_VIEWERS = f"uniqCombined64IfState(user_id, {_IS_HEARTBEAT})"
ROLLUPS = (
    Rollup(
        "totals",
        "totals",
        (HOUR, "app_id"),
        (
            "countState()",
            f"countIfState({_IS_HEARTBEAT})",
            "countIfState(event_name = 'search')",
            f"sumState({WATCH_MS})",
            "minState(timestamp)",
            "maxState(timestamp)",
            _USERS,
            _VIEWERS,
            f"uniqCombined64State(nullIf({SESSION}, ''))",
        ),
    ),
    Rollup(
        "events",
        "totals",
        (HOUR, "app_id", "event_name"),
        ("countState()", _USERS),
    ),
    Rollup(
        "content",
        "content",
        (HOUR, "app_id", CONTENT),
        (
            f"sumState({WATCH_MS})",
            f"sumState({BUFFER_MS})",
            f"countIfState({_IS_HEARTBEAT})",
            "countIfState(event_name = 'video_start')",
            "countIfState(event_name = 'video_buffering')",
            _VIEWERS,
        ),
    ),
    Rollup(
        "quality",
        "quality",
        (
            HOUR,
            "app_id",
            _text("network_type"),
            _text("client_version"),
            _text("device"),
            _text("country"),
        ),
        (
            f"sumState({WATCH_MS})",
            f"sumState({BUFFER_MS})",
            "countIfState(event_name = 'video_start')",
            "countIfState(event_name = 'video_buffering')",
            "countIfState(event_name = 'video_error')",
            f"countIfState({IS_FATAL})",
            _VIEWERS,
            "uniqCombined64IfState(user_id, event_name = 'video_buffering')",
            # Exact, unlike a digest: whole milliseconds of two rare events.
            f"quantilesExactLowIfState(0.5, 0.95)(toUInt32({STARTUP_MS}), {STARTUP_MS} > 0)",
            f"quantilesExactLowIfState(0.5, 0.95)(toUInt32({BUFFER_MS}), {BUFFER_MS} > 0)",
        ),
    ),
    Rollup(
        "search",
        "search",
        (HOUR, "app_id", QUERY),
        (
            "countIfState(event_name = 'search')",
            "countIfState(event_name = 'search_click')",
            f"countIfState({HAS_NO_RESULTS})",
            "uniqCombined64IfState(user_id, event_name = 'search')",
        ),
    ),
)
EXPRESSIONS = {
    "watch_ms": WATCH_MS,
    "buffer_ms": BUFFER_MS,
    "startup_ms": STARTUP_MS,
    "session": SESSION,
    "content": CONTENT,
    "query": QUERY,
    "is_fatal": IS_FATAL,
    "has_no_results": HAS_NO_RESULTS,
}
"""SQL by name, for the templates of reports, which must repeat it to be answered from a rollup."""
SETS = tuple(dict.fromkeys(rollup.set_name for rollup in ROLLUPS))
DEFAULT_SETS = ("totals",)
"""Sets that `schema apply` adds to a new table. Each set costs ClickHouse about as much CPU as an insert
of 50,000 rows without it."""


def of_sets(names: Iterable[str]) -> tuple[Rollup, ...]:
    """Return the rollups of these sets, in the order of their definition."""
    wanted = frozenset(names)
    return tuple(rollup for rollup in ROLLUPS if rollup.set_name in wanted)


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
