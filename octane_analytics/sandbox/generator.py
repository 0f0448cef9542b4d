"""Seeded generator of telemetry events of a video platform.

Owns the content of the events, not their transport. They follow (or, deliberately invalid, violate)
the input contract of the service: `app_id`, `event_name`, `user_id`, `timestamp` and free-form
`properties`.

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
    step_ms = (span.total_seconds() * 1000 - 3) / count
    sessions = round(HEARTBEAT_SECONDS * 1000 / step_ms)
    sessions = max(_MIN_SESSIONS, min(sessions, _MAX_SESSIONS))
    pool = [_Session(draw) for _ in range(sessions)]
    for session in pool:
        for _ in range(int(draw() * 16)):
            next(session.steps, None)
    second, prefix = -1, ""
    turn = 0
    for number in range(count):
        # In turn, so that the events of a session are evenly spaced; some sessions skip a turn.
        turn += 2 if draw() < 0.05 else 1
        session = pool[turn % sessions]
        step = next(session.steps, None)
        if step is None:
            session = pool[turn % sessions] = _Session(draw)
            step = next(session.steps)
        name, own = step
        now_second, ms = divmod(start_ms + int((number + draw()) * step_ms), 1000)
        if now_second != second:
            second = now_second
            prefix = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}."
        yield (
            f'{session.head}{name}{session.user}{prefix}{ms:03d}Z","properties":'
            f'{{"event_id":"{identity}{number:010x}",{own}{session.tail}'
        ).encode()


class _Session:
    """One visit: the constant parts of its events as text, and an iterator of its remaining steps."""

    __slots__ = ("head", "steps", "tail", "user")

    def __init__(self, draw: _Random) -> None:
        app = _pick(_APPS, draw)
        # A bijection that spreads consecutive numbers over the 32 bits.
        user = int(draw() * _USERS) * 2_654_435_761 % 2**32
        self.head = f'{{"app_id":"{app}","event_name":"'
        self.user = f'","user_id":"user_{user:08x}","timestamp":"'
        self.tail = (
            f'"session_id":"s-{int(draw() * 2**40):010x}",'
            f'"network_type":"{_pick(_NETWORKS, draw)}",'
            f'"client_version":"{_pick(_VERSIONS, draw)}"}}}}'
        )
        self.steps = _visit(draw, is_live=app in _LIVE_APPS)


def _visit(draw: _Random, *, is_live: bool) -> Iterator[_Step]:
    yield "session_start", f'"device":"{_pick(_DEVICES, draw)}",'
    for _ in range(1 + int(draw() * _MAX_VIDEOS)):
        video = _video(draw, is_live=is_live)
        if draw() < 0.35:
            found = draw() > 0.12
            query = _pick(_QUERIES if found else _FRUITLESS_QUERIES, draw)
            results = 1 + int(draw() ** 2 * 200) if found else 0
            yield "search", f'"query":"{query}","results_count":{results},'
            if not found or draw() < 0.3:
                continue
            position = 1 + int(draw() ** 3 * min(results, 20))
            yield "search_click", f'"query":"{query}",{video}"position":{position},'
        yield from _watch(draw, video)


def _watch(draw: _Random, video: str) -> Iterator[_Step]:
    bitrate = _pick(_BITRATES_KBPS, draw)
    startup_ms = 120 + int(draw() ** 3 * 4000)
    yield "video_start", f'{video}"startup_ms":{startup_ms},"bitrate_kbps":{bitrate},'
    watched = 0.0
    for _ in range(1 + int(draw() ** 2 * 40)):
        luck = draw()
        seconds = float(HEARTBEAT_SECONDS)
        if luck < 0.07:
            buffer_ms = 50 + int(draw() ** 4 * 9000)
            seconds -= buffer_ms / 1000
            yield "video_buffering", f'{video}"buffer_duration_ms":{buffer_ms},'
        elif luck < 0.11:
            seek = f'"from_seconds":{watched:.0f},"to_seconds":{draw() * 3600:.0f},'
            yield "video_seek", video + seek
        elif luck < 0.118:
            fatal = draw() < 0.5
            code = _pick(_ERRORS, draw)
            yield "video_error", f'{video}"code":"{code}","fatal":{str(fatal).lower()},'
            if fatal:
                return
        watched += seconds
        yield "video_heartbeat", f'{video}"watch_time":{seconds:g},'
    completed = "true" if draw() < 0.4 else "false"
    yield "video_end", f'{video}"watched_seconds":{watched:.1f},"completed":{completed},'


def _video(draw: _Random, *, is_live: bool) -> str:
    # n ** u is log-uniform: the k-th is watched about 1/k as often as the first, as real audiences do.
    if is_live:
        return f'"stream_id":"st-{998_000 + int(_STREAMS ** draw()):06d}",'
    return f'"content_id":"c-{int(_CONTENTS ** draw()):05d}",'


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
