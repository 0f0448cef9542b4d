"""Comparison, totals and the number of all rows, against a real ClickHouse."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import ASGIApp

from octane_analytics.api.reports.library import load
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import call

DAY = 86_400
START = int(time.time()) // DAY * DAY - 3 * DAY
RANGE = {"from": at(START), "to": at(START + DAY)}


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings) -> Iterator[ASGIApp]:
    with app_over(clickhouse_settings) as opened:
        yield opened


def ask(app: ASGIApp, template: str, options: dict[str, object], **params: object) -> Any:
    body = {"template": template, "params": RANGE | params, **options}
    answer = call(app, "POST", "/report", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def heartbeats(contents: int) -> list[Any]:
    """Content N is watched N + 1 seconds, by one user; on the day before it, twice as long."""
    return [
        event(START + offset, "video_heartbeat", f"u{n}", content_id=f"c{n}", watch_time=seconds)
        for n in range(contents)
        for offset, seconds in ((n, n + 1), (n - DAY, 2 * (n + 1)))
    ]


def test_contents_are_compared_wherever_they_rank(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    others = [
        event(START - DAY, "video_heartbeat", "u", content_id=f"old{n}", watch_time=80_000)
        for n in range(30)
    ]
    insert(clickhouse_settings, heartbeats(50) + others)
    body = ask(
        app, "top_content", {"compare": "previous_period", "totals": True}, limit=5, offset=5
    )
    assert body["compare"] == {"from": at(START - DAY), "to": at(START)}
    assert [row["content_id"] for row in body["rows"]] == [f"c{n}" for n in range(44, 39, -1)]
    for row in body["rows"]:
        assert row["watch_time_before"] == 2 * row["watch_time"]
        assert row["watch_time_change"] == -0.5
        assert row["buffer_ms_per_watch_minute_change"] is None
    names = [column["name"] for column in body["columns"]]
    assert names[:4] == ["content_id", "watch_time", "watch_time_before", "watch_time_change"]
    totals = body["totals"]
    assert (totals["content_id"], totals["watch_time"]) == (None, 50 * 51 / 2)
    assert totals["watch_time_before"] == 50 * 51 + 30 * 80_000
    assert (totals["unique_viewers"], totals["unique_viewers_before"]) == (50, 51)
    assert (body["total_rows"], body["row_count"], body["truncated"]) == (50, 5, True)
    assert body["rows_read"] > 0
    assert body["bytes_read"] > 0


def test_ten_thousand_keys_are_compared(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    rows = [
        event(START + offset, "search", "u", query=f"'q{n}\\")
        for n in range(2_500)
        for offset in (0, -DAY)
    ]
    insert(clickhouse_settings, rows)
    body = ask(app, "search_analytics", {"compare": "previous_period"}, limit=2_000)
    assert body["row_count"] == 2_000
    assert {row["searches_before"] for row in body["rows"]} == {1}


@pytest.mark.parametrize("compare", ["previous_period", "previous_year", RANGE])
def test_every_report_is_compared(app: ASGIApp, compare: object) -> None:
    required = {"steps": ["a", "b"], "property": "device", "content": "x", "id": "x"}
    for name, template in load().templates.items():
        if template.key is not None:
            params = {each: required[each] for each in template.parameters if each in required}
            body = ask(app, name, {"compare": compare, "totals": template.has_totals}, **params)
            assert len(body["columns"]) > len(template.columns)
            assert ("totals" in body) is template.has_totals


def test_buckets_and_totals_match_the_events(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    insert(clickhouse_settings, heartbeats(100))
    options: dict[str, object] = {"compare": "previous_period", "totals": True}
    body = ask(app, "events_over_time", options, bucket_seconds=3600)
    assert [row["events_before"] for row in body["rows"]] == [100] + [0] * 23
    assert (body["totals"]["bucket"], body["totals"]["events"]) == (None, 100)
    assert (body["totals"]["unique_users"], body["total_rows"]) == (100, 24)
    body = ask(app, "overview_stats", options)
    (row,) = body["rows"]
    assert (body["totals"], body["total_rows"]) == (row, 1), "a single row is its own totals"
    assert (row["total_events"], row["total_events_before"]) == (100, 100)
    assert (row["total_watch_time_change"], row["searches_change"]) == (-0.5, None)
    assert row["first_event"] == at(START)


@pytest.mark.parametrize("day", [START, START - 30 * DAY])
@pytest.mark.parametrize("name", ["playback_over_time", "searches_over_time"])
def test_totals_of_a_series_are_one_bucket(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, name: str, day: int
) -> None:
    middle = START + DAY // 2
    starts = [event(middle, "video_start", f"u{n}", startup_ms=n) for n in range(1, 90)]
    searches = [event(middle - n, "search", f"u{n}", query="q") for n in range(30)]
    insert(clickhouse_settings, heartbeats(50) + starts + searches)
    params = {"from": at(day), "to": at(day + DAY)}
    compared: dict[str, object] = {"compare": "previous_period"}
    (total,) = ask(app, name, compared, bucket_seconds=0, **params)["rows"]
    with_totals = ask(app, name, compared | {"totals": True}, bucket_seconds=21_600, **params)
    alone = ask(app, name, compared, bucket_seconds=21_600, **params)
    assert with_totals["totals"] == total | {"bucket": None}
    assert with_totals["rows"] == alone["rows"]
    # The earlier rows and their totals are one query.
    assert with_totals["rows_read"] == alone["rows_read"]


@pytest.mark.parametrize(
    "options",
    [
        "compare=yesterday",
        "compare=-1d",
        "compare=now/-1d",
        "totals=2",
        "totals=1&format=csv",
    ],
)
def test_invalid_options_are_rejected(app: ASGIApp, options: str) -> None:
    assert call(app, "GET", f"/report/top_content?{options}").status_code == 422


def test_totals_need_a_report_with_totals(app: ASGIApp) -> None:
    assert call(app, "GET", "/report/funnel?steps=a&steps=b&totals=1").status_code == 422


def test_comparison_is_written_in_every_format(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    insert(clickhouse_settings, heartbeats(3))
    path = f"/report/top_content?from={RANGE['from']}&to={RANGE['to']}&compare=previous_period"
    for name in ("csv", "ndjson", "prometheus", "arrow", "parquet"):
        answer = call(app, "GET", f"{path}&format={name}")
        assert answer.status_code == 200, answer.text
        assert b"watch_time_before" in answer.content


def test_declared_types_are_those_of_the_answer(app: ASGIApp) -> None:
    required = {"steps": ["a", "b"], "property": "device", "content": "x", "id": "x"}
    for name, template in load().templates.items():
        params = {each: required[each] for each in template.parameters if each in required}
        found = {each["name"]: each["type"] for each in ask(app, name, {}, **params)["columns"]}
        zone = re.compile(r"DateTime\([^)]*\)")
        assert {n: zone.sub("DateTime", t) for n, t in found.items()} == template.types, name
