"""Reports recomputed in plain Python over the same rows."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from octane_analytics.events.event import Row

Answer = dict[str, Any]


class RecountEvent(NamedTuple):
    second: int
    app: str
    name: str
    user: str
    properties: dict[str, Any]


def rounded(value: float, digits: int) -> float:
    """Round as ClickHouse does: the product, half to even; round() goes by the exact value."""
    scale = 10.0**digits
    return round(value * scale) / scale


def select(rows: Iterable[Row], start: int, end: int, app: str | None = None) -> list[RecountEvent]:
    return [
        RecountEvent(
            row.timestamp, row.app_id, row.event_name, row.user_id, _object(row.properties)
        )
        for row in rows
        if start <= row.timestamp < end and app in (None, row.app_id)
    ]


def _object(text: bytes) -> dict[str, Any]:
    try:
        # As in ClickHouse's parser, a number beyond the range of a double invalidates the document.
        value = json.loads(text, parse_constant=_reject, parse_float=_finite)
    except ValueError:
        return {}
    assert isinstance(value, dict)
    return value


def _reject(text: str) -> None:
    raise ValueError(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def _ms(value: object, scale: int, high: float) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= high:
        return 0
    return round(float(value) * scale)


def watch_ms(event: RecountEvent) -> int:
    if event.name != "video_heartbeat":
        return 0
    return _ms(event.properties.get("watch_time"), 1000, 86_400)


def _measure(event: RecountEvent, name: str, key: str) -> int:
    return _ms(event.properties.get(key), 1, 86_400_000) if event.name == name else 0


def _users(events: Iterable[RecountEvent], *names: str) -> int:
    return len({event.user for event in events if not names or event.name in names})


def _count(events: Iterable[RecountEvent], name: str) -> int:
    return sum(event.name == name for event in events)


def _text(value: object) -> str:
    """Return what JSONExtractString does, whose text of a number or Boolean is its JSON."""
    if isinstance(value, int):
        return json.dumps(value)
    return value if isinstance(value, str) else ""


def _time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")


def overview_stats(events: Sequence[RecountEvent]) -> list[Answer]:
    watched = sum(map(watch_ms, events)) / 1000
    viewers = _users(events, "video_heartbeat")
    seconds = [event.second for event in events]
    return [
        {
            "total_events": len(events),
            "unique_users": _users(events),
            "sessions": len({_text(e.properties.get("session_id")) for e in events} - {""}),
            "video_heartbeats": _count(events, "video_heartbeat"),
            "total_watch_time": watched,
            "avg_watch_time_per_viewer": watched / viewers if viewers else 0,
            "searches": _count(events, "search"),
            "first_event": _time(min(seconds)) if seconds else None,
            "last_event": _time(max(seconds)) if seconds else None,
        }
    ]


def search_analytics(events: Sequence[RecountEvent], limit: int = 100) -> list[Answer]:
    groups = defaultdict(list)
    for event in events:
        query = _text(event.properties.get("query"))
        if event.name in ("search", "search_click") and query:
            groups[query].append(event)
    rows: list[Answer] = []
    for query, group in groups.items():
        searches, clicks = _count(group, "search"), _count(group, "search_click")
        rows.append(
            {
                "query": query,
                "searches": searches,
                "unique_users": _users(group, "search"),
                "zero_result_searches": sum(
                    event.name == "search"
                    and event.properties.get("results_count") == 0
                    and not isinstance(event.properties["results_count"], bool)
                    for event in group
                ),
                "clicks": clicks,
                "click_through_rate": rounded(clicks / searches, 4) if searches else None,
            }
        )
    rows.sort(key=lambda row: (-row["searches"], -row["clicks"], row["query"].encode()))
    return rows[:limit]


def top_content(events: Sequence[RecountEvent], limit: int = 20) -> list[Answer]:
    groups = defaultdict(list)
    for event in events:
        ids = (_text(event.properties.get(key)) for key in ("content_id", "stream_id", "video_id"))
        content = next(filter(None, ids), "")
        if event.name in ("video_heartbeat", "video_start", "video_buffering") and content:
            groups[content].append(event)
    rows: list[Answer] = []
    for content, group in groups.items():
        watched = sum(map(watch_ms, group)) / 1000
        buffered = sum(_measure(e, "video_buffering", "buffer_duration_ms") for e in group)
        rows.append(
            {
                "content_id": content,
                "watch_time": watched,
                "unique_viewers": _users(group, "video_heartbeat"),
                "heartbeats": _count(group, "video_heartbeat"),
                "starts": _count(group, "video_start"),
                "buffering_events": _count(group, "video_buffering"),
                "buffer_ms_per_watch_minute": rounded(buffered / (watched / 60), 3)
                if watched
                else None,
            }
        )
    rows.sort(key=lambda row: (-row["watch_time"], -row["heartbeats"], row["content_id"].encode()))
    return rows[:limit]


def events_over_time(
    events: Sequence[RecountEvent], start: int, end: int, width: int, name: str | None = None
) -> list[Answer]:
    groups: dict[int, list[RecountEvent]] = {
        bucket: [] for bucket in range(start // width * width, end, width)
    }
    for event in events:
        if name in (None, event.name):
            groups[event.second // width * width].append(event)
    return [
        {"bucket": _time(bucket), "events": len(group), "unique_users": _users(group)}
        for bucket, group in groups.items()
    ]


def _buckets(
    events: Sequence[RecountEvent], start: int, end: int, width: int
) -> dict[int, list[RecountEvent]]:
    """Return the events by the start of their bucket; a width of 0 is one bucket."""
    if not width:
        return {start: list(events)}
    groups: dict[int, list[RecountEvent]] = {
        bucket: [] for bucket in range(start // width * width, end, width)
    }
    for event in events:
        groups[event.second // width * width].append(event)
    return groups


def playback_over_time(
    events: Sequence[RecountEvent], start: int, end: int, width: int
) -> list[Answer]:
    rows: list[Answer] = []
    for bucket, group in _buckets(events, start, end, width).items():
        watched = sum(map(watch_ms, group))
        stalled = sum(_measure(e, "video_buffering", "buffer_duration_ms") for e in group)
        views = _count(group, "video_start")
        startups = [_measure(e, "video_start", "startup_ms") for e in group]
        fatal = sum(e.name == "video_error" and e.properties.get("fatal") is True for e in group)
        rows.append(
            {
                "bucket": _time(bucket),
                "viewers": _users(group, "video_heartbeat"),
                "views": views,
                "watch_time": watched / 1000,
                "watch_time_per_view": rounded(watched / 1000 / views, 3) if views else None,
                "stalled_share": (
                    rounded(stalled / (stalled + watched), 6) if stalled + watched else None
                ),
                "errors": _count(group, "video_error"),
                "fatal_errors": fatal,
                "failure_share": rounded(fatal / views, 6) if views else None,
                "startup_ms_median": _quantile(startups, 0.5),
                "startup_ms_p95": _quantile(startups, 0.95),
            }
        )
    return rows


def quality_breakdown(
    events: Sequence[RecountEvent], start: int, end: int, values: int = 10
) -> list[Answer]:
    rows: list[Answer] = []
    for name in ("client_version", "device", "network_type"):
        found = quality_over_time(events, start, end, 0, name)[:values]
        rows += [
            {"property": name} | {k: v for k, v in row.items() if k != "bucket"} for row in found
        ]
    return rows


def quality_over_time(
    events: Sequence[RecountEvent], start: int, end: int, width: int, by: str
) -> list[Answer]:
    rows: list[Answer] = []
    for bucket, group in _buckets(events, start, end, width).items():
        for row in quality_of_experience(group, by):
            mine = [
                e
                for e in group
                if (e.app if by == "app_id" else _text(e.properties.get(by))) == row["value"]
            ]
            [played] = playback_over_time(mine, start, end, 0)
            has_any = played["viewers"] or played["views"] or played["fatal_errors"]
            if has_any or row["buffer_ratio"]:
                rows.append({"value": row["value"]} | played | {"bucket": _time(bucket)})
    rows.sort(
        key=lambda row: (row["bucket"], -row["watch_time"], -row["views"], row["value"].encode())
    )
    left_out = ("watch_time_per_view", "errors", "startup_ms_median")
    return [{name: row[name] for name in row if name not in left_out} for row in rows]


def searches_over_time(
    events: Sequence[RecountEvent], start: int, end: int, width: int
) -> list[Answer]:
    rows: list[Answer] = []
    for bucket, group in _buckets(events, start, end, width).items():
        queries = search_analytics(group, limit=len(group))
        searches = sum(row["searches"] for row in queries)
        clicks = sum(row["clicks"] for row in queries)
        fruitless = sum(row["zero_result_searches"] for row in queries)
        asking = [each for each in group if _text(each.properties.get("query"))]
        rows.append(
            {
                "bucket": _time(bucket),
                "searches": searches,
                "unique_users": _users(asking, "search"),
                "zero_result_searches": fruitless,
                "zero_result_share": rounded(fruitless / searches, 6) if searches else None,
                "clicks": clicks,
                "click_through_rate": rounded(clicks / searches, 4) if searches else None,
            }
        )
    return rows


def active_users(rows: Iterable[Row], start: int, end: int) -> list[Answer]:
    by_day = defaultdict(set)
    for row in rows:
        if row.timestamp < end:
            by_day[datetime.fromtimestamp(row.timestamp, UTC).date()].add(row.user_id)
    answers = []
    day, last = (datetime.fromtimestamp(second, UTC).date() for second in (start, end - 1))
    while day <= last:
        daily, weekly, monthly = (
            len(set().union(*(by_day[day - timedelta(days=ago)] for ago in range(days))))
            for days in (1, 7, 30)
        )
        answers.append(
            {
                "day": day.isoformat(),
                "daily_users": daily,
                "weekly_users": weekly,
                "monthly_users": monthly,
                "stickiness": rounded(daily / monthly, 4) if monthly else None,
            }
        )
        day += timedelta(days=1)
    return answers


def _quantile(values: Iterable[int], level: float) -> int | None:
    known = sorted(value for value in values if value)
    return known[_rank(len(known), level)] if known else None


def _rank(count: int, level: float) -> int:
    # As quantileExactLow: the lower median, otherwise the value at index level * count.
    if level == 0.5:
        return (count - 1) // 2
    return min(int(level * count), count - 1)


def quality_of_experience(events: Sequence[RecountEvent], by: str) -> list[Answer]:
    groups = defaultdict(list)
    for event in events:
        if event.name in ("video_heartbeat", "video_start", "video_buffering", "video_error"):
            value = event.app if by == "app_id" else _text(event.properties.get(by))
            groups[value].append(event)
    rows: list[Answer] = []
    for value, group in groups.items():
        watched = sum(map(watch_ms, group))
        stalls = [_measure(e, "video_buffering", "buffer_duration_ms") for e in group]
        starts = [_measure(e, "video_start", "startup_ms") for e in group]
        buffered = sum(stalls)
        count = _count(group, "video_buffering")
        rows.append(
            {
                "value": value,
                "viewers": _users(group, "video_heartbeat"),
                "watch_time": watched / 1000,
                "starts": _count(group, "video_start"),
                "buffering_events": count,
                "buffering_users": _users(group, "video_buffering"),
                "buffering_per_watch_hour": (
                    rounded(count / (watched / 1000 / 3600), 3) if watched else None
                ),
                "buffer_ratio": (
                    rounded(buffered / (buffered + watched), 6) if buffered + watched else None
                ),
                "errors": _count(group, "video_error"),
                "fatal_errors": sum(
                    e.name == "video_error" and e.properties.get("fatal") is True for e in group
                ),
                "startup_ms_median": _quantile(starts, 0.5),
                "startup_ms_p95": _quantile(starts, 0.95),
                "buffer_ms_median": _quantile(stalls, 0.5),
                "buffer_ms_p95": _quantile(stalls, 0.95),
            }
        )
    rows.sort(key=lambda row: (-row["watch_time"], -row["buffering_events"], row["value"].encode()))
    return rows
