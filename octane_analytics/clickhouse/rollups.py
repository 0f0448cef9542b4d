r"""Definitions of the rollups: aggregate projections on the table, from which reports are answered.

A projection is a part of each part of the table, so it follows deduplication tokens, deletes, TTL and
replaced partitions. The aggregates are declared as states, so that a report can combine them with the
states of rows that it reads itself; it must repeat the expressions of the definition, under any alias.

The name of a projection ends with a hash of its SQL. A changed definition is therefore recognised on a
live table by its name alone, whatever form a version of ClickHouse shows the SQL in, and both can exist
until the new one is materialized. Does not depend on a connection.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from octane_analytics.clickhouse.schema import TableName

PREFIX = "octane_"
"""Start of the names of all projections that belong to the product."""
SETTINGS = {"lightweight_mutation_projection_mode": "'rebuild'"}
"""Settings of a table with rollups. By default ClickHouse refuses DELETE FROM on such a table."""

_BIG_NUMBER = (
    r"-?(?:[0-9]{100,}[-+.0-9eE]*"
    r"|(?:[1-9][0-9]*(?:\.[0-9]+)?|0\.0*[1-9][0-9]*)[eE]\+?0*[1-9][0-9]{2,})"
)
"""A number of at least 100 digits or three digits of exponent: every one beyond a double's range."""
_UP_TO_BIG_NUMBER = rf'((?:"(?:[^"\\]|\\.)*"|[^"])*?)(?:{_BIG_NUMBER})'


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# Events may hold numbers beyond the range of a double, which are valid JSON; simdjson rejects a whole
# document for one of them. In such a document big numbers become null; strings are left unchanged. The
# appended number lets the last match end after the last string, which could hold what looks like a
# number. A lambda (arrayMap) would be exact, but ClickHouse matches none to a projection.
READABLE_PROPERTIES = (
    "if(isValidJSON(properties), properties, replaceRegexpOne(replaceRegexpAll("
    f"concat(properties, '1e999'), {_literal(_UP_TO_BIG_NUMBER)}, '\\\\1null'), 'null\\\\z', ''))"
)
"""`properties` as ClickHouse's JSON functions can parse it. One line, so that errors of ClickHouse
count the lines of the query that uses it."""


def _string(key: str) -> str:
    return f"JSONExtractString({READABLE_PROPERTIES}, {_literal(key)})"


def _number(key: str) -> str:
    # The raw text of a string has quotes, so only numbers are converted.
    return f"toFloat64OrZero(JSONExtractRaw({READABLE_PROPERTIES}, {_literal(key)}))"


def _is(*event_names: str) -> str:
    return " OR ".join(f"event_name = {_literal(name)}" for name in event_names)


def _of(event_names: tuple[str, ...], expression: str, otherwise: str = "''") -> str:
    """Return the expression for these events only: no other event is parsed."""
    return f"if({_is(*event_names)}, {expression}, {otherwise})"


def _measured(event_name: str, key: str, scale: int, high: int) -> str:
    """Return the number as an integer of `1 / scale`, 0 unless above 0 and up to `high`.

    A sum of integers does not depend on their order.
    """
    number = _number(key)
    scaled = number if scale == 1 else f"{number} * {scale}"
    counted = f"{_is(event_name)} AND {number} > 0 AND {number} <= {high}"
    return f"if({counted}, toUInt64(round({scaled})), 0)"


HOUR = "toStartOfHour(timestamp, 'UTC')"
"""Hours of UTC: without the zone they would be those of the server's time zone."""
_SEARCH = ("search", "search_click")
_PLAYBACK = ("video_heartbeat", "video_start", "video_buffering")
_QUALITY = (*_PLAYBACK, "video_error")
QUALITY_DIMENSIONS = ("network_type", "client_version", "device", "country")
"""Properties by which the quality rollup is grouped."""


def _dimension(type_: str, number: str) -> str:
    # One tuple parses the document once for all dimensions: a third less CPU at inserts.
    element = f"tupleElement(JSONExtract({READABLE_PROPERTIES}, {type_}), {number})"
    return _of(_QUALITY, element)


ANY_CONTENT = (
    f"coalesce(nullIf({_string('content_id')}, ''), nullIf({_string('stream_id')}, ''), "
    f"{_string('video_id')})"
)
"""Identifier of the content of any event; empty if it has none."""
_DIMENSIONS = _literal(f"Tuple({', '.join(f'{name} String' for name in QUALITY_DIMENSIONS)})")
_BY = "{by:String}"

EXPRESSIONS: Mapping[str, str] = {
    "session": f"nullIf({_string('session_id')}, '')",
    "watch_ms": _measured("video_heartbeat", "watch_time", 1000, 86_400),
    "startup_ms": _measured("video_start", "startup_ms", 1, 86_400_000),
    "buffer_ms": _measured("video_buffering", "buffer_duration_ms", 1, 86_400_000),
    "is_fatal": f"{_is('video_error')} AND JSONExtractRaw({READABLE_PROPERTIES}, 'fatal') = 'true'",
    "has_no_results": (
        f"{_is('search')} "
        f"AND toFloat64OrNull(JSONExtractRaw({READABLE_PROPERTIES}, 'results_count')) = 0"
    ),
    "query": _of(_SEARCH, _string("query")),
    # ClickHouse matches no multiIf to the key of a projection.
    "content": _of(_PLAYBACK, ANY_CONTENT),
    # Constants once `by` is bound, so that it is the key of the dimension. ClickHouse evaluates only
    # every second one of nested conditions, and would not find the key within them.
    "quality_value": _dimension(
        f"if(has({list(QUALITY_DIMENSIONS)}, {_BY}), {_DIMENSIONS}, "
        f"concat('Tuple(', {_BY}, ' String)'))",
        f"toUInt8(greatest(indexOf({list(QUALITY_DIMENSIONS)}, {_BY}), 1))",
    ),
    **{
        f"quality_{name}": _dimension(_DIMENSIONS, str(number))
        for number, name in enumerate(QUALITY_DIMENSIONS, 1)
    },
}
"""SQL by name, for the templates of reports, which must repeat it to be answered from a rollup."""


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
    return f"countIfState({_is(event_name)})"


_USERS = "uniqCombined64State(user_id)"
"""Default precision, 17: exact up to 4,096 users, as a list of hashes; 96 KiB at most."""
_VIEWERS = f"uniqCombined64IfState(user_id, {_is('video_heartbeat')})"

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
            f"uniqCombined64IfState(user_id, {_is('search')})",
        ),
    ),
    Rollup(
        "content",
        "content",
        (HOUR, "app_id", EXPRESSIONS["content"]),
        (
            f"sumState({EXPRESSIONS['watch_ms']})",
            f"sumState({EXPRESSIONS['buffer_ms']})",
            *map(_count_if, _PLAYBACK),
            _VIEWERS,
        ),
    ),
    Rollup(
        "quality",
        "quality",
        (
            HOUR,
            "app_id",
            *(
                _dimension(_DIMENSIONS, str(number))
                for number in range(1, len(QUALITY_DIMENSIONS) + 1)
            ),
        ),
        (
            f"sumState({EXPRESSIONS['watch_ms']})",
            f"sumState({EXPRESSIONS['buffer_ms']})",
            *map(_count_if, _QUALITY),
            f"countIfState({EXPRESSIONS['is_fatal']})",
            _VIEWERS,
            f"uniqCombined64IfState(user_id, {_is('video_buffering')})",
            # Exact, unlike a digest: whole milliseconds of two rare events.
            *(
                f"quantilesExactLowIfState(0.5, 0.95)(toUInt32({each}), {each} > 0)"
                for each in (EXPRESSIONS["startup_ms"], EXPRESSIONS["buffer_ms"])
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
