r"""SQL expressions over the events that rollups are made of, and that reports must repeat.

ClickHouse answers a query from a projection only if it repeats the projection's expressions. Each rollup
reads what it needs of `properties` as one tuple, since every function of JSON parses the document by
itself. Numbers are read as Dynamic, in which a number in quotes is a String (unless a profile of the
server sets input_format_json_try_infer_numbers_from_strings). Does not depend on a connection.
"""

import math
from collections.abc import Mapping

_BIG_NUMBER = (
    r"-?(?:[0-9]{100,}[-+.0-9eE]*"
    r"|(?:[1-9][0-9]*(?:\.[0-9]+)?|0\.0*[1-9][0-9]*)[eE]\+?0*[1-9][0-9]{2,})"
)
"""A number of at least 100 digits or three digits of exponent: every one beyond a double's range."""
_UP_TO_BIG_NUMBER = rf'((?:"(?:[^"\\]|\\.)*"|[^"])*?)(?:{_BIG_NUMBER})'


def literal(text: str) -> str:
    """Return the text as a literal of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# Events may hold numbers beyond the range of a double, which are valid JSON; simdjson rejects a whole
# document for one of them. In such a document big numbers become null; strings are left unchanged. The
# appended number lets the last match end after the last string, which could hold what looks like a
# number. A lambda (arrayMap) would be exact, but ClickHouse matches none to a projection.
_WITHOUT_BIG_NUMBERS = (
    "replaceRegexpOne(replaceRegexpAll("
    f"concat(properties, '1e999'), {literal(_UP_TO_BIG_NUMBER)}, '\\\\1null'), 'null\\\\z', '')"
)
READABLE_PROPERTIES = f"if(isValidJSON(properties), properties, {_WITHOUT_BIG_NUMBERS})"
"""`properties` as ClickHouse's JSON functions can parse it. One line, so that errors of ClickHouse
count the lines of the query that uses it."""

HOUR = "toStartOfHour(timestamp, 'UTC')"
"""Hours of UTC: without the zone they would be those of the server's time zone."""
WEEK = f"toMonday({HOUR}, 'UTC')"
"""Weeks of UTC, by the date of their Monday. As a function of the hour, which a rollup of hours has, so
that it answers where a table has none of weeks. ClickHouse uses the primary key for a function of two
arguments, and not for toStartOfWeek of three."""
SEARCH = ("search", "search_click")
PLAYBACK = ("video_heartbeat", "video_start", "video_buffering")
QUALITY = (*PLAYBACK, "video_error")
QUALITY_DIMENSIONS = ("network_type", "client_version", "device", "country")
"""Properties by which the quality rollup is grouped."""


def is_event(*event_names: str) -> str:
    """Return the condition of these events."""
    return " OR ".join(f"event_name = {literal(name)}" for name in event_names)


def _tuple_type(texts: tuple[str, ...], numbers: tuple[str, ...]) -> str:
    members = [f"{name} String" for name in texts] + [f"{name} Dynamic" for name in numbers]
    return f"Tuple({', '.join(members)})"


def _of_events(event_names: tuple[str, ...], type_: str) -> str:
    """Return the tuple of these events' properties, empty for the others, which are not parsed.

    The condition is within the argument: around the tuple ClickHouse would parse for each use of it.
    """
    return f"JSONExtract(if({is_event(*event_names)}, {READABLE_PROPERTIES}, ''), {type_})"


def _number(document: str, place: int) -> str:
    """Return the number at this place of the tuple; null for anything else, such as "1" in quotes."""
    value = f"tupleElement({document}, {place})"
    return (
        f"coalesce(dynamicElement({value}, 'Float64'), toFloat64(dynamicElement({value}, 'Int64')))"
    )


def _measured(event_name: str, number: str, scale: int, high: int) -> str:
    """Return the number as an integer of `1 / scale`, 0 unless above 0 and up to `high`.

    A sum of integers does not depend on their order. `number` occurs once, because a projection names
    its columns by their SQL.
    """
    above = repr(math.nextafter(float(high), math.inf))
    bounded = f"nullIf(least(greatest({number}, 0.), {above}), {above})"
    scaled = bounded if scale == 1 else f"{bounded} * {scale}"
    return f"if({is_event(event_name)}, toUInt64(round(ifNull({scaled}, 0))), 0)"


def _any_content(document: str) -> str:
    first, second, third = (f"tupleElement({document}, {place})" for place in (1, 2, 3))
    return f"coalesce(nullIf({first}, ''), nullIf({second}, ''), {third})"


_CONTENT_KEYS = ("content_id", "stream_id", "video_id")
ANY_CONTENT = _any_content(
    f"JSONExtract({READABLE_PROPERTIES}, {literal(_tuple_type(_CONTENT_KEYS, ()))})"
)
"""Identifier of the content of any event; empty if it has none."""

_VISIT_TYPE = literal(_tuple_type(("session_id",), ("watch_time",)))
_VISIT_FOUND = f"JSONExtract(properties, {_VISIT_TYPE})"
# Every event is parsed for its session: most need no check of the document's validity. ClickHouse would
# replace a comparison with '' in queries by notEmpty, and not in a projection.
_VISIT = (
    f"if(notEmpty(tupleElement({_VISIT_FOUND}, 1)), {_VISIT_FOUND}, "
    f"JSONExtract({READABLE_PROPERTIES}, {_VISIT_TYPE}))"
)

_PLAYED = _of_events(
    PLAYBACK, literal(_tuple_type(_CONTENT_KEYS, ("watch_time", "buffer_duration_ms")))
)

_MEASURES = ("watch_time", "buffer_duration_ms", "startup_ms", "fatal")
_QUALITY_TYPE = literal(_tuple_type(QUALITY_DIMENSIONS, _MEASURES))
_QUALITY = _of_events(QUALITY, _QUALITY_TYPE)
_BY = "{by:String}"
_IS_DIMENSION = f"has({list(QUALITY_DIMENSIONS)}, {_BY})"
# Constants once `by` is bound, so that it is the key of the dimension.
_QUALITY_BY = _of_events(
    QUALITY, f"if({_IS_DIMENSION}, {_QUALITY_TYPE}, concat('Tuple(', {_BY}, ' String)'))"
)
_PLACE = f"toUInt8(greatest(indexOf({list(QUALITY_DIMENSIONS)}, {_BY}), 1))"


def _quality_number(name: str) -> str:
    return _number(_QUALITY, len(QUALITY_DIMENSIONS) + 1 + _MEASURES.index(name))


EXPRESSIONS: Mapping[str, str] = {
    "session": f"nullIf(tupleElement({_VISIT}, 1), '')",
    "watch_ms": _measured("video_heartbeat", _number(_VISIT, 2), 1000, 86_400),
    "has_no_results": (
        f"{is_event('search')} "
        f"AND toFloat64OrNull(JSONExtractRaw({READABLE_PROPERTIES}, 'results_count')) = 0"
    ),
    "query": f"if({is_event(*SEARCH)}, JSONExtractString({READABLE_PROPERTIES}, 'query'), '')",
    # ClickHouse matches no multiIf to the key of a projection.
    "content": _any_content(_PLAYED),
    "content_watch_ms": _measured("video_heartbeat", _number(_PLAYED, 4), 1000, 86_400),
    "content_buffer_ms": _measured("video_buffering", _number(_PLAYED, 5), 1, 86_400_000),
    "quality_watch_ms": _measured("video_heartbeat", _quality_number("watch_time"), 1000, 86_400),
    "quality_buffer_ms": _measured(
        "video_buffering", _quality_number("buffer_duration_ms"), 1, 86_400_000
    ),
    "quality_startup_ms": _measured("video_start", _quality_number("startup_ms"), 1, 86_400_000),
    "quality_is_fatal": (
        f"{is_event('video_error')} AND ifNull(dynamicElement("
        f"tupleElement({_QUALITY}, {len(QUALITY_DIMENSIONS) + len(_MEASURES)}), 'Bool'), false)"
    ),
    "quality_value": f"tupleElement({_QUALITY_BY}, {_PLACE})",
    **{
        f"quality_{name}": f"tupleElement({_QUALITY}, {place})"
        for place, name in enumerate(QUALITY_DIMENSIONS, 1)
    },
}
"""SQL by name, for the templates of reports, which must repeat it to be answered from a rollup."""
