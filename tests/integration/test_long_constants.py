"""No statement searches a long constant for each row, wherever it computes and names the constant.

ClickHouse looks at the limits between blocks only: such a statement keeps a thread for minutes.
LONG_CONSTANTS_EXAMPLES=3000 runs more examples.
"""

import itertools
import os
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.api.raw_sql import computed_constants, functions, query_tree
from octane_analytics.api.raw_sql.validator import EXPLAIN_TREE
from tests.support.asgi_calls import query
from tests.support.raw_sql import Target, app_without, target
from tests.support.statements import Statements, statements

EXAMPLES = int(os.environ.get("LONG_CONSTANTS_EXAMPLES", "100"))
ARRAYS = [
    "range(100000)",
    "arrayMap(x -> x % 7, range(100000))",
    "(SELECT groupArray(number) FROM numbers(100000))",
    f"[{','.join(map(str, range(400)))}]",
    "arrayFold((acc, x) -> arrayConcat(acc, acc), range(17), [1])",
    "arrayWithConstant(100000, length(_table))",
    "mapKeys(mapFromArrays(range(100000), range(100000)))",
    "range(100000 + ignore(number))",
    "range(isConstant(number) + byteSize(number) * 100000)",
]
TEXTS = [
    "repeat('ab', 100000)",
    "arrayStringConcat(range(100000))",
    f"'{'a' * 2000}'",
    "concat('a', repeat('b', 100000))",
    "replaceAll(repeat('a', 1000), 'a', repeat('b', 1000))",
    "concat(repeat(_table, 1000), 'a')",
]
ARRAY_SEARCHES = [
    "indexOf({0}, number)",
    "has({0}, number)",
    "countEqual({0}, number)",
    "length(arrayIntersect({0}, [number]))",
    "arrayJaccardIndex({0}, [number])",
    "hasSubstr({0}, [number])",
    "arrayReduceInRanges('sum', [(number, 100000)], {0})",
    "mapFromArrays({0}, {0})[number]",
    "toString(number) IN arrayMap(x -> toString(x), {0})",
    "number IN {0}",
    "arrayMap(y -> indexOf({0}, y), range(number))",
]
TEXT_SEARCHES = [
    "position({0}, toString(number))",
    "countSubstrings({0}, toString(number))",
    "substringUTF8({0}, number, 1)",
    "JSONExtractInt({0}, toString(number))",
    "stringJaccardIndex({0}, toString(number))",
    "URLHash({0}, number)",
]
DISGUISES = [
    "{0}", "if(1, {0}, {0})", "identity({0})", "tupleElement(({0}, 1), 1)", "coalesce({0}, {0})",
    "transform(1, [1], [{0}], {0})", "multiIf(0, {0}, {0})",
]  # fmt: skip
PLACES = [
    "SELECT {search} FROM (SELECT number, '' AS _table FROM numbers(9))",
    "WITH {constant} AS a SELECT {named} FROM numbers(9)",
    "WITH {constant} AS b, b AS a SELECT {named} FROM numbers(9)",
    "WITH c AS (SELECT {constant} AS a, number FROM numbers(9)) SELECT {named} FROM c",
    "WITH c(a, number) AS (SELECT {constant}, number FROM numbers(9)) SELECT {named} FROM c",
    "SELECT {named} FROM (SELECT {constant} AS a, number FROM numbers(9))",
    "SELECT {named} FROM (SELECT {constant}, number FROM numbers(9)) AS t(a, number)",
    "SELECT {named} FROM (SELECT b AS a, number FROM (SELECT 1 AS n, {constant} AS b, number "
    "FROM numbers(9)))",
    "SELECT {named} FROM (SELECT * REPLACE ({constant} AS a) FROM (SELECT 1 AS a, number FROM "
    "numbers(9)))",
    "SELECT {named} FROM numbers(9) AS n CROSS JOIN (SELECT {constant} AS a) AS c",
    "SELECT {named} FROM (SELECT {constant} AS a, number FROM numbers(9) UNION ALL "
    "SELECT {constant}, number FROM numbers(9))",
    "SELECT {named} FROM view(SELECT {constant} AS a, number FROM numbers(9))",
    "SELECT number FROM numbers(9) WHERE notEmpty([{search}])",
    "SELECT arrayMap(number -> {search}, range(100000))",
    "WITH (x -> x) AS f SELECT {search}, f(1) FROM numbers(9)",
]
SHORT_CONSTANTS = [
    "SELECT 1 AS i, number FROM numbers(9)",
    "WITH 1 AS i SELECT i, number FROM numbers(9)",
    "SELECT i, number FROM (SELECT 1 AS i) AS l CROSS JOIN numbers(9) AS r",
    "SELECT * REPLACE (1 AS i) FROM (SELECT number AS i, number FROM numbers(9))",
]
LAYERS = [
    ("SELECT * FROM ({0})", None),
    ("SELECT * FROM ({0}) AS t", None),
    ("SELECT t.* FROM ({0}) AS t", None),
    ("SELECT COLUMNS('.') FROM ({0}) AS t", None),
    ("SELECT * EXCEPT ('zz') FROM ({0})", None),
    ("SELECT {name}, number FROM ({0}) AS t", None),
    ("SELECT t.{name} AS b, number FROM ({0}) AS t", "b"),
    ("SELECT {name} + 0 AS c, number FROM ({0})", "c"),
    ("SELECT * FROM ({0}) AS t(a, number)", "a"),
    ("SELECT * FROM ({0}) t(a, number)", "a"),
    ("WITH w AS ({0}) SELECT * FROM w", None),
    ("WITH w AS ({0}) SELECT * FROM w AS t(a, number)", "a"),
    ("WITH w(d, number) AS ({0}) SELECT * FROM w", "d"),
    ("SELECT * FROM view({0})", None),
    ("SELECT * FROM view({0}) AS t(e, number)", "e"),
    ("SELECT * APPLY (x -> x) FROM ({0})", None),
    ("SELECT {name}, number FROM ({0}) AS l CROSS JOIN (SELECT 1 AS z) AS r(y)", None),
    ("SELECT * FROM (({0}) UNION ALL ({0}))", None),
]
"""Queries around a query with a constant column and `number`, and the column's new name."""
SHORT_NAMES = [
    "{0}",
    "t.{0}",
    "COLUMNS('^{0}$')",
    "t.COLUMNS('^{0}$')",
    "* EXCEPT (number)",
    "(t.*).1",
]
ORDINARY = [
    "SELECT has(JSONExtract(properties, 'tags', 'Array(String)'), user_id) FROM {events}",
    "SELECT indexOf(groupArray(event_name), 'x'), has(['a', 'b'], any(user_id)) FROM {events}",
    "WITH groupArray(event_name) AS names SELECT names[length(names)], has(names, user_id) FROM "
    "{events} "
    "GROUP BY user_id",
    "SELECT position(properties, user_id), now() - INTERVAL 1 DAY FROM {events} WHERE timestamp "
    "> now() - 60",
    "SELECT x.tags[i] FROM (SELECT splitByChar(',', properties) AS tags, 1 + rand() % 3 AS i, user_id "
    "FROM {events} WHERE app_id = 'x') AS x WHERE has(x.tags, user_id)",
    "SELECT arrayMap(i -> a[i] - a[i - 1], arrayEnumerate(a)) "
    "FROM (SELECT arraySort(groupArray(timestamp)) AS a FROM {events} GROUP BY user_id)",
    "SELECT JSONExtractString(properties, key) FROM {events} ARRAY JOIN "
    "JSONExtractKeys(properties) AS key",
    "WITH 2 AS n SELECT splitByChar(':', properties)[n], count() / (SELECT count() FROM {events}) "
    "FROM {events} GROUP BY properties",
    "SELECT concat(leftPad(user_id, 9, '0'), repeat('-', 9)), bar(length(user_id), 0, 9, 20) "
    "FROM {events}",
    "SELECT indexOf(range(100000), 7), length(repeat('a', 100000)), user_id IN (SELECT 'u1') "
    "FROM {events}",
    "WITH c AS (SELECT user_id FROM {events}) SELECT user_id IN c, user_id IN ('a', 'b'), "
    "splitByChar(',', properties)[length(user_id)] FROM {events}",
    "SELECT substring(properties, position(properties, ':'), length(user_id)) FROM {events}",
    "SELECT a[i], t.a[t.i] FROM (SELECT splitByChar(',', properties) AS a, 1 AS i FROM {events}) AS t",
    "SELECT a[n] FROM (SELECT splitByChar(',', properties) AS a, count() AS n, 'x' AS kind "
    "FROM {events} GROUP BY properties) AS t WHERE kind = 'x'",
    "SELECT a[n] FROM (SELECT * FROM (SELECT splitByChar(',', properties) AS a, length(user_id) AS n, "
    "'x' AS kind FROM {events}) AS s) AS t",
]
COLUMNS = [
    "number", "toString(number)", "[number]", "map(number, number)", "toDateTime(number, 'UTC')",
    "(number, number)", "toNullable(number)", "toDate(number)", "[toString(number)]",
    "toLowCardinality(toString(number))",
]  # fmt: skip
LITERALS = ["1", "0", "'a'", "[1]", "'UTC'"]
CALLS = 12
"""Calls of each function that are tried with a column among the arguments."""
SHARES = 3
"""Parts of the functions, which run in parallel."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("constants")) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(server: Target) -> Iterator[ASGIApp]:
    with app_without(server, seconds=2.0) as opened:
        yield opened


@st.composite
def searches(draw: st.DrawFn) -> str:
    constants, calls = draw(st.sampled_from([(ARRAYS, ARRAY_SEARCHES), (TEXTS, TEXT_SEARCHES)]))
    constant = draw(st.sampled_from(constants))
    for disguise in draw(st.lists(st.sampled_from(DISGUISES), max_size=2)):
        constant = disguise.format(constant)
    call = draw(st.sampled_from(calls))
    place = draw(st.sampled_from(PLACES))
    return place.format(search=call.format(constant), named=call.format("a"), constant=constant)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sql=searches())
def test_search_of_computed_constant_is_refused(app: ASGIApp, sql: str) -> None:
    answer = query(app, sql)
    assert answer.status_code == 403, (sql[:300], answer.text[:300])


@st.composite
def renamed_constants(draw: st.DrawFn) -> tuple[str, str]:
    """Return a long array made of a short constant column, and the query that has the column."""
    source, name = draw(st.sampled_from(SHORT_CONSTANTS)), "i"
    for layer, renamed in draw(st.lists(st.sampled_from(LAYERS), max_size=3)):
        source, name = layer.format(source, name=name), renamed or name
    used = draw(st.sampled_from(SHORT_NAMES)).format(name)
    return f"range(toUInt32({used}) * 1000)", f"({source}) AS t"


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=renamed_constants())
@example(("range(COLUMNS('^i$') * 1000)", "(SELECT 1 AS i, number FROM numbers(9))"))
@example(
    (
        "range(a * 1000)",
        "(SELECT * FROM (SELECT 1 AS i, number FROM numbers(9))) AS t(a, number)",
    )
)
def test_array_of_renamed_constant_is_refused(
    app: ASGIApp, server: Target, case: tuple[str, str]
) -> None:
    array, source = case
    answer = query(app, f"SELECT indexOf({array}, number) FROM {source}")
    assert answer.status_code in (200, 400, 403), answer.text
    if answer.status_code == 200:
        assert server.select(f"SELECT isConstant({array}) FROM {source} LIMIT 1") == [(0,)], case


@pytest.mark.parametrize("sql", ORDINARY)
def test_ordinary_searches_are_answered(app: ASGIApp, server: Target, sql: str) -> None:
    answer = query(app, sql.replace("{events}", str(server.names["events"])))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("share", range(SHARES))
def test_results_taken_for_columns_are_not_constant(server: Target, share: int) -> None:
    """Otherwise a chain of such results could be a long constant that is taken for a column."""
    allowed = functions.load()
    found = server.select(
        "SELECT name FROM system.functions WHERE NOT is_aggregate AND alias_to = '' ORDER BY name"
    )
    names = [str(name) for (name,) in found if str(name).lower() in allowed.ordinary]
    constants, wrong = 0, []
    with statements(server.http_port) as connection:
        for name in names[share::SHARES]:
            for call in constant_calls(connection, name):
                constants += 1
                if is_taken_for_column(connection, call):
                    wrong.append(call)
    assert not wrong
    assert constants


def constant_calls(connection: Statements, name: str) -> Iterator[str]:
    """Yield calls with a column among their arguments whose result is constant all the same."""
    impossible: set[int] = set()
    for arguments in calls(random.Random(name)):
        if len(arguments) in impossible:
            continue
        call = f"`{name}`({', '.join(arguments)})"
        answer = connection.answer(f"SELECT isConstant({call}) FROM numbers(2)")
        if answer.is_wrong_count:
            impossible.add(len(arguments))
        elif answer.code == 0 and answer.lines[0] == "1":
            yield call


def calls(choose: random.Random) -> Iterator[Sequence[str]]:
    yield from ([column] for column in COLUMNS[:4])
    for count in (2, 3):
        every = list(itertools.product([*COLUMNS, *LITERALS], repeat=count))
        for arguments in choose.sample(every, CALLS // 2):
            if not set(arguments).isdisjoint(COLUMNS):
                yield arguments


def is_taken_for_column(connection: Statements, call: str) -> bool:
    """Return whether a search of the result, as an array, is allowed."""
    sql = f"SELECT indexOf([{call}], number) FROM numbers(2)"
    lines = connection.answer(f"{EXPLAIN_TREE}{sql}").lines
    aggregates = functions.load().allow_aggregate
    return computed_constants.objection(query_tree.parse(lines), aggregates) is None
