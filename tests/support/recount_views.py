"""Reports about views recomputed in plain Python over the same rows."""

import bisect
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from octane_analytics.events.event import Row
from tests.support.recount import Answer, RecountEvent, _text, rounded, select, watch_ms

PLAYBACK = {
    "video_request", "video_start", "video_heartbeat", "video_buffering", "video_quality_change",
    "video_error", "video_end",
}  # fmt: skip


def number(event: RecountEvent, key: str) -> float | None:
    value = event.properties.get(key)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def measure(event: RecountEvent, name: str, key: str) -> int:
    value = number(event, key)
    if event.name != name or value is None or not 0 < value <= 86_400_000:
        return 0
    return round(value)


def position_ms(event: RecountEvent) -> int:
    value = number(event, "position")
    return round(value * 1000) if value is not None and 0 <= value <= 31_536_000 else -1


def duration_ms(event: RecountEvent) -> int:
    value = number(event, "duration")
    return round(value * 1000) if value is not None and 0 < value <= 31_536_000 else 0


def bitrate_kbps(event: RecountEvent) -> int:
    value = number(event, "bitrate_kbps")
    return round(value) if value is not None and 0 < value <= 10_000_000 else 0


def text(event: RecountEvent, key: str) -> str:
    return _text(event.properties.get(key))


def content_of(event: RecountEvent) -> str:
    ids = (text(event, key) for key in ("content_id", "stream_id", "video_id"))
    return next(filter(None, ids), "")


class ViewKey(NamedTuple):
    app: str
    view_id: str
    session: str = ""
    content: str = ""
    number: int = 0


@dataclass
class View:
    app: str
    events: list[RecountEvent] = field(default_factory=list)
    value: str = ""

    def named(self, *names: str) -> list[RecountEvent]:
        return [event for event in self.events if event.name in names]

    def earliest(self, values: Iterable[tuple[int, str]]) -> str:
        return min((each for each in values if each[1]), default=(0, ""))[1]

    @property
    def user(self) -> str:
        return min((event.user for event in self.events), key=str.encode)

    @property
    def session(self) -> str:
        return self.earliest((event.second, text(event, "session_id")) for event in self.events)

    @property
    def content(self) -> str:
        return self.earliest((event.second, content_of(event)) for event in self.events)

    @property
    def is_played(self) -> bool:
        return bool(self.named("video_start", "video_heartbeat"))

    @property
    def is_failed(self) -> bool:
        return any(event.properties.get("fatal") is True for event in self.named("video_error"))

    @property
    def watched(self) -> int:
        return sum(map(watch_ms, self.events))

    @property
    def stalled(self) -> int:
        return sum(measure(e, "video_buffering", "buffer_duration_ms") for e in self.events)

    @property
    def stalled_share(self) -> float:
        return self.stalled / (self.watched + self.stalled) if self.stalled else 0

    @property
    def startup(self) -> int:
        times = (measure(event, "video_start", "startup_ms") for event in self.events)
        return min(filter(None, times), default=0)

    @property
    def duration(self) -> int:
        return max(map(duration_ms, self.events))

    def is_completed(self, share: float) -> bool:
        return any(e.properties.get("completed") is True for e in self.named("video_end")) or (
            self.duration > 0 and max(map(position_ms, self.events)) >= share * self.duration
        )


def keyed(events: Sequence[RecountEvent]) -> Iterator[tuple[ViewKey, RecountEvent]]:
    """Yield the playback events with the keys of their views."""
    starts = defaultdict(list)
    for event in events:
        if event.name == "video_start" and not text(event, "view_id"):
            starts[event.app, text(event, "session_id"), content_of(event)].append(event.second)
    for seconds in starts.values():
        seconds.sort()
    for event in events:
        if event.name not in PLAYBACK:
            continue
        if view_id := text(event, "view_id"):
            yield ViewKey(event.app, view_id), event
            continue
        key = (event.app, text(event, "session_id"), content_of(event))
        if event.name == "video_request":
            count = bisect.bisect_left(starts[key], event.second) + 1
        else:
            count = bisect.bisect_right(starts[key], event.second)
        yield ViewKey(event.app, "", key[1], key[2], count), event


def views(
    rows: Sequence[Row], start: int, end: int, app: str | None = None, by: str = "content"
) -> list[View]:
    found: dict[ViewKey, View] = {}
    for key, event in keyed(select(rows, start, end, app)):
        found.setdefault(key, View(event.app)).events.append(event)
    sessions = defaultdict(list)
    for event in select(rows, start - 86_400, end, app):
        if event.name == "session_start":
            sessions[event.app, text(event, "session_id")].append((event.second, text(event, by)))
    for view in found.values():
        if by == "app_id":
            view.value = view.app
        elif by == "content":
            view.value = view.content
        else:
            view.value = view.earliest((e.second, text(e, by)) for e in view.events)
            if not view.value and view.session:
                view.value = view.earliest(sessions[view.app, view.session])
    return list(found.values())


def _grouped(found: Iterable[View]) -> list[tuple[str, list[View]]]:
    groups = defaultdict(list)
    for view in found:
        groups[view.value].append(view)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0].encode()))


def ratio(part: float, whole: float, digits: int = 6) -> float | None:
    return rounded(part / whole, digits) if whole else None


def _mean(values: Sequence[float], digits: int) -> float | None:
    return ratio(math.fsum(values), len(values), digits)


def views_report(
    rows: Sequence[Row],
    start: int,
    end: int,
    app: str | None = None,
    by: str = "content",
    completion_share: float = 0.95,
) -> list[Answer]:
    clicks: dict[tuple[str, str, str], int] = {}
    for event in select(rows, start, end, app):
        session, content = text(event, "session_id"), content_of(event)
        if event.name == "search_click" and session and content:
            key = (event.app, session, content)
            clicks[key] = min(clicks.get(key, event.second), event.second)
    answers: list[Answer] = []
    for value, group in _grouped(views(rows, start, end, app, by)):
        plays = [view for view in group if view.is_played]
        timed = [view for view in plays if view.duration]
        watched = sum(view.watched for view in group)
        answers.append(
            {
                "value": value,
                "views": len(group),
                "plays": len(plays),
                "viewers": len({view.user for view in plays}),
                "watch_time": watched / 1000,
                "average_view_duration": ratio(watched / 1000, len(plays), 3),
                "average_watched_share": _mean(
                    [min(view.watched / view.duration, 1) for view in timed], 6
                ),
                "completion_rate": ratio(
                    sum(view.is_completed(completion_share) for view in plays), len(plays)
                ),
                "exits_before_start_rate": ratio(
                    sum(
                        bool(view.named("video_request"))
                        and not view.is_played
                        and not view.is_failed
                        for view in group
                    ),
                    len(group),
                ),
                "search_plays": sum(
                    clicks.get((view.app, view.session, view.content), end)
                    <= min(event.second for event in view.events)
                    for view in plays
                ),
                "sample": 1.0,
            }
        )
    return answers


def _quantile(values: Sequence[int], level: float) -> int | None:
    # As quantileExactLow: the lower median, otherwise the value at index level * count.
    if not values:
        return None
    index = (len(values) - 1) // 2 if level == 0.5 else int(level * len(values))
    return sorted(values)[min(index, len(values) - 1)]


_EDGES = (1, 500, 1000, 2000, 4000, 8000, 2**32)


def qoe_scorecard(
    rows: Sequence[Row],
    start: int,
    end: int,
    app: str | None = None,
    by: str = "device",
    *,
    good_startup_ms: int = 2000,
    good_stalled_share: float = 0.01,
    good_bitrate_kbps: int = 0,
) -> list[Answer]:
    answers: list[Answer] = []
    for value, group in _grouped(views(rows, start, end, app, by)):
        plays = [view for view in group if view.is_played]
        startups = [view.startup for view in group if view.startup]
        watched, stalled = sum(v.watched for v in group), sum(v.stalled for v in group)
        stalls = sum(len(view.named("video_buffering")) for view in group)
        kilobits = [
            [(watch_ms(e), bitrate_kbps(e)) for e in view.events if bitrate_kbps(e)]
            for view in group
        ]
        rates = [
            ratio(sum(t * b for t, b in each), sum(t for t, _ in each), 12) for each in kilobits
        ]
        good = sum(
            view.is_played
            and not view.is_failed
            and view.startup <= good_startup_ms
            and view.stalled_share <= good_stalled_share
            and (rate is None or rate >= good_bitrate_kbps)
            for view, rate in zip(group, rates, strict=True)
        )
        every = [pair for each in kilobits for pair in each]
        answers.append(
            {
                "value": value,
                "views": len(group),
                "plays": len(plays),
                "playback_failure_rate": ratio(sum(v.is_failed for v in group), len(group)),
                "startup_failure_rate": ratio(
                    sum(v.is_failed and not v.is_played for v in group), len(group)
                ),
                "startup_ms_mean": _mean(startups, 3),
                "startup_ms_p50": _quantile(startups, 0.5),
                "startup_ms_p95": _quantile(startups, 0.95),
                "startup_histogram": [
                    sum(low <= each < high for each in startups)
                    for low, high in itertools.pairwise(_EDGES)
                ],
                "stalls_per_view": ratio(stalls, len(plays)),
                "stalled_share": ratio(stalled, watched + stalled + sum(startups)),
                "rebuffers_per_minute": ratio(stalls, watched / 60_000),
                "average_bitrate_kbps": ratio(
                    sum(t * b for t, b in every), sum(t for t, _ in every), 3
                ),
                "switches_per_view": ratio(
                    sum(len(v.named("video_quality_change")) for v in group), len(plays)
                ),
                "startup_score": _mean([100 * 8 / (8 + each / 1000) for each in startups], 3),
                "smoothness_score": _mean(
                    [
                        50 / math.sqrt(1 + (len(v.named("video_buffering")) / 2) ** 2)
                        + 50 * math.exp(-10 * v.stalled_share)
                        for v in plays
                    ],
                    3,
                ),
                "good_views_rate": ratio(good, len(group)),
                "sample": 1.0,
            }
        )
    return answers
