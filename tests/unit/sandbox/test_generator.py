"""Input contract, determinism and time window of generated events, and kinds of invalid ones."""

import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octane_analytics.sandbox.generator import BROKEN_KINDS, break_event, broken, generate

UNTIL = datetime(2026, 2, 2, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return [json.loads(line) for line in generate(20_000, seed=7, until=UNTIL)]


def test_generate_follows_the_contract(events: list[dict[str, Any]]) -> None:
    for event in events:
        assert list(event) == ["app_id", "event_name", "user_id", "timestamp", "properties"]
        assert all(event[name] for name in event)
        properties = event["properties"]
        assert properties.keys() >= {
            "event_id", "session_id", "client_version", "network_type", "device",
        }  # fmt: skip
        assert len(event["timestamp"]) == len("2026-02-02T12:00:00.000Z")
        assert event["timestamp"].endswith("Z")


def test_generate_covers_the_input_of_reports(events: list[dict[str, Any]]) -> None:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_name.setdefault(event["event_name"], []).append(event["properties"])
    assert by_name.keys() == {
        "session_start", "search", "search_click", "video_request", "video_start",
        "video_heartbeat", "video_buffering", "video_seek", "video_quality_change", "video_error",
        "video_end",
    }  # fmt: skip
    for name in by_name.keys() - {"session_start", "search"}:
        assert all(("content_id" in own) != ("stream_id" in own) for own in by_name[name])
    assert all(0 < own["watch_time"] <= 15 for own in by_name["video_heartbeat"])
    assert all(own["buffer_duration_ms"] > 0 for own in by_name["video_buffering"])
    assert {True, False} == {own["results_count"] == 0 for own in by_name["search"]}
    assert all(own["query"] and own["position"] >= 1 for own in by_name["search_click"])


def test_generated_views_are_consistent(events: list[dict[str, Any]]) -> None:
    views: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["event_name"].startswith("video_"):
            views.setdefault(event["properties"]["view_id"], []).append(event)
    assert len(views) > 1000
    for view in views.values():
        own = [event["properties"] for event in view]
        constant = ("session_id", "content_id", "stream_id", "duration", "cdn", "player_version")
        for name in constant:
            assert len({each.get(name) for each in own}) == 1
        assert all(("duration" in each) == ("content_id" in each) for each in own)
        assert all(0 <= each["position"] <= each.get("duration", 10**6) for each in own)
        names = [event["event_name"] for event in view]
        assert names.count("video_start") <= 1
        assert "video_request" not in names[1:]
        assert "video_end" not in names[:-1]
    changes = [e["properties"] for e in events if e["event_name"] == "video_quality_change"]
    assert any(own["bitrate_kbps"] != own["from_bitrate_kbps"] for own in changes)


def test_generate_is_busiest_in_the_evening() -> None:
    lines = generate(30_000, seed=7, until=UNTIL, span=timedelta(days=2))
    hours = Counter(json.loads(line)["timestamp"][11:13] for line in lines)
    assert max(hours, key=hours.__getitem__) in ("18", "19")
    assert 3 < max(hours.values()) / min(hours.values()) < 4


def test_generate_gathers_viewers_of_live_streams(events: list[dict[str, Any]]) -> None:
    viewers: dict[str, set[str]] = {}
    for event in events:
        if "stream_id" in event["properties"]:
            viewers.setdefault(event["timestamp"][11:16], set()).add(event["user_id"])
    # A live hour begins at 8:00.
    assert len(viewers["08:50"]) > 1.5 * len(viewers["07:50"])


def test_generate_prefers_few_contents(events: list[dict[str, Any]]) -> None:
    contents = Counter(event["properties"].get("content_id") for event in events)
    del contents[None]
    ranked = [views for _, views in contents.most_common()]
    assert ranked[0] > 5 * ranked[len(ranked) // 4]
    assert len({event["app_id"] for event in events}) > 2


def test_generate_interleaves_sessions(events: list[dict[str, Any]]) -> None:
    sessions = [event["properties"]["session_id"] for event in events]
    neighbours = sum(one == other for one, other in itertools.pairwise(sessions))
    assert neighbours < len(sessions) / 100


@given(
    count=st.integers(0, 300),
    seed=st.integers(-(2**70), 2**70),
    until=st.datetimes(
        datetime(1980, 1, 1),
        datetime(2100, 1, 1),
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=30))]),
    ),
    span=st.timedeltas(timedelta(seconds=1), timedelta(days=400)),
)
@settings(max_examples=50, deadline=None)
def test_generate_is_exact_ordered_unique_and_repeatable(
    count: int, seed: int, until: datetime, span: timedelta
) -> None:
    lines = list(generate(count, seed=seed, until=until, span=span))
    assert len(lines) == count
    assert lines == list(generate(count, seed=seed, until=until, span=span))
    decoded = [json.loads(line) for line in lines]
    assert len({event["properties"]["event_id"] for event in decoded}) == count
    times = [datetime.fromisoformat(event["timestamp"]) for event in decoded]
    assert times == sorted(times)
    assert all(until - span < time < until for time in times)


def test_generate_differs_by_seed() -> None:
    one, other = ({*generate(500, seed=seed, until=UNTIL)} for seed in (1, 2))
    assert not one & other


def test_generate_is_lazy() -> None:
    assert len(list(itertools.islice(generate(10**12, seed=1, until=UNTIL), 10))) == 10


@pytest.mark.parametrize(
    ("count", "until", "span"),
    [
        (-1, UNTIL, timedelta(hours=1)),
        (1, UNTIL.replace(tzinfo=None), timedelta(hours=1)),
        (1, UNTIL, timedelta(0)),
    ],
)
def test_generate_rejects_arguments_out_of_range(
    count: int, until: datetime, span: timedelta
) -> None:
    with pytest.raises(ValueError, match="must"):
        generate(count, seed=1, until=until, span=span)


def is_valid(line: bytes) -> bool:
    """Return whether the line follows the input contract; simple and slow."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        event = json.loads(line.decode("utf-8"), parse_constant=refuse)
        texts = [event[name] for name in ("app_id", "event_name", "user_id", "timestamp")]
        time = datetime.fromisoformat(texts[-1])
    except (ValueError, KeyError, TypeError):
        return False
    return (
        all(isinstance(text, str) and text for text in texts)
        and time.tzinfo is not None
        and 0 <= time.timestamp() < 2**32
        and isinstance(event.get("properties", {}), dict)
    )


@pytest.mark.parametrize("kind", BROKEN_KINDS)
def test_break_event_makes_any_event_invalid(kind: str) -> None:
    for line in generate(200, seed=3, until=UNTIL):
        assert is_valid(line)
        assert not is_valid(break_event(line, kind))


def test_break_event_knows_its_kinds() -> None:
    assert len(BROKEN_KINDS) >= 10
    with pytest.raises(KeyError):
        break_event(b"{}", "unknown")


def test_broken_takes_the_kinds_in_turn() -> None:
    count = 2 * len(BROKEN_KINDS)
    lines = list(broken(count, seed=5, until=UNTIL))
    expected = [
        break_event(line, kind)
        for line, kind in zip(
            generate(count, seed=5, until=UNTIL), itertools.cycle(BROKEN_KINDS), strict=False
        )
    ]
    assert lines == expected
