"""Comparison of the reports about views with a recount of the same events in plain Python."""

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.events.decode import decode
from octane_analytics.events.event import Row
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_reports import rows_of
from tests.support import recount_views
from tests.support.api_fixtures import app_over, at, event, insert

END = int(datetime(2026, 10, 27, 12, tzinfo=UTC).timestamp())
START = END - 600
DAY = 86_400
_SERIAL = itertools.count(2_000_000)

_ROUNDED_TO_3 = {
    "average_view_duration", "average_bitrate_kbps", "startup_ms_mean", "startup_score",
    "smoothness_score",
}  # fmt: skip


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings) -> Iterator[ASGIApp]:
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        connection.execute(f"ALTER TABLE {connection.table} REMOVE TTL")
    with app_over(clickhouse_settings) as opened:
        yield opened


def close_to(expected: list[dict[str, Any]]) -> list[Any]:
    """Approximate floats: rates that are rounded from exactly half may differ in the last digit."""
    return [
        {
            name: pytest.approx(value, rel=1e-9, abs=1.1e-3 if name in _ROUNDED_TO_3 else 1.1e-6)
            if isinstance(value, float)
            else value
            for name, value in row.items()
        }
        for row in expected
    ]


def answer_of(app: ASGIApp, template: str, start: int, end: int, **params: Any) -> list[Any]:
    # Another value for each call, so that no answer comes from the cache.
    params = {"limit": 2000, **params, "max_events": next(_SERIAL)}
    if params["limit"] is None:
        del params["limit"]
    return rows_of(app, template, **{"from": at(start), "to": at(end)}, **params)


@pytest.fixture
def generated(clickhouse_settings: ClickHouseSettings) -> list[Row]:
    until = datetime.fromtimestamp(END, UTC)
    rows = [decode(line) for line in generate(20_000, seed=3, until=until)]
    insert(clickhouse_settings, rows)
    return rows


RANGES = [
    (END - 6 * 3600, END, None),
    (END - 6 * 3600, END, "octane-live"),
    (END - 3 * 3600, END - 2 * 3600 + 7, "openstream"),
]


@pytest.mark.parametrize("by", ["content", "device", "app_id", "cdn", "no such property"])
def test_views_match_a_recount(app: ASGIApp, generated: list[Row], by: str) -> None:
    for start, end, app_id in RANGES:
        expected = recount_views.views_report(generated, start, end, app_id, by)
        assert expected
        assert answer_of(app, "views", start, end, app_id=app_id, by=by) == close_to(expected)
    assert any(row["search_plays"] for row in expected) or by == "content"


@pytest.mark.parametrize("by", ["content", "device", "network_type", "player_version"])
def test_scorecard_matches_a_recount(app: ASGIApp, generated: list[Row], by: str) -> None:
    for start, end, app_id in RANGES:
        for good in (
            {},
            {"good_startup_ms": 400, "good_stalled_share": 0.0005, "good_bitrate_kbps": 1500},
        ):
            expected = recount_views.qoe_scorecard(generated, start, end, app_id, by, **good)
            answer = answer_of(app, "qoe_scorecard", start, end, app_id=app_id, by=by, **good)
            assert answer == close_to(expected)
    if by == "device":
        assert {row["value"] for row in expected} == {"tv", "phone", "web", "tablet"}


# --- events of any order and shape ---

_NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 15, 0.5, 100, 250.25, 86_400, 10**9, True, None, "15"]),
    st.integers(0, 5000),
)
_IDS = st.sampled_from(["", "a", "b", 5, None])


@st.composite
def playback_events(draw: st.DrawFn) -> Row:
    names = [*sorted(recount_views.PLAYBACK), "session_start", "search_click", "video_seek"]
    properties = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "view_id": st.sampled_from(["", "v1", "v2"]),
                "session_id": _IDS,
                "content_id": _IDS,
                "stream_id": _IDS,
                "device": st.sampled_from(["tv", "web"]),
                "watch_time": _NUMBERS,
                "position": _NUMBERS,
                "duration": _NUMBERS,
                "bitrate_kbps": _NUMBERS,
                "startup_ms": _NUMBERS,
                "buffer_duration_ms": _NUMBERS,
                "code": st.sampled_from(["X", "Y", 404, None]),
                "fatal": st.sampled_from([True, False, "true"]),
                "completed": st.sampled_from([True, False, "true"]),
                "player_version": st.sampled_from(["1", "2"]),
            },
        )
    )
    # Few seconds, about the ends of the range too: many events share one.
    second = draw(
        st.one_of(
            st.integers(START - 3, START + 20),
            st.integers(END - 20, END + 2),
            st.sampled_from([START - DAY - 1, START - DAY, START - 3600]),
        )
    )
    user = draw(st.sampled_from(["u1", "u2", "u3"]))
    app = draw(st.sampled_from(["a", "b"]))
    return event(second, draw(st.sampled_from(names)), user, app=app, **properties)


def replace_rows(settings_: ClickHouseSettings, rows: Sequence[Row]) -> None:
    with ClickHouseSink(settings_, client_name="tests") as sink:
        sink.execute(f"TRUNCATE TABLE {sink.table}")
    insert(settings_, rows)


any_events = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@any_events
@given(
    st.lists(playback_events(), min_size=1, max_size=60),
    st.sampled_from(["device", "content", "app_id", "session_id"]),
    st.sampled_from([None, "a"]),
)
def test_any_events_give_the_recounted_views(
    app: ASGIApp,
    clickhouse_settings: ClickHouseSettings,
    rows: list[Row],
    by: str,
    app_id: str | None,
) -> None:
    replace_rows(clickhouse_settings, rows)
    for name, recount, options in (
        ("views", recount_views.views_report, {"completion_share": 0.5}),
        ("qoe_scorecard", recount_views.qoe_scorecard, {"good_stalled_share": 0.2}),
    ):
        expected = recount(rows, START, END, app_id, by, **options)
        answer = answer_of(app, name, START, END, app_id=app_id, by=by, **options)
        assert answer == close_to(expected), name


def test_views_without_id_are_separated_by_starts(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    names = ["video_request", "video_start", "video_heartbeat", "video_end"]
    rows = [
        event(START + 10 * (4 * view + step), name, session_id="s", content_id="c", app=app_id)
        for app_id in ("a", "b")
        for view in range(3)
        for step, name in enumerate(names)
    ]
    insert(clickhouse_settings, rows)
    (row,) = answer_of(app, "views", START, END)
    assert (row["views"], row["plays"], row["viewers"]) == (6, 6, 1)


def test_samples_estimate_all_views(app: ASGIApp, generated: list[Row]) -> None:
    (whole,) = answer_of(app, "views", END - 6 * 3600, END, by="nothing")
    (part,) = answer_of(app, "views", END - 6 * 3600, END, by="nothing", sample=0.5)
    assert part["sample"] == 0.5
    assert part["views"] == pytest.approx(whole["views"], rel=0.2)
