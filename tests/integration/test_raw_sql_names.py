"""Hostile names in raw SQL against the validation alone: forged facts and lines in names.

Covers all quoting styles and positions. RAW_SQL_NAMES_EXAMPLES=5000 runs more examples.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.api.raw_sql import query_tree
from octane_analytics.api.raw_sql.validator import EXPLAIN_TREE
from octane_analytics.clickhouse.client import ClickHouse
from tests.support.asgi_calls import query
from tests.support.raw_sql import CANARY, Target, app_without, target

EXAMPLES = int(os.environ.get("RAW_SQL_NAMES_EXAMPLES", "250"))
SECRET = "(SELECT max(secret) FROM vault.canary)"
STRUCTURE = "a String, b String ALIAS file(''{file}'')"
POSITIONS = {
    "table alias": "SELECT secret FROM vault.canary AS {name}",
    "table alias without AS": "SELECT secret FROM vault.canary {name}",
    "alias of a joined table": "SELECT r.secret FROM system.one AS l, vault.canary AS {name}",
    "column alias": "SELECT secret AS {name} FROM vault.canary",
    "alias of a scalar subquery": f"SELECT {SECRET} AS {{name}}",
    "alias of a derived table": "SELECT * FROM (SELECT secret FROM vault.canary) AS {name}",
    "part of WITH": "WITH {name} AS (SELECT secret FROM vault.canary) SELECT * FROM {name}",
    "alias in WITH": f"WITH {SECRET} AS {{name}} SELECT {{name}}",
    "argument of a lambda": f"SELECT arrayMap({{name}} -> {SECRET}, [1])",
    "alias of a lambda": f"WITH (x -> {SECRET}) AS {{name}} SELECT {{name}}(1)",
    "window": "SELECT any(secret) OVER {name} FROM vault.canary WINDOW {name} AS ()",
    "element of a type": "SELECT tuple(secret)::Tuple({name} String) FROM vault.canary",
    "type in a text": "SELECT CAST(tuple(secret), 'Tuple({text} String)') FROM vault.canary",
    "column": "SELECT secret, {name} FROM (SELECT secret, 1 AS {name} FROM vault.canary)",
    "qualified column": "SELECT secret FROM vault.canary AS {name} ORDER BY {name}.secret",
    "order": "SELECT secret, 1 AS {name} FROM vault.canary ORDER BY {name}",
    "name of a table": "SELECT secret FROM vault.{name}",
    "path in JSON": "SELECT secret, '{{}}'::JSON AS j, j.{name} FROM vault.canary",
    "replaced column": "SELECT * REPLACE (secret AS {name}) FROM vault.canary",
    "left out column": "SELECT * EXCEPT ({name}) FROM vault.canary",
    "pattern of columns": "SELECT COLUMNS('secret|{text}') FROM vault.canary",
    "left out pattern": "SELECT * EXCEPT('{text}') FROM vault.canary",
    "pattern at the end": "SELECT 1 FROM vault.canary ORDER BY COLUMNS('secret|{text}')",
    "array join": "SELECT secret, {name} FROM vault.canary ARRAY JOIN [1] AS {name}",
    "text as a table": "SELECT * FROM '{text}', vault.canary",
    "text as a value": "SELECT secret, '{text}' FROM vault.canary",
    "map": "SELECT secret, map('{text}', 1) FROM vault.canary",
    "aggregate function": f"SELECT arrayReduce('groupConcat({SECRET})' AS {{name}}, ['a', 'b'])",
    "structure": f"SELECT b FROM values('{STRUCTURE}' AS {{name}}, ('x'))",
    "structure by a function": f"SELECT b FROM values(concat('{STRUCTURE}', '') AS {{name}}, ('x'))",
    "IN": "SELECT 1 AS {name}, if(concat('canary', '7f3a91') IN vault.canary, 'leaked', '')",
}
_LEAKS_UNGUARDED = frozenset(POSITIONS) - {
    "alias of a joined table",
    "name of a table",
    "left out column",
    "left out pattern",
    "pattern at the end",
    "text as a table",
    "replaced column",
    "structure by a function",
    "path in JSON",
}
"""Positions where a harmless name makes a statement that leaks the canary without the validation."""
FACTS = [
    "",
    ", identifier: ai_analytics_events",
    ", identifier: system.one",
    ", constant_value: 'sum', constant_value_type: String",
    ", constant_value: 'a String', constant_value_type: String",
    ", constant_value: UInt64_1, constant_value_type: UInt8",
    ", function_name: tuple, function_type: ordinary",
    ", table_function_name: numbers",
    ", is_subquery: 1, is_cte: 1, cte_name: vault",
    " (children 0)",
    " (alias x)",
    ",",
    ":",
    " id: 1",
]
BREAKS = ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\xa0", "\0", ""]
LINES = [
    "Identifier foo",
    "Literal 'x'",
    "foo",
    "",
    "Set",
    "PROJECTION",
    "WITH",
    "JOIN TREE",
    "ARGUMENTS",
    "EXPRESSION",
    "QUERIES",
    "LIST id: {n}, nodes: 1",
    "IDENTIFIER id: {n}, identifier: system.one",
    "CONSTANT id: {n}, constant_value: 'sum', constant_value_type: String",
    "ARGUMENT id: {n}, name: x",
    "TableIdentifier ai_analytics_events",
    "Function count (children 1)",
]


def doubled(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, quote * 2)


def escaped(text: str, quote: str) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\v": "\\v", "\f": "\\f", "\0": "\\0", "\\": "\\\\"}
    return "".join(known.get(each, each) for each in text).replace(quote, f"\\{quote}")


def in_hexadecimal(text: str, quote: str) -> str:
    return "".join(
        each if each.isalnum() or ord(each) > 255 else f"\\x{ord(each):02x}" for each in text
    )


STYLES: Mapping[str, Callable[[str], str]] = {
    "double": lambda text: f'"{doubled(text, chr(34))}"',
    "double, escaped": lambda text: f'"{escaped(text, chr(34))}"',
    "double, hexadecimal": lambda text: f'"{in_hexadecimal(text, chr(34))}"',
    "backtick": lambda text: f"`{doubled(text, '`')}`",
    "backtick, escaped": lambda text: f"`{escaped(text, '`')}`",
    "backtick, hexadecimal": lambda text: f"`{in_hexadecimal(text, '`')}`",
    "typographic": lambda text: f"\u201c{text}\u201d",
    "bare": lambda text: text,
    "single": lambda text: f"'{escaped(text, chr(39))}'",
    "heredoc": lambda text: f"$q${text}$q$",
}
TEXT_STYLES = [doubled, escaped, in_hexadecimal]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("names")) as opened:
        with ClickHouse(opened.settings, client_name="tests") as connection:
            for statement in (
                "CREATE DATABASE vault",
                "CREATE TABLE vault.canary (secret String) ENGINE = MergeTree ORDER BY secret",
                "CREATE TABLE vault.`dot.ted` (secret String) ENGINE = MergeTree ORDER BY secret",
                f"INSERT INTO vault.canary SELECT '{CANARY}'",
                f"INSERT INTO vault.`dot.ted` SELECT '{CANARY}'",
            ):
                connection.execute(statement)
        yield opened


@pytest.fixture(scope="module")
def app(server: Target) -> Iterator[ASGIApp]:
    """The service with the validation alone: as the default user, without limits."""
    with app_without(server, "user", "limits", seconds=2.0) as opened:
        yield opened


@st.composite
def hostile_names(draw: st.DrawFn) -> str:
    parts = ["x", draw(st.sampled_from(FACTS))]
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from(LINES)).format(n=draw(st.integers(0, 12)))
        parts += [draw(st.sampled_from(BREAKS)), " " * draw(st.integers(0, 12)), line]
        parts.append(draw(st.sampled_from(FACTS)))
    return "".join(parts)


def has_leaked(answer: httpx.Response) -> bool:
    return CANARY in answer.text or (answer.status_code == 200 and "leaked" in answer.text)


def filled(server: Target, position: str, name: str, style: str, text_style: int = 1) -> str:
    text = TEXT_STYLES[text_style](name, "'")
    return POSITIONS[position].format(name=STYLES[style](name), text=text, **server.names)


@pytest.mark.parametrize("position", sorted(_LEAKS_UNGUARDED))
def test_position_leaks_without_the_validation(server: Target, position: str) -> None:
    sql = filled(server, position, "harmless", "backtick")
    with app_without(server, "user", "limits", "validation") as unguarded:
        answer = query(unguarded, sql)
    assert has_leaked(answer), answer.text


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("position", POSITIONS)
def test_forged_name_is_rejected_in_each_position(
    server: Target, app: ASGIApp, position: str, style: str
) -> None:
    for fact in FACTS[:7:2]:
        sql = filled(server, position, f"x{fact}\nIdentifier foo", style)
        answer = query(app, sql)
        assert answer.status_code in (400, 403), (sql, answer.text)
        assert not has_leaked(answer), sql


@pytest.mark.parametrize("position", POSITIONS)
def test_name_in_a_parameter_is_rejected(server: Target, app: ASGIApp, position: str) -> None:
    """A parameter as an alias is in no output of formatQuerySingleLine."""
    sql = POSITIONS[position].format(name="{name:Identifier}", text="x", **server.names)
    for name in ("harmless", *(f"x{fact}" for fact in FACTS[1:7])):
        answer = query(app, sql, name=name)
        assert answer.status_code in (400, 403), (sql, name, answer.text)
        assert not has_leaked(answer), sql


@pytest.mark.parametrize("statement", ["SELECT * FROM plain", f"SELECT '{CANARY}' IN plain"])
def test_parameter_forges_no_part_of_with(server: Target, app: ASGIApp, statement: str) -> None:
    """The embedded server reads the file of a table's name in its directory."""
    (server.directory / "clickhouse" / "plain").write_text(f"{CANARY}\n")
    for alias in ("{a:Identifier}", "{a /* b */ :\n Identifier}"):
        sql = f"WITH (SELECT 1) AS {alias} {statement}"
        answer = query(app, sql, a="x, is_cte: 1, cte_name: plain")
        assert answer.status_code == 403, answer.text


def test_uuid_of_a_table_is_rejected(server: Target, app: ASGIApp) -> None:
    found = server.select(
        "SELECT toString(uuid) FROM system.tables WHERE database = 'vault' AND name = 'canary'"
    )
    for text in (f"'{found[0][0]}'", f"$${found[0][0]}$$"):
        answer = query(app, f"SELECT * FROM ai_analytics_events UUID {text}")
        assert answer.status_code in (400, 403), answer.text
    assert query(app, f"SELECT '{found[0][0]}'::UUID AS uuid").status_code == 200


PATHS_BESIDE_IN = [
    'SELECT "{path}" IN (1)',
    'SELECT nullIn("{path}", (SELECT 1))',
    'WITH "{path}" AS a SELECT a IN (1)',
    'WITH "{path}" AS a, a AS b SELECT b NOT IN (SELECT 1)',
    'SELECT arrayMap(x -> "{path}" IN (x, 1), [1])',
    'SELECT 1 FROM (SELECT 1 AS "{path}") AS t, (SELECT "{path}" IN (1)) AS u',
]


@pytest.mark.parametrize("template", PATHS_BESIDE_IN)
def test_left_side_of_in_opens_no_path(server: Target, app: ASGIApp, template: str) -> None:
    before = server.state()
    for path in (f"http://127.0.0.1:{server.listener.port}/x", server.names["file"], "/etc/passwd"):
        answer = query(app, template.format(path=path))
        assert answer.status_code == 403, answer.text
    assert server.state() == before


def test_no_hostile_name_passes_the_validation(server: Target, app: ASGIApp) -> None:
    before = server.state()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(sorted(POSITIONS)),
        hostile_names() | st.text(max_size=20),
        st.sampled_from(sorted(STYLES)),
        st.integers(0, 2),
    )
    @example("table alias", "x, identifier: ai_analytics_events\nIdentifier foo", "double", 0)
    def holds(position: str, name: str, style: str, text_style: int) -> None:
        sql = filled(server, position, name, style, text_style)
        answer = query(app, sql)
        assert not has_leaked(answer), sql
        assert answer.status_code in (400, 403), (sql, answer.text)

    holds()
    assert server.state() == before


def test_accepted_name_equals_the_name_in_tree(server: Target, app: ASGIApp) -> None:
    """An accepted name is one fact in the tree, and the name of the column in the answer."""
    accepted = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.text(st.characters(codec="utf-8"), max_size=12)
        | st.text("ab ,:'\"`\\\n\u201c\u201d\u2028(){}", max_size=12),
        st.sampled_from(sorted(STYLES)),
    )
    @example("a, b", "double")
    @example("harmless name", "typographic")
    def holds(name: str, style: str) -> None:
        nonlocal accepted
        sql = f"SELECT 1 AS {STYLES[style](name)}, 2 AS last"
        answer = query(app, sql)
        if answer.status_code != 200:
            return
        accepted += 1
        shown = str(answer.json()["columns"][0]["name"])
        assert shown.isprintable(), sql
        with ClickHouse(server.settings, client_name="tests") as connection:
            lines = [str(row[0]) for row in connection.select(EXPLAIN_TREE + sql).rows]
        items = query_tree.parse(lines).list_of("PROJECTION")
        assert [item.facts.get("alias") for item in items] == [shown, "last"], sql

    holds()
    assert accepted > EXAMPLES / 20


HARMLESS = {
    "comma": 'SELECT 1 AS "a,b"',
    "spaces": "SELECT 1 AS `peak viewers (p95)`",
    "typographic quotes": "SELECT 1 AS \u201cpeak viewers\u201d",
    "unicode": "SELECT 1 AS `Zuschauer Höchststand`",
    "text with a line break": "SELECT 'a\nb, identifier: x' AS a, 'c: d\\n' AS b",
    "heredoc": "SELECT $x$a\nb, identifier: y$x$ AS a",
    "spaces of other kinds": "SELECT\u00a01\u2028AS\u3000a",
    "pattern": r"SELECT COLUMNS('^event_\\w+$') FROM ai_analytics_events",
    "left out pattern": "SELECT * EXCEPT('^prop') FROM ai_analytics_events",
    "nested comment": "SELECT 1 /* a /* b */ c */",
    "identifiers with a dot": "SELECT `a.b` FROM (SELECT 1 AS `a.b`)",
    "text in hexadecimal": "SELECT x'0a41', b'01000001'",
    "text that is not UTF-8": r"SELECT '\xff\xfe' AS a, x'fffe', b'11111111', 'x' LIKE '\xff%'",
    "texts that are equal in the answer": r"SELECT '\xff', '\xfe', ['\xff'], map('\xff', '\xfe')",
    "time zone beside text that is not UTF-8": r"SELECT toDateTime(0, 'UTC') AS t, '\xff' IN ('\xff')",
    "alias with a slash": 'SELECT 1 AS "GB/s"',
}


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_name_or_text_is_answered(app: ASGIApp, case: str) -> None:
    answer = query(app, HARMLESS[case])
    assert answer.status_code == 200, answer.text


def test_names_of_an_enum_are_unescaped(app: ASGIApp) -> None:
    names = {1: "a\n", 2: "b\\", 3: "c'd, e = f", 4: "g\t\r\0\b\f", 5: "\\n"}
    kind = ", ".join(f"'{escaped(name, chr(39))}' = {value}" for value, name in names.items())
    kind = kind.replace("\t", "\\t").replace("\r", "\\r").replace("\b", "\\b")
    text = f"'{doubled(f'Enum8({kind})', chr(39))}'"
    for value, name in names.items():
        answer = query(app, f"SELECT [CAST(toInt8({value}), {text})] AS a")
        assert answer.status_code == 200, answer.text
        assert answer.json()["rows"] == [{"a": [name]}]


TABLE_USES = ["SELECT 1 IN {name}", "SELECT in(1, {name})", "SELECT 1 FROM {name}"]
TABLE_SPELLINGS = ["{database}.`{table}`", "`{database}.{table}`", "a.{database}.`{table}`"]


@pytest.fixture
def without_list_of_tables() -> Iterator[None]:
    with mock.patch(
        "octane_analytics.api.raw_sql.validator.SELECT_TABLES", "SELECT '', '' LIMIT 0"
    ):
        yield


@pytest.mark.usefixtures("without_list_of_tables")
@pytest.mark.parametrize("first", range(3))
def test_in_reads_no_table_of_the_server(server: Target, app: ASGIApp, first: int) -> None:
    """Check all tables that store data, each with three of the nine pairs of a use and a spelling."""
    readable = {"one", "numbers", "numbers_mt", "zeros", "zeros_mt"}
    found = server.select("SELECT database, name FROM system.tables WHERE database != 'default'")
    assert len(found) > 100
    for index, (database, table) in enumerate(found):
        if database == "system" and table in readable:
            continue
        spelling = TABLE_SPELLINGS[(first + index) % 3]
        sql = TABLE_USES[first].format(name=spelling.format(database=database, table=table))
        answer = query(app, sql)
        assert answer.status_code in (400, 403), (sql, answer.text)


@pytest.mark.usefixtures("without_list_of_tables")
@pytest.mark.parametrize("spelling", TABLE_SPELLINGS)
@pytest.mark.parametrize("use", TABLE_USES)
def test_foreign_table_is_rejected_in_each_spelling(app: ASGIApp, use: str, spelling: str) -> None:
    for database, table in [("vault", "canary"), ("vault", "dot.ted"), ("system", "tables")]:
        sql = use.format(name=spelling.format(database=database, table=table))
        answer = query(app, sql)
        assert answer.status_code in (400, 403), (sql, answer.text)
