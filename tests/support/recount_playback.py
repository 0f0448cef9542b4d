"""Reports about playback, sessions and the events seen, recomputed in plain Python."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from octane_analytics.events.event import Row
from tests.support.recount import Answer, RecountEvent, _time, rounded, select, watch_ms
from tests.support.recount_views import (
    PLAYBACK,
    content_of,
    duration_ms,
    keyed,
    number,
    position_ms,
    ratio,
    text,
    views,
)


def concurrent_viewers(
    rows: Sequence[Row], start: int, end: int, app: str | None, width: int
) -> list[Answer]:
    watching: dict[int, set[str]] = {
        bucket: set() for bucket in range(start // width, (end - 1) // width + 1)
    }
    watched = 0
    for event in select(rows, start, end + 300, app):
        seen = watch_ms(event)
        first = max(1000 * event.second - seen, 1000 * start)
        if not seen or first >= 1000 * end:
            continue
        watched += min(1000 * event.second, 1000 * end) - first
        # Closed at both ends, of which the last is within the range.
        for bucket in range(first // 1000 // width, min(event.second, end - 1) // width + 1):
            watching[bucket].add(event.user)
    return [
        {
            "bucket": _time(bucket * width),
            "viewers": len(users),
            "peak_viewers": max(map(len, watching.values())),
            "average_minute_audience": ratio(watched / 1000, end - start, 3),
            "sample": 1.0,
        }
        for bucket, users in watching.items()
    ]


def errors(rows: Sequence[Row], start: int, end: int, app: str | None = None) -> list[Answer]:
    groups = defaultdict(list)
    for key, event in keyed(select(rows, start, end, app)):
        if event.name == "video_error":
            groups[text(event, "code")].append((key, event))
    answers: list[Answer] = []
    for code, group in groups.items():
        events = [event for _, event in group]
        versions = {text(e, "player_version") or text(e, "client_version") for e in events} - {""}
        answers.append(
            {
                "code": code,
                "occurrences": len(group),
                "views": len({key for key, _ in group}),
                "users": len({event.user for event in events}),
                "fatal_share": ratio(
                    sum(event.properties.get("fatal") is True for event in events), len(group)
                ),
                "first_seen": _time(min(event.second for event in events)),
                "last_seen": _time(max(event.second for event in events)),
                "versions": sorted(versions)[:20],
                "sample": 1.0,
            }
        )
    answers.sort(key=lambda row: (-row["occurrences"], row["code"].encode()))
    return answers


def audience_retention(
    rows: Sequence[Row],
    start: int,
    end: int,
    app: str | None,
    content: str,
    similar_share: float = 0.2,
) -> list[Answer]:
    lengths: dict[str, int] = {}
    viewed = defaultdict(set)
    passes = defaultdict(list)
    for key, event in keyed(select(rows, start, end, app)):
        name = content_of(event)
        lengths[name] = max(lengths.get(name, 0), duration_ms(event))
        if position_ms(event) >= 0:
            viewed[name].add(key)
        passes[name].append((position_ms(event), watch_ms(event)))
    known = {name for name in lengths if name and lengths[name] and viewed[name]}
    if content not in known:
        return []
    asked = lengths[content]
    similar = {
        name for name in known - {content} if abs(lengths[name] - asked) <= similar_share * asked
    }

    def ratio_of(name: str, segment: int) -> float:
        length = lengths[name]
        covered = sum(
            max(
                min(max(at, 0), (segment + 1) * length / 100, length)
                - max(at - watched, segment * length / 100, 0),
                0,
            )
            for at, watched in passes[name]
        )
        return covered / (length / 100) / len(viewed[name])

    answers = []
    for segment in range(100):
        own = ratio_of(content, segment)
        others = [ratio_of(name, segment) for name in similar]
        mean = sum(others) / len(others) if others else None
        answers.append(
            {
                "segment": segment,
                "starts_at": rounded(asked * segment / 100_000, 3),
                "views": len(viewed[content]),
                "ratio": rounded(own, 6),
                "similar_contents": len(similar),
                "similar_ratio": None if mean is None else rounded(mean, 6),
                "relative": rounded(own / mean, 6) if mean and mean > 1e-12 else None,
                "sample": 1.0,
            }
        )
    return answers


def survival(
    rows: Sequence[Row],
    start: int,
    end: int,
    app: str | None = None,
    by: str = "app_id",
    *,
    content: str | None = None,
    step_seconds: int = 30,
    points: int = 60,
) -> list[Answer]:
    groups = defaultdict(list)
    for view in views(rows, start, end, app, by):
        if view.is_played and content in (None, view.content):
            groups[view.value].append(view.watched)
    return [
        {
            "value": value,
            "watched_seconds": point * step_seconds,
            "views": count,
            "share": ratio(count, len(watched)),
            "sample": 1.0,
        }
        for value, watched in sorted(groups.items(), key=lambda item: item[0].encode())
        for point in range(points)
        if (count := sum(each >= 1000 * point * step_seconds for each in watched))
    ]


_RANKS = (
    "session_start", "search", "search_click", "video_request", "video_start", "", "video_error",
    "video_end", "session_end",
)  # fmt: skip


def session_timeline(
    rows: Sequence[Row], start: int, end: int, app: str | None, id_: str
) -> list[Answer]:
    texts = [row.properties.decode() for row in rows if start <= row.timestamp < end]
    events = select(rows, start, end)
    found = [
        (event, properties)
        for event, properties in zip(events, texts, strict=True)
        if app in (None, event.app) and id_ in (text(event, "session_id"), text(event, "view_id"))
    ]
    first: dict[str, int] = {}
    for event, _ in found:
        first[event.app] = min(first.get(event.app, event.second), event.second)

    def order(item: tuple[RecountEvent, str]) -> tuple[Any, ...]:
        event, properties = item
        rank = _RANKS.index(event.name) if event.name in _RANKS else _RANKS.index("")
        return (event.second, event.app, rank, event.name, properties)

    return [
        {
            "timestamp": _time(event.second),
            "elapsed_seconds": event.second - first[event.app],
            "app_id": event.app,
            "user_id": event.user,
            "event_name": event.name,
            "session_id": text(event, "session_id"),
            "view_id": text(event, "view_id"),
            "content": content_of(event),
            "position": number(event, "position")
            if event.name in PLAYBACK | {"video_seek"}
            else None,
            "properties": properties,
        }
        for event, properties in sorted(found, key=order)
    ]


_TYPES = {str: "string", bool: "boolean", dict: "object", list: "array", type(None): "null"}


def catalog(
    rows: Sequence[Row], start: int, end: int, app: str | None = None, name: str | None = None
) -> list[Answer]:
    by_name = defaultdict(list)
    for event in select(rows, start, end, app):
        if name in (None, event.name):
            by_name[event.name].append(event)
    answers: list[Answer] = []
    for event_name, events in sorted(
        by_name.items(), key=lambda item: (-len(item[1]), item[0].encode())
    ):
        holders = {"": events} | {
            key: [event for event in events if key in event.properties]
            for key in sorted({key for event in events for key in event.properties})
        }
        for key, group in sorted(
            holders.items(), key=lambda item: (item[0] != "", -len(item[1]), item[0].encode())
        ):
            values = [event.properties[key] for event in group] if key else []
            raw = [json.dumps(value, separators=(",", ":")) for value in values]
            answers.append(
                {
                    "event_name": event_name,
                    "property": key,
                    "events": len(group),
                    "share": ratio(len(group), len(events)),
                    "types": sorted({_TYPES.get(type(value), "number") for value in values}),
                    "examples": list(
                        dict.fromkeys([min(raw)[:100], max(raw)[:100]]) if raw else []
                    ),
                    "first_seen": _time(min(event.second for event in group)),
                    "last_seen": _time(max(event.second for event in group)),
                    "sample": 1.0,
                }
            )
    return answers
