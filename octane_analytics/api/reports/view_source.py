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
| `{playback:Source}` | one row per such event: `view`, what identifies it, and the event's measures |
| `{views:Source}` | one row per view, with `value`, the dimension that the parameter `by` names |

All measures are whole numbers, so that sums do not depend on the order of the events. Does not depend
on values or on how SQL is run.
"""

import re

from octane_analytics.api.filters import PLACEHOLDER
from octane_analytics.clickhouse.rollup_expressions import EXPRESSIONS, READABLE_PROPERTIES

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

# One tuple parses the document once for all of them.
_IDS = (
    f"JSONExtract({READABLE_PROPERTIES}, 'Tuple(view_id String, session_id String, "
    "content_id String, stream_id String, video_id String)')"
)
_CONTENT = "coalesce(nullIf(ids.3, ''), nullIf(ids.4, ''), ids.5)"


def _number(key: str) -> str:
    return f"toFloat64OrNull(JSONExtractRaw(readable, '{key}'))"


def _whole(key: str, scale: int, low: str, high: int, otherwise: int) -> str:
    """Return the number of the key as an integer of `1 / scale`, `otherwise` if out of bounds."""
    number = f"assumeNotNull({_number(key)})"
    counted = f"isNotNull({_number(key)}) AND {number} {low} AND {number} <= {high}"
    return f"if({counted}, toInt64(round({number} * {scale})), {otherwise})"


_EVENTS = f"""
SELECT
    timestamp, app_id, user_id, event_name, {READABLE_PROPERTIES} AS readable, {_IDS} AS ids,
    ids.1 AS view_id, ids.2 AS session_id, {_CONTENT} AS content,
    event_name = 'video_request' AS is_request,
    toInt64(toUnixTimestamp(timestamp)) - is_request AS counted_to,
    {EXPRESSIONS["quality_watch_ms"]} AS watch_ms,
    {EXPRESSIONS["quality_buffer_ms"]} AS stall_ms,
    {EXPRESSIONS["quality_startup_ms"]} AS startup_ms,
    {EXPRESSIONS["quality_is_fatal"]} AS is_fatal,
    event_name = 'video_end' AND JSONExtractRaw(readable, 'completed') = 'true' AS is_completed,
    {_whole("position", 1000, ">= 0", 31_536_000, -1)} AS position_ms,
    {_whole("duration", 1000, "> 0", 31_536_000, 0)} AS duration_ms,
    {_whole("bitrate_kbps", 1, "> 0", 10_000_000, 0)} AS bitrate_kbps
FROM {_TABLE}
WHERE {_IN_RANGE} AND {_IS_PLAYBACK}
"""  # noqa: S608  # constants of this module, and parameters that ClickHouse binds

_STARTS = f"""
SELECT
    app_id, session_id, content, toInt64(toUnixTimestamp(timestamp)) AS started_at,
    count() OVER (PARTITION BY app_id, session_id, content ORDER BY started_at ASC) AS number
FROM
(
    SELECT timestamp, app_id, {_IDS} AS ids, ids.2 AS session_id, {_CONTENT} AS content
    FROM {_TABLE}
    WHERE {_IN_RANGE} AND event_name = 'video_start' AND ids.1 = ''
)
"""  # noqa: S608  # constants of this module, and parameters that ClickHouse binds

_PLAYBACK = f"""
(
    SELECT
        sipHash128(
            app_id, view_id,
            if(view_id = '', session_id, ''), if(view_id = '', content, ''),
            if(view_id = '', toUInt64(starts.number) + is_request, 0)
        ) AS view,
        timestamp, app_id, user_id, event_name, readable, session_id, content,
        watch_ms, stall_ms, startup_ms, is_fatal, is_completed, position_ms, duration_ms, bitrate_kbps
    FROM ({_EVENTS}) AS events
    ASOF LEFT JOIN ({_STARTS}) AS starts
        ON events.app_id = starts.app_id AND events.session_id = starts.session_id
            AND events.content = starts.content AND events.counted_to >= starts.started_at
)
"""  # noqa: S608  # constants of this module, and parameters that ClickHouse binds

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
            minIf((timestamp, e_session), e_session != '').2 AS session_id,
            minIf((timestamp, e_content), e_content != '').2 AS content,
            minIf((timestamp, dimension), dimension != '').2 AS own_value,
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
                view, timestamp, event_name, is_fatal, position_ms, bitrate_kbps,
                app_id AS e_app, user_id AS e_user, session_id AS e_session, content AS e_content,
                is_completed AS e_completed, toUInt64(watch_ms) AS e_watch_ms,
                stall_ms AS e_stall_ms, startup_ms AS e_startup_ms, duration_ms AS e_duration_ms,
                multiIf(
                    {_BY} = 'app_id', app_id,
                    {_BY} = 'content', content,
                    JSONExtractString(readable, {_BY})
                ) AS dimension
            FROM {_PLAYBACK}
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
    "playback": _one_line(_PLAYBACK),
    "views": _one_line(_VIEWS),
}


def expand(sql: str) -> str:
    """Return the SQL with sources expanded, on as many lines. Raises ValueError for an unknown one."""
    return _NAMED.sub(_source, sql)


def _source(match: re.Match[str]) -> str:
    if match[1] not in SOURCES:
        raise ValueError(f"{match[0]} is unknown; sources: {', '.join(SOURCES)}")
    return SOURCES[match[1]]
