"""Subqueries of views, for the reports about playback.

A view is one viewer's playback of one content: all events of one application with the same
`properties.view_id`. Events without it belong to the view of their application, session and content
that the number of `video_start` in it up to their second gives; a `video_request` belongs to the start
that follows. Filters narrow every event that is read, `session_start` included. Only the events of the
range are read, of the users that the template samples
(see `sample_blocks`, which is expanded after this).

| text in a template | stands for |
|---|---|
| `{is_playback:Source}` | condition of the events that belong to views |
| `{heartbeat_ms:Source}` | watched time of a heartbeat in milliseconds, of which nothing else is read |
| `{playback:Source}` | one row per such event: `view`, what identifies it, and the event's measures |
| `{views:Source}` | one row per view, with `value`, the dimension that the parameter `by` names |

All measures are whole numbers, so that sums do not depend on the order of the events. Does not depend
on values or on how SQL is run.
"""

import re

from octane_analytics.api.filters import PLACEHOLDER
from octane_analytics.clickhouse.rollup_expressions import (
    QUALITY_DIMENSIONS,
    READABLE_PROPERTIES,
)

PLAYBACK_EVENTS = (
    "video_request",
    "video_start",
    "video_heartbeat",
    "video_buffering",
    "video_quality_change",
    "video_error",
    "video_end",
)
SESSION_SECONDS = 86_400
"""Age up to which a session_start before the range gives its session's dimension."""

_NAMED = re.compile(r"\{(\w+):Source\}")
_TABLE = "{database:Identifier}.{table:Identifier}"
_FROM, _TO, _BY = "{from:DateTime('UTC')}", "{to:DateTime('UTC')}", "{by:String}"
_OF_APP = "({app_id:String} = '' OR app_id = {app_id:String})"
_IS_SAMPLED = "{users:Sample}"
_IS_PLAYBACK = f"event_name IN ({', '.join(map(repr, PLAYBACK_EVENTS))})"
_IN_RANGE = (
    f"timestamp >= {_FROM} AND timestamp < {_TO} AND {_OF_APP} {PLACEHOLDER} AND {_IS_SAMPLED}"
)

_IDS = ("view_id", "session_id", "content_id", "stream_id", "video_id")
_NUMBERS = (
    *("watch_time", "buffer_duration_ms", "startup_ms", "position", "duration", "bitrate_kbps"),
)
_TRUTHS = ("fatal", "completed")
_MEMBERS = [f"{name} String" for name in _IDS] + [
    f"{name} Dynamic" for name in (*_NUMBERS, *_TRUTHS)
]
_DIMENSIONS = (*QUALITY_DIMENSIONS, "player_version", "cdn")
"""Properties that are read with the rest as the dimension `by`; any other is parsed by itself."""
# Never the name that was given: as a member, `null` and others would not be read as a name.
_IS_DIMENSION = f"has({list(_DIMENSIONS)}, {_BY})"
_CONTENT = "coalesce(nullIf(ids.3, ''), nullIf(ids.4, ''), ids.5)"


def _parsed(type_: str) -> str:
    # Every function of JSON parses the document by itself, so one tuple has all that is read of it.
    return f"JSONExtract({READABLE_PROPERTIES}, {type_})"


_PARSED_IDS = _parsed(f"'Tuple({', '.join(_MEMBERS[: len(_IDS)])})'")
_PARSED = _parsed(f"'Tuple({', '.join(_MEMBERS)})'")
_PARSED_BY = _parsed(
    f"concat('Tuple({', '.join(_MEMBERS)}, ', if({_IS_DIMENSION}, {_BY}, 'device'), ' String)')"
)
_STREAM = (
    "reinterpretAsUInt128(sipHash128(app_id, view_id, "
    "if(view_id = '', session_id, ''), if(view_id = '', content, '')))"
)
"""Key of the events with this `view_id`, or without one of this session and content."""


def _number(name: str, parsed: str) -> str:
    """Return the number of that name; -1 for anything else, such as "1" in quotes."""
    value = f"tupleElement({parsed}, '{name}')"
    whole = f"toFloat64(ifNull(dynamicElement({value}, 'Int64'), -1))"
    return f"ifNull(dynamicElement({value}, 'Float64'), {whole})"


def _whole(
    name: str, scale: int, low: str, high: int, otherwise: int, parsed: str = "parsed"
) -> str:
    """Return the number as an integer of `1 / scale`, `otherwise` if out of bounds."""
    number = _number(name, parsed)
    is_counted = f"{number} {low} AND {number} <= {high}"
    return f"if({is_counted}, toInt64(round({number} * {scale})), {otherwise})"


def _measure(event_name: str, name: str, scale: int, high: int) -> str:
    """Return the number of these events as an integer of `1 / scale`; 0 for others."""
    return f"if(event_name = '{event_name}', toUInt64({_whole(name, scale, '> 0', high, 0)}), 0)"


def _is_true(event_name: str, name: str) -> str:
    value = f"dynamicElement(tupleElement(parsed, '{name}'), 'Bool')"
    return f"event_name = '{event_name}' AND ifNull({value}, false)"


# Without a condition of the event, under which ClickHouse would parse in a slower way.
_HEARTBEAT_MS = _whole("watch_time", 1000, "> 0", 86_400, 0, _parsed("'Tuple(watch_time Dynamic)'"))


def _events(parsed: str, dimension: str) -> str:
    """Return the SELECT of the playback events, of which that dimension is read beside the rest."""
    return f"""
    SELECT
        timestamp, app_id, user_id, event_name, {READABLE_PROPERTIES} AS readable,
        {parsed} AS parsed,
        tupleElement(parsed, 'view_id') AS view_id,
        tupleElement(parsed, 'session_id') AS session_id,
        coalesce(nullIf(parsed.3, ''), nullIf(parsed.4, ''), parsed.5) AS content,
        {_STREAM} AS stream,
        event_name = 'video_request' AS is_request,
        toInt64(toUnixTimestamp(timestamp)) - is_request AS counted_to,
        {_measure("video_heartbeat", "watch_time", 1000, 86_400)} AS watch_ms,
        {_measure("video_buffering", "buffer_duration_ms", 1, 86_400_000)} AS stall_ms,
        {_measure("video_start", "startup_ms", 1, 86_400_000)} AS startup_ms,
        {_is_true("video_error", "fatal")} AS is_fatal,
        {_is_true("video_end", "completed")} AS is_completed,
        {_whole("position", 1000, ">= 0", 31_536_000, -1)} AS position_ms,
        {_whole("duration", 1000, "> 0", 31_536_000, 0)} AS duration_ms,
        {_whole("bitrate_kbps", 1, "> 0", 10_000_000, 0)} AS bitrate_kbps
        {dimension}
    FROM {_TABLE}
    WHERE {_IN_RANGE} AND {_IS_PLAYBACK}
    """  # noqa: S608  # constants of this module, and parameters that ClickHouse binds


_STARTS = f"""
SELECT
    stream, started_at, count() OVER (PARTITION BY stream ORDER BY started_at ASC) AS number
FROM
(
    SELECT
        app_id, {_PARSED_IDS} AS ids, ids.1 AS view_id, ids.2 AS session_id, {_CONTENT} AS content,
        {_STREAM} AS stream, toInt64(toUnixTimestamp(timestamp)) AS started_at
    FROM {_TABLE}
    WHERE {_IN_RANGE} AND event_name = 'video_start' AND view_id = ''
)
"""  # noqa: S608  # constants of this module, and parameters that ClickHouse binds


def _playback(parsed: str, dimension: str = "") -> str:
    """Return the subquery of the playback events, with the key of each one's view."""
    kept = ", dimension" if dimension else ""
    # Of 128 bits, so that no two streams of a ledger are within their numbers of views.
    return f"""
    (
        SELECT
            stream + if(view_id = '', toUInt64(starts.number) + is_request, 0) AS view,
            timestamp, app_id, user_id, event_name, readable, session_id, content, watch_ms,
            stall_ms, startup_ms, is_fatal, is_completed, position_ms, duration_ms, bitrate_kbps
            {kept}
        FROM ({_events(parsed, dimension)}) AS events
        ASOF LEFT JOIN ({_STARTS}) AS starts
            ON events.stream = starts.stream AND events.counted_to >= starts.started_at
    )
    """  # noqa: S608  # constants of this module, and parameters that ClickHouse binds


_DIMENSION = f""",
    multiIf(
        {_BY} = 'app_id', app_id,
        {_BY} = 'content', content,
        {_IS_DIMENSION}, parsed.{len(_MEMBERS) + 1},
        JSONExtractString({READABLE_PROPERTIES}, {_BY})
    ) AS dimension
"""

_SESSIONS = f"""
SELECT app_id, session_id, min((timestamp, value)).2 AS session_value
FROM
(
    SELECT
        timestamp, app_id, {READABLE_PROPERTIES} AS readable,
        JSONExtractString(readable, 'session_id') AS session_id,
        JSONExtractString(readable, {_BY}) AS value
    FROM {_TABLE}
    WHERE event_name = 'session_start'
        AND timestamp >= toDateTime(
            greatest(toInt64(toUnixTimestamp({_FROM})) - {SESSION_SECONDS}, 0), 'UTC')
        AND timestamp < {_TO} AND {_OF_APP} {PLACEHOLDER} AND {_IS_SAMPLED}
        AND {_BY} NOT IN ('app_id', 'content')
)
WHERE session_id != '' AND value != ''
GROUP BY app_id, session_id
"""  # noqa: S608  # constants of this module, and parameters that ClickHouse binds


def _earliest(text: str) -> str:
    """Return the text of the earliest event that has one, the least of equally early ones."""
    # In the order of these bytes; a minimum of tuples takes five times as long.
    dated = f"concat(reinterpretAsFixedString(byteSwap(toUInt32(timestamp))), {text})"
    return f"substring(minIf({dated}, {text} != ''), 5)"


# Events' columns begin with e_: ClickHouse would prefer an alias of the same name to the column.
_VIEWS = f"""
(
    SELECT *, if(own_value != '', own_value, session_value) AS value
    FROM
    (
        SELECT
            view,
            any(e_app) AS app_id,
            min(e_user) AS user_id,
            {_earliest("e_session")} AS session_id,
            {_earliest("e_content")} AS content,
            {_earliest("dimension")} AS own_value,
            min(timestamp) AS first_at,
            countIf(event_name = 'video_request') > 0 AS is_requested,
            countIf(event_name IN ('video_start', 'video_heartbeat')) > 0 AS is_played,
            countIf(is_fatal) > 0 AS is_failed,
            countIf(e_completed) > 0 AS is_completed,
            sum(e_watch_ms) AS watch_ms,
            countIf(event_name = 'video_buffering') AS stalls,
            sum(e_stall_ms) AS stall_ms,
            minIf(e_startup_ms, e_startup_ms > 0) AS startup_ms,
            countIf(event_name = 'video_quality_change') AS switches,
            sumIf(e_watch_ms * bitrate_kbps, bitrate_kbps > 0) AS kilobits,
            sumIf(e_watch_ms, bitrate_kbps > 0) AS rated_ms,
            max(position_ms) AS furthest_ms,
            max(e_duration_ms) AS duration_ms
        FROM
        (
            SELECT
                view, timestamp, event_name, is_fatal, position_ms, bitrate_kbps, dimension,
                app_id AS e_app, user_id AS e_user, session_id AS e_session, content AS e_content,
                is_completed AS e_completed, watch_ms AS e_watch_ms, stall_ms AS e_stall_ms,
                startup_ms AS e_startup_ms, duration_ms AS e_duration_ms
            FROM {_playback(_PARSED_BY, _DIMENSION)}
        )
        GROUP BY view
    ) AS grouped
    LEFT JOIN ({_SESSIONS}) AS sessions USING (app_id, session_id)
)
"""  # noqa: S608  # constants of this module, and parameters that ClickHouse binds


def _one_line(sql: str) -> str:
    # So that errors of ClickHouse count the template's own lines. No literal holds a run of spaces.
    return " ".join(sql.split())


SOURCES = {
    "is_playback": _IS_PLAYBACK,
    "heartbeat_ms": _HEARTBEAT_MS,
    "playback": _one_line(_playback(_PARSED)),
    "views": _one_line(_VIEWS),
}


def expand(sql: str) -> str:
    """Return the SQL with sources expanded, on as many lines. Raises ValueError for an unknown one."""
    return _NAMED.sub(_source, sql)


def _source(match: re.Match[str]) -> str:
    if match[1] not in SOURCES:
        raise ValueError(f"{match[0]} is unknown; sources: {', '.join(SOURCES)}")
    return SOURCES[match[1]]
