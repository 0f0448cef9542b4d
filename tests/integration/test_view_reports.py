"""Comparison of the reports about views with a recount of the same events in plain Python."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.events.event import Row
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support import recount_views
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import call, report
from tests.support.view_reports import (
    END,
    RANGES,
    START,
    answer_of,
    any_events,
    close_to,
    insert_generated,
    playback_events,
    replace_rows,
)


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings) -> Iterator[ASGIApp]:
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        connection.execute(f"ALTER TABLE {connection.table} REMOVE TTL")
    with app_over(clickhouse_settings) as opened:
        yield opened


@pytest.fixture
def generated(clickhouse_settings: ClickHouseSettings) -> list[Row]:
    return insert_generated(clickhouse_settings)


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
        thresholds: tuple[dict[str, Any], ...] = (
            {},
            {"good_startup_ms": 400, "good_stalled_share": 0.0005, "good_bitrate_kbps": 1500},
        )
        for good in thresholds:
            expected = recount_views.qoe_scorecard(generated, start, end, app_id, by, **good)
            answer = answer_of(app, "qoe_scorecard", start, end, app_id=app_id, by=by, **good)
            assert answer == close_to(expected)
    if by == "device":
        assert {row["value"] for row in expected} == {"tv", "phone", "web", "tablet"}


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
    cases: tuple[tuple[str, Any, dict[str, Any]], ...] = (
        ("views", recount_views.views_report, {"completion_share": 0.5}),
        ("qoe_scorecard", recount_views.qoe_scorecard, {"good_stalled_share": 0.2}),
    )
    for name, recount, options in cases:
        expected = recount(rows, START, END, app_id, by, **options)
        answer = answer_of(app, name, START, END, app_id=app_id, by=by, **options)
        assert answer == close_to(expected), name


@pytest.mark.parametrize("name", ["views", "qoe_scorecard"])
def test_totals_equal_one_group_of_all(app: ASGIApp, generated: list[Row], name: str) -> None:
    span = {"from": at(END - 6 * 3600), "to": at(END)}
    (whole,) = report(app, name, **span, by="no such property").json()["rows"]
    params = {**span, "by": "device", "limit": 2}
    body = {"template": name, "params": params, "totals": True, "compare": "previous_period"}
    answer = call(app, "POST", "/report", json=body).json()
    assert {key: answer["totals"][key] for key in whole if key != "value"} == {
        key: value for key, value in whole.items() if key != "value"
    }
    assert answer["total_rows"] == 4
    assert "views_change" in answer["rows"][0]


def test_totals_of_no_views_are_empty(app: ASGIApp) -> None:
    for name in ("views", "qoe_scorecard", "errors"):
        body: dict[str, object] = {"template": name, "params": {}, "totals": True}
        answer = call(app, "POST", "/report", json=body).json()
        assert answer["rows"] == []
        counted = answer["totals"] | {"sample": None, "startup_histogram": None}
        assert not any(counted.values()), counted


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


def test_samples_hold_every_event_of_their_users(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, generated: list[Row]
) -> None:
    with ClickHouse(clickhouse_settings, client_name="tests") as clickhouse:
        found = clickhouse.select(
            f"SELECT DISTINCT user_id FROM {clickhouse.table} WHERE cityHash64(user_id) % 10000 < 5000"
        )
    users = {user for (user,) in found.rows}
    rows = [row for row in generated if row.user_id in users]
    assert 0 < len(rows) < len(generated)
    start, end, _ = RANGES[0]
    scaled = ("views", "plays", "viewers", "watch_time", "search_plays", "startup_histogram")
    for name, recount in (
        ("views", recount_views.views_report),
        ("qoe_scorecard", recount_views.qoe_scorecard),
    ):
        expected = recount(rows, start, end, by="device")
        for row in expected:
            row["sample"] = 0.5
            for column in row.keys() & set(scaled):
                value = row[column]
                row[column] = [2 * n for n in value] if isinstance(value, list) else 2 * value
        answer = answer_of(app, name, start, end, by="device", sample=0.5)
        assert answer == close_to(expected), name


_NAMES = [
    *(
        "position",
        "view_id",
        "cdn",
        "_",
        "a`b",
        "a\\",
        "'",
        "a String, b",
        "Größe",
        "null",
        "string",
    ),
]


@pytest.mark.parametrize("by", _NAMES)
def test_dimension_of_any_name_is_read(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, by: str
) -> None:
    ids = {"session_id": "s", "content_id": "c"}
    rows = [
        event(START + 10 * number, name, **ids, **(dict.fromkeys(_NAMES, value) | {"a": "other"}))
        for number, (name, value) in enumerate(
            [("video_start", ""), ("video_heartbeat", "late"), ("video_end", "later")]
        )
    ]
    insert(clickhouse_settings, rows)
    answer = answer_of(app, "views", START, END, by=by)
    assert answer == close_to(recount_views.views_report(rows, START, END, by=by))
    assert "late" in [row["value"] for row in answer]


@pytest.mark.parametrize("file_format", ["csv", "ndjson", "prometheus"])
def test_scorecard_is_served_in_other_formats(
    app: ASGIApp, generated: list[Row], file_format: str
) -> None:
    range_ = {"from": at(END - 3600), "to": at(END)}
    answer = call(app, "GET", "/report/qoe_scorecard", params={**range_, "format": file_format})
    assert answer.status_code == 200, answer.text
    assert "phone" in answer.text
    if file_format != "prometheus":
        assert "startup_histogram" in answer.text
