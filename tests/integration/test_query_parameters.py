"""Parameters, DESCRIBE and GET /schema against a real ClickHouse, as the query user."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from tests.support.api_fixtures import app_over
from tests.support.asgi_calls import call, query
from tests.support.raw_sql import CANARY, Target, app_without, target


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("parameters")) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(server: Target) -> Iterator[ASGIApp]:
    with app_without(server) as opened:
        yield opened


def test_parameters_are_bound(app: ASGIApp) -> None:
    sql = (
        "SELECT {text:String} AS text, {n:UInt8} AS n, {x:Float64} AS x, {yes:Bool} AS yes, "
        "{day:Date} AS day, {many:Array(String)} AS many, {deep:Array(Array(Int8))} AS deep, "
        "count() AS found FROM ai_analytics_events WHERE user_id IN {many:Array(String)} "
        "AND app_id = {app:String} LIMIT {n:UInt8}"
    )
    given = {
        "text": "it's {n:UInt8} \\n \n\t\0 -- ä",
        "n": 3,
        "x": 0.1,
        "yes": True,
        "day": "2026-02-02",
        "many": ["u0", "u1", "o'b\\"],
        "deep": [[1, -2], []],
    }
    answer = query(app, sql, app="openstream", **given)
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"] == [given | {"found": 2}]


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.text(st.characters(codec="utf-8")) | st.text("'\"`\\\n\0abNn{}:, "),
    st.lists(st.text("'\"`\\\n\0abNn{}:, ")),
)
def test_text_is_returned_unchanged(app: ASGIApp, text: str, many: list[str]) -> None:
    answer = query(app, "SELECT {a:String} AS a, {m:Array(String)} AS m", a=text, m=many)
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"] == [{"a": text, "m": many}]


@pytest.mark.parametrize(
    ("sql", "given", "status"),
    [
        ("SELECT {a:String}", {}, 400),
        ("SELECT {a:UInt8}", {"a": "x"}, 400),
        ("SELECT {a:Date}", {"a": "yesterday"}, 400),
        ("SELECT {a:String}", {"a": None}, 422),
        ("SELECT {a:String}", {"a": {"b": 1}}, 422),
        ("SELECT * FROM {a:Identifier}", {"a": "near_canary"}, 403),
        ("SELECT * FROM { a : Identifier }", {"a": "near_canary"}, 403),
        ("SELECT * FROM {db:Identifier}.{a:Identifier}", {"db": "far_place", "a": "canary"}, 403),
        ("SELECT 1 IN {a:Identifier}", {"a": "x\nIdentifier foo"}, 403),
        ("DESCRIBE TABLE {a:Identifier}", {"a": "near_canary"}, 403),
        ("SELECT {a:Identifier}(1)", {"a": "hostName"}, 400),
        ("SELECT arrayReduce({a:String}, [1])", {"a": "groupConcat(hostName())"}, 403),
        ("SELECT * FROM values({a:String}, 1)", {"a": "a String ALIAS hostName()"}, 403),
    ],
)
def test_invalid_value_is_rejected(
    app: ASGIApp, sql: str, given: dict[str, object], status: int
) -> None:
    answer = call(app, "POST", "/query", json={"sql": sql, "params": given})
    assert answer.status_code == status, answer.text
    assert CANARY not in answer.text


@pytest.mark.parametrize("params", [[], "a", 1])
def test_params_must_be_an_object(app: ASGIApp, params: object) -> None:
    answer = call(app, "POST", "/query", json={"sql": "SELECT 1", "params": params})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_body")


def test_describe_lists_columns(app: ASGIApp) -> None:
    answer = query(app, "DESCRIBE TABLE ai_analytics_events")
    assert answer.status_code == 200, answer.text
    assert [row["name"] for row in answer.json()["rows"]] == [
        "timestamp",
        "app_id",
        "event_name",
        "user_id",
        "properties",
    ]


def test_schema_lists_exactly_the_readable_tables(server: Target, app: ASGIApp) -> None:
    tables = call(app, "GET", "/schema").json()["tables"]
    assert [(each["database"], each["table"]) for each in tables] == [
        ("default", "ai_analytics_events")
    ]
    assert tables[0]["columns"][0] == {"name": "timestamp", "type": "DateTime", "comment": ""}
    readable = [("default", "near_canary"), ("far_place", "*")]
    with app_over(server.settings, readable=readable) as wider:
        tables = call(wider, "GET", "/schema").json()["tables"]
    assert [each["table"] for each in tables] == ["ai_analytics_events", "near_canary", "canary"]


def test_forbidden_and_missing_tables_are_unknown(app: ASGIApp) -> None:
    for name in ("nothing_here", "near_canary", "far_place.canary", "nowhere.nothing"):
        answer = query(app, f"SELECT * FROM {name}")
        message = answer.json()["error"]["message"]
        assert answer.status_code == 403
        assert (
            message == f"unknown table {name}: GET /schema lists the tables that raw SQL can read"
        )


def test_sample_without_key_suggests_an_alternative(app: ASGIApp) -> None:
    answer = query(app, "SELECT count() FROM ai_analytics_events SAMPLE 0.1")
    assert answer.status_code == 400
    assert "cityHash64(user_id) % 10 = 0" in answer.json()["error"]["message"]


def test_lambda_out_of_scope_suggests_a_form(app: ASGIApp) -> None:
    answer = query(app, "SELECT (WITH (x -> x) AS f SELECT f(1)), f(2)")
    assert answer.status_code == 403
    assert "WITH (x -> x * 2) AS f SELECT f(1)" in answer.json()["error"]["message"]
