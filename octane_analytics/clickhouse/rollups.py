r"""Rollups: aggregate projections of the table, and the SQL expressions that they share with reports.

A projection lives inside the parts, so it follows deduplication tokens, TTL, mutations and REPLACE
PARTITION. ClickHouse reads it only for a query with the same expressions: both sides take them from
here. A query filters the hours by EXPRESSIONS["hour"], never by `timestamp`, and reads `…State`s.

Distinct counts are uniqCombined64 of the default precision: exact up to about 4,000 values.

Does not depend on a connection.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from octane_analytics.clickhouse.schema import TableName

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
READABLE = (
    "if(isValidJSON(properties), properties, replaceRegexpOne(replaceRegexpAll("
    f"concat(properties, '1e999'), {_literal(_UP_TO_BIG_NUMBER)}, '\\\\1null'), 'null\\\\z', ''))"
)
"""`properties` as ClickHouse's JSON functions can parse it. One line, so that errors of ClickHouse
count the lines of the query that uses it."""


def _string(key: str) -> str:
    return f"JSONExtractString({READABLE}, {_literal(key)})"


def _number(key: str) -> str:
    # The raw text of a string has quotes, so only numbers are converted.
    return f"toFloat64OrZero(JSONExtractRaw({READABLE}, {_literal(key)}))"


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


_SEARCH = ("search", "search_click")
_PLAYBACK = ("video_heartbeat", "video_start", "video_buffering")
_QUALITY = (*_PLAYBACK, "video_error")
QUALITY_DIMENSIONS = ("network_type", "client_version", "device", "country")
"""Properties by which the quality rollup is grouped."""
_DIMENSIONS = ", ".join(f"{name} String" for name in QUALITY_DIMENSIONS)

EXPRESSIONS: Mapping[str, str] = {
    "hour": "toStartOfHour(timestamp, 'UTC')",
    "session_id": f"nullIf({_string('session_id')}, '')",
    "watch_ms": _measured("video_heartbeat", "watch_time", 1000, 86_400),
    "startup_ms": _measured("video_start", "startup_ms", 1, 86_400_000),
    "buffer_ms": _measured("video_buffering", "buffer_duration_ms", 1, 86_400_000),
    "is_fatal": f"{_is('video_error')} AND JSONExtractRaw({READABLE}, 'fatal') = 'true'",
    "is_zero_result": (
        f"{_is('search')} AND toFloat64OrNull(JSONExtractRaw({READABLE}, 'results_count')) = 0"
    ),
    "search_query": _of(_SEARCH, _string("query")),
    # ClickHouse matches no multiIf to the key of a projection.
    "content_id": _of(
        _PLAYBACK,
        f"coalesce(nullIf({_string('content_id')}, ''), nullIf({_string('stream_id')}, ''), "
        f"{_string('video_id')})",
    ),
    "quality_dimensions": _of(
        _QUALITY,
        f"JSONExtract({READABLE}, 'Tuple({_DIMENSIONS})')",
        "(" + ", ".join("''" for _ in QUALITY_DIMENSIONS) + ")",
    ),
}
"""Expressions over the table's columns, by the name under which templates write them."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """Immutable definition of one aggregate projection."""

    name: str
    set: str
    """Name under which an operator chooses it."""
    keys: tuple[str, ...]
    aggregates: tuple[str, ...]

    @property
    def select(self) -> str:
        """SELECT of the projection, without parentheses."""
        keys = ", ".join(self.keys)
        return f"SELECT {keys}, {', '.join(self.aggregates)} GROUP BY {keys}"


def _count_if(event_name: str) -> str:
    return f"countIfState({_is(event_name)})"


_HOUR = EXPRESSIONS["hour"]
_USERS = "uniqCombined64State(user_id)"
_VIEWERS = f"uniqCombined64IfState(user_id, {_is('video_heartbeat')})"

ROLLUPS = (
    Rollup(
        "rollup_totals",
        "totals",
        (_HOUR, "app_id", "event_name"),
        ("countState()", _USERS),
    ),
    Rollup(
        "rollup_users",
        "users",
        (_HOUR, "app_id"),
        (
            "countState()",
            _count_if("video_heartbeat"),
            _count_if("search"),
            f"sumState({EXPRESSIONS['watch_ms']})",
            "minState(timestamp)",
            "maxState(timestamp)",
            _USERS,
            _VIEWERS,
            f"uniqCombined64State({EXPRESSIONS['session_id']})",
        ),
    ),
    Rollup(
        "rollup_search",
        "search",
        (_HOUR, "app_id", EXPRESSIONS["search_query"]),
        (
            _count_if("search"),
            _count_if("search_click"),
            f"countIfState({EXPRESSIONS['is_zero_result']})",
            f"uniqCombined64IfState(user_id, {_is('search')})",
        ),
    ),
    Rollup(
        "rollup_content",
        "content",
        (_HOUR, "app_id", EXPRESSIONS["content_id"]),
        (
            f"sumState({EXPRESSIONS['watch_ms']})",
            f"sumState({EXPRESSIONS['buffer_ms']})",
            *map(_count_if, _PLAYBACK),
            _VIEWERS,
        ),
    ),
    Rollup(
        "rollup_quality",
        "quality",
        (_HOUR, "app_id", EXPRESSIONS["quality_dimensions"]),
        (
            f"sumState({EXPRESSIONS['watch_ms']})",
            f"sumState({EXPRESSIONS['buffer_ms']})",
            *map(_count_if, _QUALITY),
            f"countIfState({EXPRESSIONS['is_fatal']})",
            _VIEWERS,
            f"uniqCombined64IfState(user_id, {_is('video_buffering')})",
            # Exact quantiles: starts and stalls are few, and their values compress well.
            f"quantileExactLowIfState({EXPRESSIONS['startup_ms']}, {EXPRESSIONS['startup_ms']} > 0)",
            f"quantileExactLowIfState({EXPRESSIONS['buffer_ms']}, {EXPRESSIONS['buffer_ms']} > 0)",
        ),
    ),
)
SETS = tuple(rollup.set for rollup in ROLLUPS)
DEFAULT_SETS = ("totals", "users", "search")
"""Sets of a new table. The others are opt-in: each costs inserts about as much CPU as all of these."""


def of_sets(sets: Collection[str]) -> tuple[Rollup, ...]:
    """Return the rollups of these sets, in the order of ROLLUPS. Raises ValueError for others."""
    for name in sets:
        if name not in SETS:
            raise ValueError(f"unknown rollup set {name!r}; available: {', '.join(SETS)}")
    return tuple(rollup for rollup in ROLLUPS if rollup.set in sets)


def definition(rollup: Rollup) -> str:
    """Return the projection as an element of CREATE TABLE's list of columns."""
    return f"PROJECTION {rollup.name} ({rollup.select})"


def add_rollup(name: TableName, rollup: Rollup) -> str:
    """Return the statement that adds the rollup to an existing table, for future parts only."""
    return f"ALTER TABLE {name} ADD PROJECTION IF NOT EXISTS {rollup.name} ({rollup.select})"


def drop_rollup(name: TableName, rollup_name: str) -> str:
    """Return the statement that drops the rollup from the table and all its parts."""
    return f"ALTER TABLE {name} DROP PROJECTION IF EXISTS {rollup_name}"


def statements(name: TableName, sets: Collection[str]) -> list[str]:
    """Return one ALTER statement for each rollup of the sets."""
    return [add_rollup(name, rollup) for rollup in of_sets(sets)]


LIVE_QUERY = (
    "SELECT name, query FROM system.projections "
    "WHERE database = {database:String} AND table = {table:String}"
)
"""Rollups of a live table, as rows for `compare`."""
NORMALISED_QUERY = "SELECT formatQuerySingleLine(arrayJoin({selects:Array(String)}))"
"""The server's form of SELECTs, in their order, for `compare`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Expected rollups against those of a live table, by name."""

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    """Rollups of the same name whose definition differs: no report uses them."""
    unknown: tuple[str, ...]
    """Projections of the table that are not rollups."""


def compare(
    expected: Collection[Rollup], normalised: Collection[str], live: Mapping[str, str]
) -> Comparison:
    """Compare definitions in the server's form.

    `normalised` holds the SELECTs of `expected`, in its order; `live` the queries by name.
    """
    selects = dict(zip((rollup.name for rollup in expected), normalised, strict=True))
    known = {rollup.name for rollup in ROLLUPS}
    return Comparison(
        missing=tuple(name for name in selects if name not in live),
        changed=tuple(
            name for name, select in selects.items() if name in live and live[name] != select
        ),
        unknown=tuple(sorted(name for name in live if name not in known)),
    )
