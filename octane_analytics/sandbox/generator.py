"""Seeded generator of telemetry events of a video platform.

Owns the content of the events, not their transport. They follow (or, deliberately invalid, violate)
the input contract of the service: `app_id`, `event_name`, `user_id`, `timestamp` and free-form
`properties`, with the names of the event catalogue in the manual.

Shapes of real audiences: contents are watched by Zipf's law, the evening (19:00 UTC) has three and a
half times the sessions of the morning, and in one hour of four half of the new sessions watch one live
stream.

Only `random()` and `getrandbits()` of the seeded generator are used: Python guarantees the same
numbers across versions for these, but not for `choice` or `randrange`.
"""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any, TypeVar

# Period of a player's heartbeat events; also the time between two events of one session if there are
# enough events.
HEARTBEAT_SECONDS = 15
_MIN_SESSIONS = 4
_MAX_SESSIONS = 20_000
_USERS = 50_000
_CONTENTS = 5_000
_STREAMS = 300
_MAX_VIDEOS = 6

# Values are repeated by weight; openstream is the largest. Viewers of the live app watch streams.
_APPS = ("openstream",) * 6 + ("octane-live",) * 2 + ("kidsplay", "fitstream")
_LIVE_APPS = frozenset({"octane-live"})
_VERSIONS = ("1.2.0",) * 5 + ("1.1.4", "1.1.4", "1.3.0-beta", "0.9.8")
_NETWORKS = ("wifi",) * 5 + ("5g", "5g", "4g", "4g", "ethernet")
_DEVICES = ("tv", "tv", "phone", "phone", "phone", "web", "tablet")
_QUERIES = (
    "cooking", "cooking", "cats", "cats", "live news", "football", "football", "guitar lesson",
    "yoga", "rust tutorial", "space", "documentary", "trailer", "chess", "train ride", "pottery",
)  # fmt: skip
_FRUITLESS_QUERIES = ("asdfgh", "moive", "season 9 leak", "\\u732b\\u306e\\u52d5\\u753b")
_ERRORS = ("MEDIA_DECODE", "DRM_LICENSE", "NETWORK_TIMEOUT", "MANIFEST_404")
_BITRATES_KBPS = (800, 1600, 3200, 3200, 6000, 12000)
_CDNS = ("octane-edge",) * 6 + ("fastpath",) * 3 + ("farcache",)
_PLAYER_VERSIONS = ("5.4.1",) * 6 + ("5.4.0",) * 3 + ("5.5.0-rc1",)

_DAY_MS = 86_400_000
_QUIETEST_MS = 7 * 3_600_000
_SWING = 0.9
"""Events are 1 / (1 - swing / 2) times the mean in the busiest hour, 1 / (1 + swing) in the quietest."""
_LIVE_PERIOD_SECONDS = 4 * 3600
_LIVE_SECONDS = 3600

_T = TypeVar("_T")
_Random = Callable[[], float]
# Next event of a session: its name, and its specific properties as JSON members with a comma.
_Step = tuple[str, str]


def generate(
    count: int, *, seed: int, until: datetime, span: timedelta = timedelta(hours=6)
) -> Iterator[bytes]:
    """Return exactly `count` events as JSON, oldest first, lazily.

    Timestamps lie strictly between `until - span` and `until` (which must be aware); sessions are
    interleaved, and some begin before the window. Each event has a unique `properties.event_id`. The
    same arguments give the same bytes. Raise ValueError for arguments out of range.
    """
    if count < 0:
        raise ValueError("count must not be negative")
    if until.tzinfo is None:
        raise ValueError("until must carry its offset from UTC")
    if span < timedelta(seconds=1):
        raise ValueError("span must be at least a second")
    return _events(count, random.Random(seed), until, span)


def _events(count: int, rng: random.Random, until: datetime, span: timedelta) -> Iterator[bytes]:
    if not count:
        return
    draw = rng.random
    identity = f"{rng.getrandbits(48):012x}"
    # Rounding down may fall before the window: begin one millisecond later, end as much earlier.
    start_ms = int((until - span).timestamp() * 1000) + 1
    end_ms = start_ms + int(span.total_seconds() * 1000) - 3
    start, end = even_time(start_ms), even_time(end_ms)
    step_ms = (end - start) / count
    clock = EventClock(start_ms // 1000)
    pool: list[Session] = []
    second, prefix, ms = -1, "", start_ms
    index, round_end = 0, 0
    for number in range(count):
        even = start + (number + draw()) * step_ms
        ms = min(max(day_time(even), ms), end_ms)
        if ms // 1000 != second:
            clock.second = second = ms // 1000
            prefix = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}."
        # In turn, so that the events of a session are evenly spaced; some sessions skip a turn.
        index += 2 if draw() < 0.05 else 1
        if index >= round_end:
            index, round_end = 0, _resize(pool, even, step_ms, draw, clock)
        session = pool[index]
        step = next(session.steps, None)
        if step is None:
            session = pool[index] = Session(draw, clock)
            step = next(session.steps)
        name, own = step
        yield (
            f'{session.head}{name}{session.user}{prefix}{ms % 1000:03d}Z","properties":'
            f'{{"event_id":"{identity}{number:010x}",{own}{session.tail}'
        ).encode()


def _resize(
    pool: list["Session"], even: float, step_ms: float, draw: _Random, clock: "EventClock"
) -> int:
    """Adapt the pool to the sessions that are open at this time of the day; return their number.

    The first sessions have begun before the window; surplus ones stop without a last event.
    """
    is_first = not pool
    sessions = round(HEARTBEAT_SECONDS * 1000 / (step_ms * _slope(even)))
    sessions = max(_MIN_SESSIONS, min(sessions, _MAX_SESSIONS))
    del pool[sessions:]
    for _ in range(sessions - len(pool)):
        session = Session(draw, clock)
        pool.append(session)
        if is_first:
            for _ in range(int(draw() * 16)):
                next(session.steps, None)
    return sessions


def day_time(even: float) -> int:
    """Return milliseconds since 1970 for a time at which events are even: the evening takes less of it.

    A cubic in each day, without a function of the platform's mathematics library.
    """
    day, x = divmod((even - _QUIETEST_MS) / _DAY_MS, 1)
    return int((day + x + _SWING * x * (1 - x) * (1 - 2 * x)) * _DAY_MS) + _QUIETEST_MS


def _slope(even: float) -> float:
    x = (even - _QUIETEST_MS) / _DAY_MS % 1
    return 1 + _SWING * (1 - 6 * x + 6 * x * x)


def even_time(ms: int) -> float:
    """Return the inverse of `day_time`, by bisection."""
    low, high = float(ms - _DAY_MS), float(ms + _DAY_MS)
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if day_time(middle) < ms else (low, middle)
    return low


class EventClock:
    """Time of the current event, read by sessions when they choose what to watch."""

    __slots__ = ("second",)

    def __init__(self, second: int) -> None:
        self.second = second

    def is_live_hour(self) -> bool:
        return self.second % _LIVE_PERIOD_SECONDS < _LIVE_SECONDS


class Session:
    """One visit: the constant parts of its events as text, and an iterator of its remaining steps."""

    __slots__ = ("head", "steps", "tail", "user")

    def __init__(self, draw: _Random, clock: EventClock) -> None:
        app = _pick(_APPS, draw)
        if clock.is_live_hour() and draw() < 0.5:
            app = min(_LIVE_APPS)
        # A bijection that spreads consecutive numbers over the 32 bits.
        user = int(draw() * _USERS) * 2_654_435_761 % 2**32
        self.head = f'{{"app_id":"{app}","event_name":"'
        self.user = f'","user_id":"user_{user:08x}","timestamp":"'
        self.tail = (
            f'"session_id":"s-{int(draw() * 2**40):010x}",'
            f'"network_type":"{_pick(_NETWORKS, draw)}",'
            f'"client_version":"{_pick(_VERSIONS, draw)}",'
            f'"device":"{_pick(_DEVICES, draw)}"}}}}'
        )
        self.steps = _visit(draw, clock, is_live=app in _LIVE_APPS)


def _visit(draw: _Random, clock: EventClock, *, is_live: bool) -> Iterator[_Step]:
    player = f'"player_version":"{_pick(_PLAYER_VERSIONS, draw)}",'
    yield "session_start", ""
    for _ in range(1 + int(draw() * _MAX_VIDEOS)):
        video, duration = _live(draw, clock) if is_live else _content(draw)
        if draw() < 0.35:
            found = draw() > 0.12
            query = _pick(_QUERIES if found else _FRUITLESS_QUERIES, draw)
            results = 1 + int(draw() ** 2 * 200) if found else 0
            yield "search", f'"query":"{query}","results_count":{results},'
            if not found or draw() < 0.3:
                continue
            position = 1 + int(draw() ** 3 * min(results, 20))
            yield "search_click", f'"query":"{query}",{video}"position":{position},'
        yield from _watch(draw, video + player, duration)


def _watch(draw: _Random, video: str, duration: int) -> Iterator[_Step]:
    """Yield the steps of one view. `duration` is in seconds, 0 for a live stream."""
    cdn = _pick(_CDNS, draw)
    view = f'{video}"view_id":"v-{int(draw() * 2**48):012x}","cdn":"{cdn}",'
    if duration:
        view += f'"duration":{duration},'
    # One in ten continues where it was left.
    position = float(int(draw() * duration)) if draw() < 0.1 else 0.0
    bitrate = _pick(_BITRATES_KBPS, draw)
    playing = f'{view}"bitrate_kbps":{bitrate},'
    yield "video_request", f'{view}"position":{position:g},'
    luck = draw()
    if luck < 0.015:
        error = f'"code":"{_pick(_ERRORS, draw)}","fatal":true,'
        yield "video_error", f'{view}"position":{position:g},{error}'
    if luck < 0.04:
        return
    # The far cache is slow.
    startup_ms = 120 + int(draw() ** 3 * (12_000 if cdn == _CDNS[-1] else 4000))
    yield "video_start", f'{playing}"position":{position:g},"startup_ms":{startup_ms},'
    watched = 0.0
    for _ in range(1 + int(draw() ** 2 * 40)):
        luck = draw()
        seconds = float(HEARTBEAT_SECONDS)
        at = f'"position":{position:.1f},'
        if luck < 0.07:
            buffer_ms = 50 + int(draw() ** 4 * 9000)
            seconds -= buffer_ms / 1000
            yield "video_buffering", f'{playing}{at}"buffer_duration_ms":{buffer_ms},'
        elif luck < 0.11:
            target = draw() * (duration or 3600)
            seek = f'"from_seconds":{position:.0f},"to_seconds":{target:.0f},'
            position = target if duration else position
            yield "video_seek", f'{playing}"position":{position:.1f},{seek}'
        elif luck < 0.118:
            fatal = draw() < 0.5
            code = _pick(_ERRORS, draw)
            yield "video_error", f'{playing}{at}"code":"{code}","fatal":{str(fatal).lower()},'
            if fatal:
                return
        elif luck < 0.16:
            previous, bitrate = bitrate, _pick(_BITRATES_KBPS, draw)
            playing = f'{view}"bitrate_kbps":{bitrate},'
            yield "video_quality_change", f'{playing}{at}"from_bitrate_kbps":{previous},'
        if duration:
            seconds = min(seconds, max(round(duration - position, 1), 0.1))
        watched += seconds
        position = min(position + seconds, duration) if duration else position + seconds
        yield "video_heartbeat", f'{playing}"position":{position:.1f},"watch_time":{seconds:g},'
        if duration and position >= duration:
            break
    completed = "true" if duration and position >= duration else "false"
    yield (
        "video_end",
        f'{playing}"position":{position:.1f},"watched_seconds":{watched:.1f},"completed":{completed},',
    )


def _content(draw: _Random) -> tuple[str, int]:
    # n ** u is log-uniform: the k-th is watched about 1/k as often as the first, as real audiences do.
    number = int(_CONTENTS ** draw())
    # From one to twenty minutes, fixed for each content.
    share = number * 2_654_435_761 % 2**32 / 2**32
    return f'"content_id":"c-{number:05d}",', 60 + int(share * share * 1140)


def _live(draw: _Random, clock: EventClock) -> tuple[str, int]:
    number = int(_STREAMS ** draw())
    if clock.is_live_hour() and draw() < 0.7:
        number = 1 + clock.second // _LIVE_PERIOD_SECONDS % _STREAMS
    return f'"stream_id":"st-{998_000 + number:06d}",', 0


def _pick(values: tuple[_T, ...], draw: _Random) -> _T:
    return values[int(draw() * len(values))]


def break_event(line: bytes, kind: str) -> bytes:
    """Return the valid event, made invalid in one way. Raise KeyError for an unknown kind."""
    return _BREAKS[kind](line)


def broken(
    count: int, *, seed: int, until: datetime, span: timedelta = timedelta(hours=6)
) -> Iterator[bytes]:
    """Return `count` events as `generate` would, each broken in the next of `BROKEN_KINDS`."""
    events = generate(count, seed=seed, until=until, span=span)
    return (
        break_event(line, kind) for line, kind in zip(events, cycle(BROKEN_KINDS), strict=False)
    )


def _with(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda line: _compact(json.loads(line) | changes)


def _without(name: str) -> Callable[[bytes], bytes]:
    def remove(line: bytes) -> bytes:
        event = json.loads(line)
        del event[name]
        return _compact(event)

    return remove


def _compact(event: object) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


_BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda line: b"",
    "not_json": lambda line: b"video_start " + line[1:-1],
    "truncated": lambda line: line[: len(line) // 2],
    "two_objects": lambda line: line + line,
    "not_an_object": lambda line: b"[" + line + b"]",
    "invalid_utf8": lambda line: line.replace(b'"user_id":"', b'"user_id":"\xff\xfe', 1),
    "invalid_utf8_in_properties": lambda line: line.replace(b'"s-', b'"\xff\xfe', 1),
    "nan_in_properties": lambda line: line.replace(b'{"event_id"', b'{"nan":NaN,"event_id"', 1),
    "missing_app_id": _without("app_id"),
    "missing_event_name": _without("event_name"),
    "missing_user_id": _without("user_id"),
    "missing_timestamp": _without("timestamp"),
    "null_app_id": _with(app_id=None),
    "empty_event_name": _with(event_name=""),
    "number_as_user_id": _with(user_id=550_840),
    "timestamp_without_offset": _with(timestamp="2026-02-02T12:00:00.000"),
    "timestamp_impossible": _with(timestamp="2026-02-30T12:00:00.000Z"),
    "timestamp_not_a_time": _with(timestamp="yesterday"),
    "timestamp_before_1970": _with(timestamp="1969-12-31T23:59:59.000Z"),
    "timestamp_after_2106": _with(timestamp="2106-02-07T06:28:16.000Z"),
    "timestamp_a_number": _with(timestamp=1_770_033_600),
    "properties_an_array": _with(properties=["5g", 1500]),
    "properties_a_string": _with(properties='{"network_type": "5g"}'),
}
BROKEN_KINDS = tuple(_BREAKS)
