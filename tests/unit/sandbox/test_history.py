"""Generated events of many days: exact number, order, window, and sessions at their real speed."""

import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octane_analytics.events.decode import decode
from octane_analytics.sandbox.generator import HEARTBEAT_SECONDS
from octane_analytics.sandbox.history import MIN_SPAN, generate_history

UNTIL = datetime(2026, 2, 2, 12, tzinfo=UTC)
DAYS = 60


@pytest.fixture(scope="module")
def times() -> list[datetime]:
    lines = generate_history(20_000, seed=7, until=UNTIL, span=timedelta(days=DAYS))
    return [datetime.fromisoformat(json.loads(line)["timestamp"]) for line in lines]


@given(
    count=st.integers(0, 300),
    seed=st.integers(-(2**70), 2**70),
    until=st.datetimes(
        datetime(1990, 1, 1),
        datetime(2100, 1, 1),
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=30))]),
    ),
    span=st.timedeltas(MIN_SPAN, timedelta(days=400)),
)
@settings(max_examples=50, deadline=None)
def test_history_is_exact_ordered_unique_and_repeatable(
    count: int, seed: int, until: datetime, span: timedelta
) -> None:
    lines = list(generate_history(count, seed=seed, until=until, span=span))
    assert lines == list(generate_history(count, seed=seed, until=until, span=span))
    events = [json.loads(line) for line in lines]
    assert len({event["properties"]["event_id"] for event in events}) == count
    times = [datetime.fromisoformat(event["timestamp"]) for event in events]
    assert times == sorted(times)
    assert all(until - span < time < until for time in times)
    for line in lines:
        decode(line)


def test_history_has_events_in_every_range(times: list[datetime]) -> None:
    for days in (1 / 24, 1, 7, 30):
        share = sum(time > UNTIL - timedelta(days=days) for time in times) / len(times)
        assert share == pytest.approx((days / DAYS) ** 0.5, abs=0.03)
    assert len({time.date() for time in times}) > DAYS * 0.9


def test_history_has_the_rhythm_of_days(times: list[datetime]) -> None:
    hours = Counter(time.hour // 6 for time in times)
    assert hours[3] > 1.5 * hours[1]


def test_history_plays_sessions_at_real_speed() -> None:
    sessions: dict[str, list[datetime]] = {}
    for line in generate_history(5_000, seed=7, until=UNTIL, span=timedelta(days=DAYS)):
        event: dict[str, Any] = json.loads(line)
        time = datetime.fromisoformat(event["timestamp"])
        sessions.setdefault(event["properties"]["session_id"], []).append(time)
    pauses = {
        (later - earlier).total_seconds()
        for session in sessions.values()
        for earlier, later in itertools.pairwise(session)
    }
    assert pauses == {HEARTBEAT_SECONDS}


@pytest.mark.parametrize(
    ("count", "until", "span"),
    [
        (-1, UNTIL, timedelta(days=2)),
        (1, UNTIL.replace(tzinfo=None), timedelta(days=2)),
        (1, UNTIL, timedelta(hours=23)),
    ],
)
def test_history_rejects_arguments_out_of_range(
    count: int, until: datetime, span: timedelta
) -> None:
    with pytest.raises(ValueError, match="must"):
        generate_history(count, seed=1, until=until, span=span)
