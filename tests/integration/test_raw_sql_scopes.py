"""Names that a statement defines itself, if the server also has a table or function of that name.

Runs against the validation alone, without the queries that would reject such names anyway. The
statements are random nestings of SQL scopes. RAW_SQL_SCOPES_EXAMPLES=5000 runs more examples.
"""

import os
from collections.abc import Iterator
from unittest import mock

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from tests.support.asgi_calls import query
from tests.support.raw_sql import CANARY, Target, app_without, target

EXAMPLES = int(os.environ.get("RAW_SQL_SCOPES_EXAMPLES", "400"))
TABLE = "near_canary"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("scopes")) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(server: Target) -> Iterator[ASGIApp]:
    with (
        app_without(server, "user", "limits", seconds=2.0) as opened,
        mock.patch("octane_analytics.api.raw_sql.validator.SELECT_TABLES", "SELECT '', '' LIMIT 0"),
        mock.patch("octane_analytics.api.raw_sql.validator.SELECT_FUNCTIONS", "SELECT '' LIMIT 0"),
    ):
        yield opened


def is_in(name: str) -> str:
    return f"if(concat('canary', '7f3a91') IN {name}, 'leaked', '')"


@pytest.fixture(scope="module")
def host(server: Target) -> str:
    return str(server.select("SELECT hostName()")[0][0])


def has_leaked(answer: httpx.Response, host: str) -> bool:
    if answer.status_code != 200:
        return False  # an error quotes the statement, with its constants folded
    values = str([list(row.values()) for row in answer.json()["rows"]])
    return CANARY in values or "leaked" in values or f"@{host}@" in values


names = st.sampled_from([TABLE, TABLE, "a", "ai_analytics_events"])
"""Few, so that they collide."""
ITEMS = [
    "{one} AS ({select})",
    "{one} AS (SELECT 'q' AS secret)",
    "{one} AS (SELECT * FROM {two})",
    "['q'] AS {one}",
    "{two} AS {one}",
    "[{expression}] AS {one}",
    "(x -> {expression}) AS hostName",
]
EXPRESSIONS = [
    "({expression} AS {one})",
    "[{expression}] AS {one}",
    "{two} AS {one}",
    "arrayMap({one} -> {expression}, [1])",
    "arrayMap(x -> (['q'] AS {one}), [1])",
    "({select})",
    "1 IN ({select})",
    "concat('@', hostName(1), '@')",
    "tuple({expression}, ['q'] AS {one})",
    "count() OVER (ORDER BY {expression})",
]
SOURCES = [
    "system.one",
    "{one}",
    "{one} AS {two}",
    "({select})",
    "(SELECT 'q' AS z, ['q'] AS {one})",
    "(SELECT 'q' AS z, ['q'] AS {one}) AS t(c, d)",
    "({select}) AS {one}",
    "view({select})",
    "view(SELECT {expression} AS z) AS v",
    "view(SELECT * FROM {one}) AS v",
    "system.one AS l JOIN system.one AS r ON toString({expression}) != 'x' "
    "JOIN ({select}) AS {one} ON 1",
    "system.one ARRAY JOIN [{expression}] AS {one}",
]


@st.composite
def expressions(draw: st.DrawFn, depth: int) -> str:
    if not depth or draw(st.booleans()):
        leaf = draw(st.sampled_from(["'q'", "{in}", "{in}", "concat('@', hostName(), '@')"]))
        return leaf.replace("{in}", is_in(draw(names)))
    return draw(filled(st.sampled_from(EXPRESSIONS), depth - 1))


@st.composite
def selects(draw: st.DrawFn, depth: int) -> str:
    items = draw(st.lists(filled(st.sampled_from(ITEMS), depth - 1), max_size=2)) if depth else []
    head = f"WITH {', '.join(items)} " if items else ""
    shown = draw(st.lists(expressions(max(depth - 1, 0)), min_size=1, max_size=2))
    if items and draw(st.integers(0, 9)) == 9:
        head = head.replace("WITH", "WITH RECURSIVE")
    text = f"{head}SELECT {', '.join(shown)}"
    if depth and draw(st.booleans()):
        shown = draw(st.sampled_from([["*"], shown]))
        source = draw(filled(st.sampled_from(SOURCES), depth - 1))
        text = f"{head}SELECT {', '.join(shown)} FROM {source}"
    if depth and draw(st.integers(0, 9)) == 9:
        text += f" UNION ALL {draw(selects(depth - 1))}"
    return text


@st.composite
def filled(draw: st.DrawFn, templates: st.SearchStrategy[str], depth: int) -> str:
    """Return a template whose placeholders are replaced by names and by less deep parts."""
    text = draw(templates)
    placeholders: dict[str, st.SearchStrategy[str]] = {
        "{one}": names,
        "{two}": names,
        "{expression}": expressions(max(depth, 0)),
        "{select}": selects(max(depth, 0)),
    }
    for placeholder, strategy in placeholders.items():
        while placeholder in text:
            text = text.replace(placeholder, draw(strategy), 1)
    return text


statements = selects(3)


PITFALLS = [
    "WITH near_canary AS (SELECT * FROM near_canary) SELECT * FROM near_canary",
    "WITH RECURSIVE near_canary AS (SELECT * FROM near_canary) SELECT * FROM near_canary",
    "WITH a AS (SELECT * FROM near_canary), near_canary AS (SELECT * FROM a) "
    "SELECT * FROM near_canary",
    "WITH near_canary AS (SELECT 'q') SELECT * FROM view(SELECT * FROM near_canary)",
    f"WITH ['q'] AS near_canary SELECT * FROM view(SELECT {is_in('near_canary')})",
    f"SELECT {is_in('near_canary')} AS near_canary",
    f"SELECT {is_in('near_canary')} AS a, a AS near_canary",
    f"WITH near_canary AS near_canary SELECT {is_in('near_canary')}",
    f"WITH near_canary AS ai_analytics_events SELECT {is_in('ai_analytics_events')}",
    f"WITH t AS (SELECT 'q'), near_canary AS t SELECT {is_in('t')}",
    f"SELECT arrayMap(x -> ('a' AS near_canary), [1]), {is_in('near_canary')}",
    f"SELECT 1, {is_in('near_canary')} FROM (SELECT 1 AS `near_canary.x`)",
    f"SELECT {is_in('near_canary')} FROM (SELECT 1, ['x'] AS near_canary) AS t(a, b)",
    f"SELECT 'leaked' FROM numbers(2) AS l JOIN numbers(2) AS r ON {is_in('near_canary')} != '' "
    "JOIN numbers(2) AS near_canary ON 1",
    "SELECT 'q' UNION ALL (WITH ['q'] AS near_canary SELECT 'q') UNION ALL "
    f"SELECT {is_in('near_canary')}",
    f"SELECT * APPLY(x -> (['q'] AS near_canary)), {is_in('near_canary')} FROM numbers(1)",
    "WITH (x -> 1) AS hostName SELECT * FROM view(SELECT concat('@', hostName(), '@') AS h)",
    "SELECT (WITH (x -> 'q') AS hostName SELECT 'q'), concat('@', hostName(), '@')",
    "SELECT 'q' AS hostName, concat('@', hostName(), '@')",
]


@pytest.mark.parametrize("sql", PITFALLS)
def test_pitfall_leaks_only_without_the_validation(
    server: Target, app: ASGIApp, host: str, sql: str
) -> None:
    with app_without(server, "user", "limits", "validation") as unguarded:
        assert has_leaked(query(unguarded, sql), host), (
            "the server now resolves this name differently"
        )
    answer = query(app, sql)
    assert answer.status_code == 403, answer.text
    assert not has_leaked(answer, host)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT 1 AS x), b AS (SELECT * FROM a) SELECT * FROM b AS c",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a UNION ALL SELECT * FROM a",
        "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a WHERE x < 3) SELECT * FROM a",
        "WITH a AS (SELECT 1) SELECT 1 IN a, (SELECT 1 IN a), 1 IN (SELECT * FROM a)",
        "WITH [1] AS a SELECT 1 IN a, (SELECT 1 IN a), arrayMap(x -> x IN a, [1])",
        "SELECT [1] AS a, 1 IN a",
        "SELECT arrayMap(a -> 1 IN a, [[1]])",
        "SELECT n FROM (SELECT 1 AS n, [1, 2] AS a) WHERE n IN a",
        "WITH (SELECT groupArray(number) FROM numbers(3)) AS a SELECT 1 IN a",
        "WITH (x -> x * 2) AS f SELECT f(2), (SELECT f(3)), arrayMap(y -> f(y), [1])",
        "WITH (x -> x * 2) AS double, double(4) AS d SELECT d",
        "WITH (x -> x * 2) AS double, a AS (SELECT double(4) AS d) SELECT d FROM a",
    ],
)
def test_name_in_scope_is_answered(app: ASGIApp, sql: str) -> None:
    answer = query(app, sql)
    assert answer.status_code == 200, answer.text


def test_nested_scopes_read_no_table_or_function(server: Target, app: ASGIApp, host: str) -> None:
    accepted = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(statements)
    @example(PITFALLS[0])
    def holds(sql: str) -> None:
        nonlocal accepted
        answer = query(app, sql)
        assert not has_leaked(answer, host), sql
        assert answer.status_code != 500, sql
        accepted += answer.status_code == 200

    holds()
    assert accepted > EXAMPLES / 50
