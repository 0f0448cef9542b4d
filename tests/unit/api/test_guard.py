import pytest

from octane_analytics.api import functions, querytree
from octane_analytics.api.guard import (
    EXPLAIN_AST,
    Findings,
    Limits,
    Rules,
    check_ast,
    check_tables,
    check_tree,
    located,
    pairs,
    unprobed,
)
from octane_analytics.errors import QueryError
from octane_analytics.schema import TableName
from tests.unit.api.calls import QUERY_TREE, RULES
from tests.unit.api.trees import ALLOWED, REFUSED


@pytest.mark.parametrize("sql", ALLOWED)
def test_one_select_is_allowed(sql: str) -> None:
    check_ast(ALLOWED[sql].splitlines(), RULES)


@pytest.mark.parametrize("sql", REFUSED)
def test_anything_else_is_refused(sql: str) -> None:
    tree, said = REFUSED[sql]
    with pytest.raises(QueryError) as raised:
        check_ast(tree.splitlines(), RULES)
    assert (raised.value.status, raised.value.code) == (403, "forbidden_statement")
    assert said in str(raised.value)


def test_no_tree_is_refused() -> None:
    with pytest.raises(QueryError, match="this is nothing"):
        check_ast([], RULES)
    with pytest.raises(QueryError, match="no node"):
        check_tree([], RULES)


def test_line_that_a_name_breaks_in_two_cannot_hide_a_node() -> None:
    tree = [
        "SelectWithUnionQuery (children 2)",
        " ExpressionList",
        "x",
        "    Set",
        " Identifier CSV",
    ]
    with pytest.raises(QueryError):
        check_ast(tree, RULES)


def tree_of(*from_clause: str, projection: tuple[str, ...] = ()) -> list[str]:
    projected = projection or (
        "CONSTANT id: 2, constant_value: UInt64_1, constant_value_type: UInt8",
    )
    return [
        "QUERY id: 0",
        "  PROJECTION",
        "    LIST id: 1, nodes: 1",
        *(f"      {line}" for line in projected),
        "  JOIN TREE",
        *(f"    {line}" for line in from_clause),
    ]


def test_select_without_a_table_leaves_nothing_to_look_up() -> None:
    assert check_tree(QUERY_TREE, RULES) == Findings()


@pytest.mark.parametrize(
    ("identifier", "names"),
    [
        ("identifier: events", set()),
        ("identifier: db.events", set()),
        ("alias: e, identifier: db.events, final: 1, sample_size: 1 / 10", set()),
        ("identifier: system.numbers", set()),
        ("identifier: some_cte", {"some_cte"}),
    ],
)
def test_table_is_allowed_or_to_be_looked_up(identifier: str, names: set[str]) -> None:
    assert check_tree(tree_of(f"IDENTIFIER id: 3, {identifier}"), RULES).names == names


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("IDENTIFIER id: 3, identifier: other.events", "table other.events"),
        ("IDENTIFIER id: 3, identifier: system.tables", "table system.tables"),
        ("IDENTIFIER id: 3, identifier: /etc/passwd", "plain"),
        ("IDENTIFIER id: 3, identifier: a.b.c", "plain"),
        ("IDENTIFIER id: 3, alias: a, identifier: db.events, identifier: x.y", "plain|comma"),
        ("IDENTIFIER id: 3, alias: a", "comma or a line break"),
        ("TABLE_FUNCTION id: 3, table_function_name: url", "table function url"),
        ("TABLE_FUNCTION id: 3, table_function_name: NUMBERS x", "with such a name"),
        ("TABLE id: 3, table_name: db.events", "TABLE is not allowed"),
        ("IDENTIFIER id: 4, identifier: events", "imitates"),
    ],
)
def test_other_table_is_refused(line: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        check_tree(tree_of(line), RULES)


def function(name: str, *arguments: str) -> tuple[str, ...]:
    return (
        f"FUNCTION id: 2, function_name: {name}, function_type: ordinary",
        "  ARGUMENTS",
        f"    LIST id: 3, nodes: {len(arguments)}",
        *(f"      {argument}" for argument in arguments),
    )


def text(value: str, number: int = 4) -> str:
    return f"CONSTANT id: {number}, constant_value: '{value}', constant_value_type: String"


def test_alias_behind_in_is_the_name_that_it_stands_for() -> None:
    called = function("in", "IDENTIFIER id: 4, identifier: x", "IDENTIFIER id: 5, identifier: e")
    tree = [
        *tree_of("IDENTIFIER id: 6, identifier: events", projection=called),
        "  WITH",
        "    LIST id: 7, nodes: 3",
        "      IDENTIFIER id: 8, alias: e, identifier: events",
        "      IDENTIFIER id: 9, alias: events, identifier: users",
        "      IDENTIFIER id: 10, alias: other, identifier: y",
    ]
    assert check_tree(tree, RULES).names == {"e", "users"}


@pytest.mark.parametrize("structure", ["a Int8", "e Enum8(\\'a\\' = 1)"])
@pytest.mark.parametrize("name", ["values", "null"])
def test_structure_of_names_and_types_is_allowed(name: str, structure: str) -> None:
    called = function(name, text(structure, 5))
    lines = [line.replace("id: 2", "id: 3").replace("id: 3, n", "id: 4, n") for line in called]
    lines[0] = f"TABLE_FUNCTION id: 3, table_function_name: {name}"
    check_tree(tree_of(*lines), RULES)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("values", text("a Int8 ALIAS hostName()", 5)),
        ("values", "IDENTIFIER id: 5, identifier: s"),
        ("values", "IDENTIFIER id: 5, alias: x, constant_value: 1, identifier: s"),
        ("values", "CONSTANT id: 5, alias: x, y, constant_value: 'a', constant_value_type: String"),
        ("values", "FUNCTION id: 5, function_name: concat, function_type: ordinary"),
        ("null", text("a", 5)),
        ("null", "IDENTIFIER id: 5, identifier: s"),
        ("null", "CONSTANT id: 5, constant_value: UInt64_1, constant_value_type: UInt8"),
    ],
)
def test_structure_that_may_hold_more_is_refused(name: str, first: str) -> None:
    lines = [
        f"TABLE_FUNCTION id: 3, table_function_name: {name}",
        "  ARGUMENTS",
        "    LIST id: 4, nodes: 1",
        f"      {first}",
    ]
    with pytest.raises(QueryError, match=r"structure|comma"):
        check_tree(tree_of(*lines), RULES)


def test_name_behind_in_is_a_tables_name() -> None:
    called = function("in", "IDENTIFIER id: 4, identifier: a", "IDENTIFIER id: 5, identifier: b")
    tree = tree_of("IDENTIFIER id: 6, identifier: events", projection=called)
    assert check_tree(tree, RULES).names == {"b"}


@pytest.mark.parametrize(
    ("called", "said"),
    [
        (function("file"), "function file"),
        (function("FILE"), "function FILE"),
        (function("sumIfSleep"), "function sumIfSleep"),
        (function("count, function_type: ordinary x"), "with such a name|not allowed"),
        (
            function("in", "IDENTIFIER id: 4, identifier: a", "IDENTIFIER id: 5, identifier: /b"),
            "plain name",
        ),
        (
            function(
                "arrayReduce",
                "CONSTANT id: 4, constant_value: 'aggThrow', constant_value_type: String",
            ),
            "aggregate function",
        ),
        (function("arrayReduce", "IDENTIFIER id: 4, identifier: f"), "aggregate function"),
        (function("arrayReduce", text("sum(file(x))")), "aggregate function"),
        (function("arrayReduce", text("sum((SELECT 1))")), "aggregate function"),
        (function("arrayReduce", text("groupConcat(\\'x\\')")), "aggregate function"),
        (function("lower, function_type: ordinary, function_name: in"), "with such a name"),
    ],
)
def test_function_that_is_not_listed_is_refused(called: tuple[str, ...], said: str) -> None:
    number = sum(" id: " in line for line in called) + 2
    tree = tree_of(f"IDENTIFIER id: {number}, identifier: events", projection=called)
    with pytest.raises(QueryError, match=said):
        check_tree(tree, RULES)


@pytest.mark.parametrize("section", ["SETTINGS max_threads=1", "SETTINGS"])
def test_settings_in_the_tree_are_refused(section: str) -> None:
    with pytest.raises(QueryError, match="SETTINGS"):
        check_tree([*QUERY_TREE, f"  {section}"], RULES)


@pytest.mark.parametrize(
    "lines",
    [
        ["QUERY id: 1"],
        ["QUERY id: 0", "  LIST id: 1, nodes: 1"],
        [
            "QUERY id: 0",
            "  LIST id: 1, nodes: 1",
            "    QUERY id: 2",
            "ARGUMENTS",
            "    QUERY id: 2",
        ],
        # A section that a name added, and that would tear the second argument from its list.
        [
            "LIST id: 0, nodes: 2",
            "  IDENTIFIER id: 1, identifier: a",
            "X id: 2, identifier: b",
            "  IDENTIFIER id: 3, identifier: c",
        ],
        ["QUERY id: 0", "QUERY id: 1"],
        [],
    ],
)
def test_forged_tree_is_seen(lines: list[str]) -> None:
    with pytest.raises(querytree.Forged):
        querytree.parse(lines)


def test_tables_that_exist_under_an_unknown_name_are_refused_unless_allowed() -> None:
    check_tables([("db", "events")], RULES)
    with pytest.raises(QueryError, match="table users is not allowed"):
        check_tables([("db", "users")], RULES)
    more = Rules(TableName("db", "events"), functions.load(), {("db", "users"), ("system", "*")})
    check_tables([("db", "users"), ("system", "tables")], more)


def test_names_are_looked_up_in_the_database_and_among_temporary_tables() -> None:
    assert pairs(Findings(frozenset({"a", "x.y"})), RULES) == ["db.a", ".a", "x.y"]


def test_functions_are_known_in_any_case_and_with_combinators() -> None:
    listed = functions.load(["mine"])
    for name in (
        "count",
        "COUNT",
        "uniqExactIf",
        "sumArrayOrDefault",
        "quantileTDigestIfMerge",
        "MINE",
    ):
        assert listed.allow(name), name
    for name in ("file", "sleep", "currentUser", "toStringIf", "dictGet", "", "mineIf"):
        assert not listed.allow(name), name


def test_position_is_told_as_in_the_statement() -> None:
    message = "Syntax error: failed at position 19 (1): 1. Expected end of query."
    told = "Syntax error: failed at position 7 (1): 1. Expected end of query."
    assert located(message, EXPLAIN_AST) == told


def test_probe_is_not_told() -> None:
    message = "Syntax error: x: In scope SELECT toString(normalizedQueryHash('a')), b."
    assert unprobed(message) == "Syntax error: x"


def test_limits_ask_for_one_row_more_and_only_for_reading() -> None:
    settings = Limits(seconds=2.5, result_rows=10, result_bytes=20, memory_bytes=30).settings("id")
    assert settings["readonly"] == 1
    assert settings["limit"] == 11
    assert settings["max_execution_time"] == 2.5
    assert settings["max_result_bytes"] == 20
    assert settings["max_memory_usage"] == 30
    assert settings["log_comment"] == "id"
