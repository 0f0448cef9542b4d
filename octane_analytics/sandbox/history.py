"""Generated events of many days: few of the first days, most of the last ones, with a daily rhythm.

The sessions are those of `sandbox.generator`, each as fast as in reality, so that few events give few
sessions and not slow ones. Their number grows towards the end: a quarter of the events lies in the last
sixteenth of the time, so that a range of a day has something to show, too.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

from octane_analytics.sandbox.generator import (
    HEARTBEAT_SECONDS,
    EventClock,
    Session,
    day_time,
    even_time,
)

MIN_SPAN = timedelta(days=1)
_LONGEST_MS = 3 * 3_600_000
"""Above the length of the longest session, in milliseconds."""


def generate_history(count: int, *, seed: int, until: datetime, span: timedelta) -> Iterator[bytes]:
    """Return exactly `count` events as JSON, oldest first; holds those of three hours in memory.

    Timestamps lie strictly between `until - span` and `until` (which must be aware). Each event has a
    unique `properties.event_id`. The same arguments give the same bytes. Raise ValueError for arguments
    out of range.
    """
    if count < 0:
        raise ValueError("count must not be negative")
    if until.tzinfo is None:
        raise ValueError("until must carry its offset from UTC")
    if span < MIN_SPAN:
        raise ValueError(f"span must be at least {MIN_SPAN}")
    return _events(count, random.Random(seed), until, span)


# Milliseconds since 1970, number of the event, and its text before and after the time.
_Event = tuple[int, int, str, str]


def _events(count: int, rng: random.Random, until: datetime, span: timedelta) -> Iterator[bytes]:
    identity = f"{rng.getrandbits(48):012x}"
    # Rounding down may fall before the window.
    end_ms = int(until.timestamp() * 1000) - 2
    first, last = (
        even_time(end_ms - int(span.total_seconds() * 1000) + _LONGEST_MS),
        even_time(end_ms),
    )
    clock = EventClock(end_ms // 1000)
    pending: list[_Event] = []
    number = 0
    while number < count:
        # Sessions are placed by their ends: none of their events lies after the window.
        ago = 1 - (number + rng.random()) / count
        ms = min(day_time(last - (last - first) * ago * ago), end_ms)
        clock.second = ms // 1000
        while pending and pending[0][0] < ms - _LONGEST_MS:
            yield _line(heappop(pending))
        for event in _session(rng, clock, ms, identity, number, count - number):
            heappush(pending, event)
            number += 1
    while pending:
        yield _line(heappop(pending))


def _session(
    rng: random.Random, clock: EventClock, end_ms: int, identity: str, number: int, room: int
) -> Iterator[_Event]:
    """Yield the first `room` events of a session; its last event is at `end_ms`."""
    session = Session(rng.random, clock)
    steps = list(session.steps)[:room]
    for index, (name, own) in enumerate(steps):
        ms = end_ms - (len(steps) - 1 - index) * HEARTBEAT_SECONDS * 1000
        before = f"{session.head}{name}{session.user}"
        after = f'"event_id":"{identity}{number + index:010x}",{own}{session.tail}'
        yield ms, number + index, before, after


def _line(event: _Event) -> bytes:
    ms, _, before, after = event
    time = datetime.fromtimestamp(ms // 1000, UTC).isoformat()[:19]
    return f'{before}{time}.{ms % 1000:03d}Z","properties":{{{after}'.encode()
