"""Reports over the recording of a real player, compared with a recount in plain Python."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.types import ASGIApp

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support import recount_playback, recount_views
from tests.support.api_fixtures import app_over, at, insert
from tests.support.asgi_calls import report
from tests.support.recorded_playback import recorded_rows
from tests.support.view_reports import END, answer_of, close_to

_BEGIN = END - 7_200
_REPORTS: dict[str, tuple[Callable[..., list[dict[str, Any]]], dict[str, Any]]] = {
    "views": (recount_views.views_report, {"by": "content"}),
    "qoe_scorecard": (recount_views.qoe_scorecard, {"by": "device"}),
    "concurrent_viewers": (recount_playback.concurrent_viewers, {"bucket_seconds": 300}),
    "errors": (recount_playback.errors, {}),
    "audience_retention": (
        recount_playback.audience_retention,
        {"content": "episode-1", "similar_share": 0.1},
    ),
    "survival": (recount_playback.survival, {"by": "content"}),
    "catalog": (recount_playback.catalog, {}),
}


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings) -> Iterator[ASGIApp]:
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        connection.execute(f"ALTER TABLE {connection.table} REMOVE TTL")
    with app_over(clickhouse_settings) as opened:
        yield opened


@pytest.mark.parametrize("has_view_ids", [True, False])
def test_reports_match_a_recount_of_the_recording(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, *, has_view_ids: bool
) -> None:
    rows = recorded_rows(_BEGIN, has_view_ids=has_view_ids)
    assert len(rows) > 1_000
    insert(clickhouse_settings, rows)
    for name, (recount, options) in _REPORTS.items():
        expected = recount(rows, _BEGIN, END, None, *options.values())
        limit = None if name == "audience_retention" else 2_000
        answer = answer_of(app, name, _BEGIN, END, **options, limit=limit)
        if name == "catalog":
            expected, answer = ([r | {"examples": 0} for r in each] for each in (expected, answer))
        assert expected
        assert answer == close_to(expected), name


def test_timeline_has_the_recording_in_order(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    rows = recorded_rows(_BEGIN, has_view_ids=True)
    insert(clickhouse_settings, rows)
    expected = recount_playback.session_timeline(rows, _BEGIN, END, None, "view-5")
    span = {"from": at(_BEGIN), "to": at(END)}
    answer = report(app, "session_timeline", **span, id="view-5", limit=2_000)
    assert expected
    assert answer.json()["rows"] == close_to(expected)


def test_recording_has_the_stalls_of_its_player(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    insert(clickhouse_settings, recorded_rows(_BEGIN, has_view_ids=True))
    (row,) = answer_of(app, "qoe_scorecard", _BEGIN, END, by="device")
    assert (row["value"], row["views"]) == ("web", 6)
    (error,) = answer_of(app, "errors", _BEGIN, END)
    assert (error["code"], error["occurrences"], error["fatal_share"]) == ("3", 1, 1)
