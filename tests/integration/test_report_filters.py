"""Filters of reports against a real ClickHouse: values compared with Python, rollups, fixed filters."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import to_builtins
from starlette.types import ASGIApp

from octane_analytics.api.filters import Filter, as_text
from octane_analytics.api.reports.explain import EXPLAIN, plan_reads
from octane_analytics.api.reports.library import load
from octane_analytics.api.reports.parameters import bind
from octane_analytics.clickhouse import rollups
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.events.event import Row
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import NOW, call

START = int(time.time()) // 3600 * 3600 - 24 * 3600
RANGE = {"from": at(START - 3600), "to": at(START + 7200)}
VALUES: list[Any] = [
    "tv", "phone", "a'b\\", "x:y,z", "é", "", "5", "true", 5, 5.0, 1.5, -3, 2**60, True, False, None,
    [1], {"a": 1},
]  # fmt: skip
NAMES = ["device", "dev'ice", "a.b", "x:y", "app_id", "{device:String}", "\\", "absent"]


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings) -> Iterator[ASGIApp]:
    with app_over(clickhouse_settings) as opened:
        yield opened


def filtered(app: ASGIApp, template: str, *filters: Mapping[str, object], **params: object) -> Any:
    body = {"template": template, "params": RANGE | params, "filters": list(filters)}
    answer = call(app, "POST", "/report", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_of(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, separators=(",", ":"))


def matches(filter_: dict[str, Any], properties: dict[str, Any]) -> bool:
    value = properties.get(filter_["property"].removeprefix("properties."))
    op, wanted = filter_["op"], filter_["value"]
    if op == "exists":
        return (value is not None) is wanted
    if op in ("gt", "lt"):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (value > wanted if op == "gt" else value < wanted)
    items = wanted if isinstance(wanted, list) else [wanted]
    is_found = any(text_of(value) == text_of(item) for item in items)
    return is_found is (op in ("eq", "in"))


NAME = st.sampled_from(NAMES).map(lambda name: f"properties.{name}")
SCALAR = st.sampled_from([each for each in VALUES if isinstance(each, str | float) and each != ""])
FILTER = st.one_of(
    st.builds(
        lambda p, o, v: {"property": p, "op": o, "value": v},
        NAME, st.sampled_from(["eq", "ne"]), SCALAR,
    ),
    st.builds(
        lambda p, o, v: {"property": p, "op": o, "value": v},
        NAME, st.sampled_from(["in", "not_in"]), st.lists(SCALAR, min_size=1, max_size=4),
    ),
    st.builds(
        lambda p, o, v: {"property": p, "op": o, "value": v},
        NAME, st.sampled_from(["gt", "lt"]), st.sampled_from([0, 1.5, -3, 5]),
    ),
    st.builds(
        lambda p, v: {"property": p, "op": "exists", "value": v}, NAME, st.booleans()
    ),
)  # fmt: skip


def test_filters_select_the_events_python_selects(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    documents = [
        {name: value} for name in NAMES if name != "absent" for value in VALUES if name or value
    ] + [{}]
    insert(
        clickhouse_settings,
        [event(START + n, "e", **document) for n, document in enumerate(documents)],
    )

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(FILTER, min_size=1, max_size=3))
    def compare(filters: list[dict[str, Any]]) -> None:
        (row,) = filtered(app, "overview_stats", *filters)["rows"]
        expected = [each for each in documents if all(matches(f, each) for f in filters)]
        assert row["total_events"] == len(expected)

    compare()


TEXTS = (
    *("\\N", "a\tb", "a\nb", "\x00", "a\x00b", "'", "\\", "\\'", '"', "`", "{a:String}", "$1", "%"),
    *(
        "\u2028",
        "é",
        "e\u0301",
        "\U0001d518",
        "NULL",
        "--",
        "/*",
        "[]",
        " ",
        "  ",
        "\x7f",
        "\\u0041",
    ),
    *("ab'cd\\n", "properties.x", "filter_0_name", "A" * 200),
)


@pytest.mark.parametrize("way", ["body", "url"])
def test_names_and_values_are_bound_as_they_are(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, way: str
) -> None:
    pairs = [(text, TEXTS[-number]) for number, text in enumerate(TEXTS)]
    pairs += [("key", text) for text in TEXTS]
    documents = [json.dumps({name: v}, ensure_ascii=way == "url") for name, v in pairs]
    insert(
        clickhouse_settings, [event(START + n, "e", raw=text) for n, text in enumerate(documents)]
    )
    for name, value in pairs:
        filter_ = Filter(f"properties.{name}", "eq", value)
        if way == "body":
            found = filtered(app, "overview_stats", to_builtins(filter_))
        else:
            options = {"params": {**RANGE, "filter": as_text(filter_)}}
            found = call(app, "GET", "/report/overview_stats", **options).json()
        assert found["rows"][0]["total_events"] == 1, (name, value)


def test_most_and_longest_filters_are_answered(app: ASGIApp) -> None:
    required = {"steps": ["a", "b"], "property": "device", "content": "c1", "id": "s1"}
    numbers = [number + 0.5 for number in range(100)]
    texts = [f"{number:060d}" for number in range(100)]
    for name in ("views", "audience_retention", "qoe_scorecard", "funnel", "overview_stats"):
        template = load().templates[name]
        params = {each: required[each] for each in template.parameters if each in required}
        for items, count in ((numbers, 10), (texts, 9)):
            given = [
                {"property": f"p{number}", "op": "not_in", "value": items}
                for number in range(count)
            ]
            filtered(app, name, *given, **params)


def test_columns_and_content_are_filtered(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    insert(
        clickhouse_settings,
        [
            event(START, "video_start", "u1", content_id="c1"),
            event(START, "video_start", "u2", stream_id="c1"),
            event(START, "search", "u2", video_id="c2", app_id="fake"),
        ],
    )
    expected = {
        ("user_id", "u2"): 2,
        ("event_name", "search"): 1,
        ("content", "c1"): 2,
        ("content", "c2"): 1,
        ("app_id", "fake"): 0,
        ("properties.app_id", "fake"): 1,
    }
    for (name, value), count in expected.items():
        answer = filtered(app, "overview_stats", {"property": name, "value": value})
        assert answer["rows"][0]["total_events"] == count, name
        url = f"/report/overview_stats?from={RANGE['from']}&to={RANGE['to']}"
        (row,) = call(app, "GET", f"{url}&filter={name}:eq:{value}").json()["rows"]
        assert row["total_events"] == count, name


def test_every_report_runs_with_filters(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    required = {"steps": ["a", "b"], "property": "device", "content": "c1", "id": "s1"}
    for name, template in load().templates.items():
        if template.has_filters:
            params = {each: required[each] for each in template.parameters if each in required}
            for op, value in (("eq", "tv"), ("not_in", ["a", 1.5]), ("gt", 5), ("exists", False)):
                filter_ = {"property": "device", "op": op, "value": value}
                answer = filtered(app, name, filter_, **params)
                assert answer["filters"] == [filter_]


def reads(clickhouse: ClickHouse, template: str, filter_: Filter) -> set[str | None]:
    chosen = load().templates[template]
    bound = bind(chosen, RANGE, NOW, [filter_])
    values = {
        **bound.values,
        "database": clickhouse.table.database,
        "table": clickhouse.table.table,
    }
    plan = clickhouse.select(
        EXPLAIN + chosen.statement(bound.effective, bound.range, bound.conditions), values
    )
    return {read.rollup for read in plan_reads([line for (line,) in plan.rows]) if read.parts}


CASES = (
    ("top_content", "content", "c1", "content"),
    ("top_content", "device", "tv", None),
    ("search_analytics", "query", "q1", "search"),
    ("search_analytics", "user_id", "u1", None),
    ("events_over_time", "event_name", "search", "totals"),
    ("overview_stats", "app_id", "openstream", "users"),
    ("overview_stats", "event_name", "search", None),
    ("quality_of_experience", "device", "tv", "quality"),
    ("quality_of_experience", "country", "de", "quality"),
    ("quality_of_experience", "cdn", "x", None),
)


def test_filter_of_a_rollup_key_reads_rollup(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    with ClickHouse(clickhouse_settings, client_name="tests") as clickhouse:
        for each in rollups.ROLLUPS:
            clickhouse.execute(rollups.add(clickhouse.table, each))
        rows = [
            event(
                START + n % 3600,
                ("video_start", "search", "video_heartbeat")[n % 3],
                f"u{n % 50}",
                content_id=f"c{n % 7}",
                query=f"q{n % 5}",
                device=("tv", "phone", 5)[n % 4 % 3],
                country="de",
                cdn="x",
                watch_time=10,
            )
            for n in range(30_000)
        ]
        insert(clickhouse_settings, rows)
        for template, name, value, rollup in CASES:
            found = reads(clickhouse, template, Filter(name, "eq", value))
            assert (rollup in found) if rollup else (found == {None}), (template, name, found)
    # The numbers are those of the events, whatever is read.
    for template, name, value, _ in CASES:
        filter_ = {"property": name, "op": "eq", "value": value}
        by_events = {"property": "properties.watch_time", "op": "exists", "value": True}
        answer = filtered(app, template, filter_)
        assert answer["rows"]
        assert answer["rows"] == filtered(app, template, filter_, by_events)["rows"], template


OF_VIEWS: dict[str, dict[str, object]] = {
    "views": {"by": "device"},
    "qoe_scorecard": {"by": "device"},
    "errors": {},
    "concurrent_viewers": {"bucket_seconds": 60},
    "audience_retention": {"content": "c1"},
    "survival": {"by": "device"},
    "session_timeline": {"id": "s1"},
    "catalog": {},
}


def playback(tenant: str, number: int) -> list[Row]:
    """One session of one tenant; the sessions, users and contents of tenants are the same."""
    user, session, content = f"u{number % 5}", f"s{number % 5}", f"c{number % 2}"
    begin = START + 60 * number + (30 if tenant == "b" else 0)
    ids = {"tenant": tenant, "session_id": session}
    played = {**ids, "content_id": content, "duration": 100, "bitrate_kbps": 900}

    def row(after: int, name: str, **properties: object) -> Row:
        return event(begin + after, name, user, raw=json.dumps(properties))

    beats = range(1, 2 + number % 4)
    rows = [
        row(0, "session_start", device="tv" if tenant == "a" else "web", **ids),
        row(1, "search_click", content_id=content, **ids),
        row(2, "video_start", startup_ms=100 + number, position=0, **played),
        *(
            row(2 + 5 * beat, "video_heartbeat", watch_time=5, position=5 * beat, **played)
            for beat in beats
        ),
    ]
    if number % 3 == 0:
        rows.append(row(9, "video_error", code=f"E{tenant}", fatal=True, **played))
    return rows


def test_filtered_views_equal_those_of_one_tenant(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    own = [row for number in range(40) for row in playback("a", number)]
    others = [row for number in range(35) for row in playback("b", number)]
    insert(clickhouse_settings, own)
    alone = {name: filtered(app, name, **params)["rows"] for name, params in OF_VIEWS.items()}
    insert(clickhouse_settings, others)
    tenant = {"property": "tenant", "op": "eq", "value": "a"}
    for name, params in OF_VIEWS.items():
        assert alone[name], name
        assert filtered(app, name, tenant, **params)["rows"] == alone[name], name
        assert filtered(app, name, **params)["rows"] != alone[name], name
