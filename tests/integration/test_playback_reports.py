"""Comparison of the reports about playback and sessions with a recount in plain Python."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.events.event import Row
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support import recount_playback as recount
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import report
from tests.support.recount import select
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


@pytest.mark.parametrize("width", [1, 60, 300])
def test_concurrent_viewers_match_a_recount(
    app: ASGIApp,
    generated: list[Row],
    width: int,
) -> None:
    start, end, app_id = END - 4000, END - 777, "openstream"
    expected = recount.concurrent_viewers(generated, start, end, app_id, width)
    answer = answer_of(
        app, "concurrent_viewers", start, end, app_id=app_id, bucket_seconds=width, limit=5000
    )
    assert answer == close_to(expected[:2000])


def test_concurrent_viewers_are_continued_on_later_pages(
    app: ASGIApp,
    clickhouse_settings: ClickHouseSettings,
) -> None:
    insert(clickhouse_settings, [event(START + 90, "video_heartbeat", watch_time=60)])
    page = {"bucket_seconds": 1, "limit": 10}
    middle = answer_of(app, "concurrent_viewers", START, END, **page, offset=50)
    assert [row["viewers"] for row in middle] == [1] * 10
    assert middle[0]["average_minute_audience"] == 0.1
    last = answer_of(app, "concurrent_viewers", START, END, **page, offset=200)
    assert [(row["viewers"], row["peak_viewers"]) for row in last] == [(0, 1)] * 10
    empty = answer_of(app, "concurrent_viewers", START - 100, START, **page)
    assert [row["viewers"] for row in empty] == [0] * 10


def test_errors_match_a_recount(app: ASGIApp, generated: list[Row]) -> None:
    for start, end, app_id in RANGES:
        expected = recount.errors(generated, start, end, app_id)
        assert answer_of(app, "errors", start, end, app_id=app_id) == close_to(expected)
        assert expected


def test_retention_of_contents_matches_a_recount(
    app: ASGIApp,
    generated: list[Row],
) -> None:
    for start, end, app_id in RANGES:
        for content in ("c-00001", "c-00002", "none"):
            expected = recount.audience_retention(generated, start, end, app_id, content, 0.1)
            answer = answer_of(
                app, "audience_retention", start, end, app_id=app_id, content=content,
                similar_share=0.1, limit=None,
            )  # fmt: skip
            assert answer == close_to(expected)
    assert any(row["relative"] for row in answer_of(
        app, "audience_retention", *RANGES[0][:2], content="c-00001", limit=None
    ))  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"step_seconds": 7, "points": 9, "content": "c-00001"}])
def test_survival_matches_a_recount(
    app: ASGIApp,
    generated: list[Row],
    options: dict[str, object],
) -> None:
    for start, end, app_id in RANGES:
        for by in ("app_id", "device"):
            expected = recount.survival(generated, start, end, app_id, by, **options)  # type: ignore[arg-type]
            answer = answer_of(app, "survival", start, end, app_id=app_id, by=by, **options)
            assert answer == close_to(expected)


def test_catalog_matches_a_recount(app: ASGIApp, generated: list[Row]) -> None:
    for start, end, app_id in RANGES:
        expected = recount.catalog(generated, start, end, app_id)
        answer = answer_of(app, "catalog", start, end, app_id=app_id)
        assert [r | {"examples": None} for r in answer] == close_to(
            [r | {"examples": None} for r in expected]
        )
        assert len(answer) > 100


def test_timeline_has_every_event_of_a_session(
    app: ASGIApp,
    generated: list[Row],
) -> None:
    start, end, _ = RANGES[0]
    view = next(e for e in select(generated, start + 600, end) if "view_id" in e.properties)
    for key in ("session_id", "view_id"):
        id_ = view.properties[key]
        expected = recount.session_timeline(generated, start, end, None, id_)
        params = {"from": at(start), "to": at(end), "id": id_}
        assert report(app, "session_timeline", **params).json()["rows"] == close_to(expected)
        assert len(expected) > 2


@any_events
@given(
    st.lists(playback_events(), min_size=1, max_size=60),
    st.sampled_from([None, "a"]),
    st.sampled_from([1, 10, 60]),
)
def test_any_events_give_the_recounted_playback(
    app: ASGIApp,
    clickhouse_settings: ClickHouseSettings,
    rows: list[Row],
    app_id: str | None,
    width: int,
) -> None:
    replace_rows(clickhouse_settings, rows)
    whole = (rows, START, END, app_id)
    for name, expected, params in (
        ("errors", recount.errors(*whole), {}),
        ("survival", recount.survival(*whole, "device"), {"by": "device"}),
        (
            "concurrent_viewers",
            recount.concurrent_viewers(*whole, width),
            {"bucket_seconds": width},
        ),
        (
            "audience_retention",
            recount.audience_retention(*whole, "a", 0.5),
            {"content": "a", "similar_share": 0.5, "limit": None},
        ),
        ("catalog", recount.catalog(*whole), {}),
    ):
        answer = answer_of(app, name, START, END, app_id=app_id, **params)
        assert answer == close_to(expected), name


@pytest.mark.parametrize("id_", ["s-1", "ü", "a/b", '"', "5", "\\u0073-1", "-", "%"])
def test_timeline_finds_ids_of_any_spelling(
    app: ASGIApp,
    clickhouse_settings: ClickHouseSettings,
    id_: str,
) -> None:
    rows = [
        event(START, "open", raw=raw)
        for raw in (
            '{"session_id":"s-1"}', '{"view_id":"\\u0073-1"}', '{"session_id":"\\u00fc"}',
            '{"session_id":"ü"}', '{"session_id":"a\\/b"}', '{"session_id":"a/b"}',
            '{"session_id":"\\""}', '{"session_id":5}', '{"session_id":"\\\\u0073-1"}',
            '{"other":"s-1","n":1e400}', '{"session_id":"s-1","n":1e400}',
        )
    ]  # fmt: skip
    insert(clickhouse_settings, rows)
    expected = recount.session_timeline(
        [row for row in rows if b"1e400" not in row.properties], START, END, None, id_
    )
    params = {"from": at(START), "to": at(END), "id": id_}
    found = [row["properties"] for row in report(app, "session_timeline", **params).json()["rows"]]
    assert sorted(each for each in found if "1e400" not in each) == sorted(
        row["properties"] for row in expected
    )
    assert any("1e400" in each for each in found) == (id_ == "s-1")


def test_timeline_needs_an_id(app: ASGIApp) -> None:
    assert report(app, "session_timeline").status_code == 422
