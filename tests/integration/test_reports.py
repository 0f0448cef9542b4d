"""Comparison of every report with a recount of the same events in plain Python."""

import itertools
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.api.reports.library import load
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.rollup_expressions import EXPRESSIONS, READABLE_PROPERTIES
from octane_analytics.events.decode import decode
from octane_analytics.events.event import Row
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support import recount
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import report

END = int(time.time()) // 60 * 60 - 60
START = END - 6 * 3600
WHOLE = {"from": at(START), "to": at(END)}

NASTY_WATCH_TIMES = (
    '{"watch_time":10}',
    '{"watch_time":0.0005}',
    '{"watch_time":0.1,"watch_time":0.2}',
    '{"watch_time" : 1.5e1 }',
    '{"watch_time":86400}',
    '{"watch_time":86400.001}',
    '{"watch_time":-5}',
    '{"watch_time":-0.0}',
    '{"watch_time":0}',
    '{"watch_time":"12.5"}',
    '{"watch_time":""}',
    '{"watch_time":null}',
    '{"watch_time":true}',
    '{"watch_time":[5]}',
    '{"watch_time":{"watch_time":5}}',
    '{"nested":{"watch_time":5}}',
    '{"watch_time":1e308}',
    '{"watch_time":1e309}',
    '{"watch_time":1e-400}',
    '{"watch_time":18446744073709551615}',
    '{"watch_time":18446744073709551616}',
    '{"watch_time":123456789012345678901234567890}',
    '{"watch_time":NaN}',
    '{"watch_time":Infinity}',
    '{"watch_time":"NaN"}',
    '{"Watch_Time":5}',
    "{}",
)


def approximately(expected: list[dict[str, Any]]) -> list[Any]:
    """Approximate floats: rates that are rounded from exactly half may differ in the last digit."""
    return [
        {
            name: pytest.approx(
                value, rel=1e-9, abs=2e-3 if name.endswith(("_hour", "_view")) else 1e-6
            )
            if isinstance(value, float)
            else value
            for name, value in row.items()
        }
        for row in expected
    ]


def rows_of(app: ASGIApp, template: str, **params: object) -> list[dict[str, Any]]:
    answer = report(app, template, **params)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["row_count"] == len(body["rows"])
    declared = load().templates[template].columns
    assert [column["name"] for column in body["columns"]] == list(declared)
    rows: list[dict[str, Any]] = body["rows"]
    return rows


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings) -> Iterator[ASGIApp]:
    with app_over(clickhouse_settings) as opened:
        yield opened


def generated_events() -> list[Row]:
    until = datetime.fromtimestamp(END, UTC)
    return [decode(line) for line in generate(20_000, seed=7, until=until, span=timedelta(hours=6))]


def test_reports_match_recount_of_generated_events(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    rows = generated_events()
    insert(clickhouse_settings, rows)
    middle = START + 3 * 3600
    for start, end, app_id in (
        (START, END, None),
        (START, END, "octane-live"),
        (middle, middle + 1800, None),
    ):
        params: dict[str, object] = {"from": at(start), "to": at(end), "app_id": app_id}
        events = recount.select(rows, start, end, app_id)
        assert events
        assert rows_of(app, "overview_stats", **params) == approximately(
            recount.overview_stats(events)
        )
        assert rows_of(app, "search_analytics", **params) == approximately(
            recount.search_analytics(events)
        )
        assert rows_of(app, "top_content", **params, limit=500) == approximately(
            recount.top_content(events, 500)
        )
        assert rows_of(app, "events_over_time", **params, bucket_seconds=300) == (
            recount.events_over_time(events, start, end, 300)
        )
        for width in (300, 0):
            for name, expected in (
                ("playback_over_time", recount.playback_over_time(events, start, end, width)),
                ("searches_over_time", recount.searches_over_time(events, start, end, width)),
            ):
                found = rows_of(app, name, **params, bucket_seconds=width)
                assert found == approximately(expected), name
        for values in (10, 2):
            assert rows_of(app, "quality_breakdown", **params, values=values) == approximately(
                recount.quality_breakdown(events, start, end, values)
            )
        for by in ("network_type", "app_id", "device"):
            assert rows_of(app, "quality_of_experience", **params, by=by) == approximately(
                recount.quality_of_experience(events, by)
            )
            for width in (900, 0):
                found = rows_of(
                    app, "quality_over_time", **params, by=by, bucket_seconds=width, limit=2000
                )
                expected = recount.quality_over_time(events, start, end, width, by)
                assert found == approximately(expected)


def test_watch_time_counts_only_as_plausible_number(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    rows = [
        event(START + number, "video_heartbeat", f"u{number}", raw=text)
        for number, text in enumerate(NASTY_WATCH_TIMES)
    ]
    rows.append(event(START, "video_start", watch_time=1000))
    insert(clickhouse_settings, rows)
    (row,) = rows_of(app, "overview_stats", **WHOLE)
    # 10 + 0.0005 (rounds to even) + 0.1 (the first of two) + 15 + 86400
    assert row["total_watch_time"] == 86_425.1
    assert row["video_heartbeats"] == len(NASTY_WATCH_TIMES)
    assert row["avg_watch_time_per_viewer"] == pytest.approx(86_425.1 / len(NASTY_WATCH_TIMES))


def test_content_is_identified_by_first_present_id(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    second = START
    beat = "video_heartbeat"
    rows = [
        event(second, beat, content_id="a", stream_id="b", video_id="c", watch_time=3),
        event(second, beat, content_id="", stream_id="b", video_id="c", watch_time=2),
        event(second, beat, content_id=None, video_id="c", watch_time=1),
        event(second, beat, watch_time=100),
        event(second, "video_buffering", content_id="b", buffer_duration_ms=1000),
        event(second, "video_buffering", content_id="never watched", buffer_duration_ms=1000),
        event(second, "video_buffering", content_id="b", buffer_duration_ms="1000"),
        event(second, "video_end", content_id="a", watch_time=50),
    ]
    insert(clickhouse_settings, rows)
    result = rows_of(app, "top_content", **WHOLE)
    assert result == approximately(recount.top_content(recount.select(rows, START, END)))
    assert [row["content_id"] for row in result] == ["a", "b", "c", "never watched"]
    assert result[1]["buffer_ms_per_watch_minute"] == 30_000
    assert result[3]["buffer_ms_per_watch_minute"] is None


def test_queries_are_returned_unchanged(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    escaped = '{"query":"\\u732b\\u306e \\ud83d\\ude00 \\"q\\" \\\\ \\/ \\t","results_count":0}'
    typed = '猫の 😀 "q" \\ / \t'
    rows = [
        event(START, "search", raw=escaped),
        event(START, "search", "u2", raw=f'{{"query":"{"猫の 😀"}","results_count":0.0}}'),
        event(START, "search", query="'; DROP TABLE x --", results_count="0"),
        event(START, "search", query="Case", results_count=False),
        event(START, "search", query="case", results_count=None),
        event(START, "search", query=""),
        event(START, "search", raw='{"query":"\\ud800"}'),
        event(START, "search"),
        event(START, "search_click", query="clicked only"),
        event(START, "search_click", raw=escaped),
        event(START, "search_click", raw=escaped),
    ]
    insert(clickhouse_settings, rows)
    result = rows_of(app, "search_analytics", **WHOLE)
    by_query = {row["query"]: row for row in result}
    assert set(by_query) == {
        typed, "猫の 😀", "'; DROP TABLE x --", "Case", "case", "clicked only",
    }  # fmt: skip
    assert by_query[typed] == {
        "query": typed,
        "searches": 1,
        "unique_users": 1,
        "zero_result_searches": 1,
        "clicks": 2,
        "click_through_rate": 2.0,
    }
    assert by_query["clicked only"]["click_through_rate"] is None
    zero = {query for query, row in by_query.items() if row["zero_result_searches"]}
    assert zero == {typed, "猫の 😀"}
    (overview,) = rows_of(app, "overview_stats", **WHOLE)
    assert overview["searches"] == 8


def test_ties_are_ordered_and_truncation_is_marked(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    names = ["é", "b", "a", "Z", "ab"]
    rows = [event(START, "search", query=name) for name in names]
    rows += [event(START, "video_heartbeat", content_id=name, watch_time=1) for name in names]
    insert(clickhouse_settings, rows)
    expected = ["Z", "a", "ab", "b", "é"]
    result = rows_of(app, "search_analytics", **WHOLE)
    assert [row["query"] for row in result] == expected
    for limit, is_truncated in ((3, True), (5, False)):
        answer = report(app, "top_content", **WHOLE, limit=limit).json()
        assert [row["content_id"] for row in answer["rows"]] == expected[:limit]
        assert answer["truncated"] is is_truncated


def test_range_includes_start_and_excludes_end(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    seconds = (START - 1, START, END - 1, END)
    insert(clickhouse_settings, [event(second, "e") for second in seconds])
    (row,) = rows_of(app, "overview_stats", **WHOLE)
    assert (row["total_events"], row["first_event"], row["last_event"]) == (
        2,
        at(START),
        at(END - 1),
    )


def test_default_range_is_the_last_day(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    now = int(time.time())
    seconds = (now, now - 86_400 + 60, now - 86_400 - 60, now + 3600)
    insert(clickhouse_settings, [event(second, "e") for second in seconds])
    (row,) = rows_of(app, "overview_stats")
    assert row["total_events"] == 2


def test_empty_range_has_zeros_and_nulls(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    assert rows_of(app, "overview_stats", **WHOLE) == recount.overview_stats([])
    for template in ("search_analytics", "top_content", "quality_of_experience"):
        assert rows_of(app, template, **WHOLE) == []
    buckets = rows_of(app, "events_over_time", **WHOLE, bucket_seconds=3600)
    assert buckets == recount.events_over_time([], START, END, 3600)
    days = rows_of(app, "active_users", **WHOLE)
    assert days == recount.active_users([], START, END)


@pytest.mark.parametrize(
    "until", ["1970-01-01T00:00:01Z", "1970-01-01T02:46:39Z", "2106-02-07T06:28:15Z"]
)
def test_range_may_span_all_representable_times(app: ASGIApp, until: str) -> None:
    (row,) = rows_of(app, "overview_stats", **{"from": "1970-01-01T00:00:00Z", "to": until})
    assert row["total_events"] == 0


@pytest.mark.parametrize(
    ("template", "more"), [("events_over_time", {}), ("property_percentiles", {"property": "n"})]
)
def test_page_of_millions_of_buckets_is_fast(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, template: str, more: dict[str, object]
) -> None:
    """Computing all buckets would exceed the timeout."""
    insert(clickhouse_settings, [event(END - 60 * number, "e", n=1) for number in range(3)])
    params = {"from": "1970-01-01T00:00:00Z", "to": "2106-02-07T06:28:15Z", "bucket_seconds": 60}
    result = rows_of(app, template, **params, **more, limit=2, offset=999_999)
    assert [row["bucket"] for row in result] == [at(60 * number) for number in (999_999, 1_000_000)]
    assert [row["events"] for row in result] == [0, 0]


def test_events_over_time_filters_by_event_name(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    rows = [event(START + 60 * number, "ab"[number % 2], f"u{number}") for number in range(30)]
    insert(clickhouse_settings, rows)
    params = {**WHOLE, "bucket_seconds": 60, "event_name": "a"}
    result = rows_of(app, "events_over_time", **params)
    events = recount.select(rows, START, END)
    assert result == recount.events_over_time(events, START, END, 60, "a")
    assert rows_of(app, "events_over_time", **params, limit=5) == result[:5]


def test_active_users_count_preceding_days(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    midnight = END // 86_400 * 86_400
    rows = [
        event(midnight - days * 86_400 + second, "e", f"u{user}")
        for days, second, user in (
            (-1, 0, 99), (0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 86_399, 3), (3, 5, 4), (6, 5, 5),
            (7, 5, 6), (29, 5, 7), (30, 5, 8), (36, 5, 9), (45, 5, 10),
        )
    ]  # fmt: skip
    insert(clickhouse_settings, rows)
    for start, end in (
        (midnight, midnight + 86_400),
        (midnight - 8 * 86_400 + 4000, midnight + 1),
        (midnight - 3 * 86_400, midnight),
    ):
        result = rows_of(app, "active_users", **{"from": at(start), "to": at(end)})
        assert result == recount.active_users(rows, start, end)


def test_answer_is_truncated_at_the_service_limit(clickhouse_settings: ClickHouseSettings) -> None:
    with app_over(clickhouse_settings) as app:
        params = {"from": at(END - 86_400 * 3), "to": at(END), "bucket_seconds": 60}
        body = report(app, "events_over_time", **params).json()
    assert (body["row_count"], body["truncated"]) == (2000, True)


BEYOND_A_DOUBLE = (
    "1e400",
    "-1.8e309",
    "1E+99999999999999999999",
    "1.7976931348623159e308",
    "9" * 400 + ".5",
    '[1,{"y" : 1e309},"z"]',
    '"1e400 \\" \\\\",  "more" : 2e999 ',
    "1e-400",
    "123456789012345678901234567890",
)
REPORTS_OF_PROPERTIES: dict[str, dict[str, object]] = {
    "overview_stats": {},
    "playback_over_time": {"bucket_seconds": 900},
    "property_percentiles": {"property": "startup_ms"},
    "quality_of_experience": {"by": "network_type"},
    "quality_over_time": {"by": "network_type", "bucket_seconds": 900},
    "quality_breakdown": {},
    "search_analytics": {},
    "searches_over_time": {"bucket_seconds": 900},
    "top_content": {"limit": 500},
    "top_values": {"property": "device"},
    "views": {"limit": 500},
    "qoe_scorecard": {"by": "device"},
    "concurrent_viewers": {},
    "audience_retention": {"content": "c-00001"},
    "survival": {"by": "device"},
    "errors": {},
}
REPORTS_THAT_SHOW_ALL_PROPERTIES = {"catalog", "session_timeline"}


def with_number(row: Row, number: str, app_id: str) -> Row:
    """Return the event with one more property, before or after its others."""
    inner = row.properties.decode()[1:-1]
    beyond = f'"beyond":{number}'
    parts = [beyond, inner] if row.timestamp % 2 else [inner, beyond]
    text = "{" + ",".join(filter(None, parts)) + "}"
    whole = (
        f'{{"app_id":"{app_id}","event_name":"{row.event_name}","user_id":"{row.user_id}",'
        f'"timestamp":"{at(row.timestamp)}","properties":{text}}}'
    )
    return decode(whole.encode())


def test_number_beyond_double_hides_no_other_property(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    until = datetime.fromtimestamp(END, UTC)
    lines = generate(3_000, seed=9, until=until, span=timedelta(hours=5))
    plain = [decode(line)._replace(app_id="plain") for line in lines]
    numbers = itertools.cycle(BEYOND_A_DOUBLE)
    insert(clickhouse_settings, plain)
    insert(clickhouse_settings, [with_number(row, next(numbers), "beyond") for row in plain])
    for name, params in REPORTS_OF_PROPERTIES.items():
        expected = rows_of(app, name, **WHOLE, app_id="plain", **params)
        assert expected
        assert rows_of(app, name, **WHOLE, app_id="beyond", **params) == approximately(expected), (
            name
        )


def test_reports_read_properties_through_the_placeholder() -> None:
    for name, template in load().templates.items():
        sql = template.sql
        # Compared with the events by other tests.
        for expression in sorted(EXPRESSIONS.values(), key=len, reverse=True):
            sql = sql.replace(expression, "expression")
        reads = re.search(
            r"\bJSON\w*\(\s*+(?!readable\b)(?!properties\), properties, array)",
            sql.replace(READABLE_PROPERTIES, "readable"),
        )
        assert reads is None, f"{name}: {reads}"
    reading = {name for name, template in load().templates.items() if "JSON" in template.sql}
    assert reading == set(REPORTS_OF_PROPERTIES) | REPORTS_THAT_SHOW_ALL_PROPERTIES


def test_value_beyond_double_counts_as_null(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    texts = ['{"x":1e400,"y":1}', '{"x":5,"y":-1e400}', '{"x":"1e400"}']
    insert(clickhouse_settings, [event(START + 1, "e", raw=text) for text in texts])
    result = rows_of(app, "top_values", **WHOLE, property="x")
    assert [row["value"] for row in result] == ["1e400", "5"]
    buckets = rows_of(app, "property_percentiles", **WHOLE, property="y", bucket_seconds=86400)
    assert [row["maximum"] for row in buckets if row["events"]] == [1.0]


_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
_RAW_NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,4})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,5})?", fullmatch=True
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.text(max_size=20), _RAW_NUMBERS, _SCALARS), min_size=1, max_size=40))
def test_properties_beside_any_number_are_read(
    clickhouse_settings: ClickHouseSettings, drawn: list[tuple[str, str, object]]
) -> None:
    """Compare the properties beside the number with those that Python's json reads."""
    texts = [
        f'{{"s": {json.dumps(text)}, "n":{number}, "v":{json.dumps(value, ensure_ascii=False)}}}'
        for text, number, value in drawn
        if "\0" not in text
    ]
    texts.append("{}")
    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        sink.execute(f"TRUNCATE TABLE {sink.table}")
    insert(
        clickhouse_settings,
        [event(START + n, "e", raw=text) for n, text in enumerate(texts)],
    )
    sql = READABLE_PROPERTIES
    with ClickHouse(clickhouse_settings, client_name="tests") as reader:
        rows = reader.select(
            f"SELECT isValidJSON({sql}), JSONExtractString({sql}, 's') "
            f"FROM {reader.table} ORDER BY timestamp"
        ).rows
    assert [tuple(row) for row in rows] == [(1, json.loads(text).get("s", "")) for text in texts]
