import pytest

from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.raw_sql import functions
from octane_analytics.api.raw_sql.validator import (
    EXPLAIN_AST,
    AccessRules,
    LookupNames,
    check_ast,
    check_functions,
    check_tables,
    check_tree,
    qualified_names,
    relocate,
)
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import QueryError
from tests.support.asgi_calls import QUERY_TREE, RULES
from tests.support.explain_trees import ALLOWED, FORBIDDEN


@pytest.mark.parametrize("sql", ALLOWED)
def test_one_select_is_allowed(sql: str) -> None:
    check_ast(ALLOWED[sql].splitlines(), RULES)


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_other_statement_is_forbidden(sql: str) -> None:
    tree, message = FORBIDDEN[sql]
    with pytest.raises(QueryError) as raised:
        check_ast(tree.splitlines(), RULES)
    assert (raised.value.status, raised.value.code) == (403, "forbidden_statement")
    assert message in str(raised.value)


def test_empty_tree_is_forbidden() -> None:
    with pytest.raises(QueryError, match="this is nothing"):
        check_ast([], RULES)
    with pytest.raises(QueryError, match="tree is empty"):
        check_tree([], RULES)


def test_name_with_line_break_cannot_hide_node() -> None:
    tree = [
        "SelectWithUnionQuery (children 2)",
        " ExpressionList",
        "x",
        "    Set",
        " Identifier CSV",
    ]
    with pytest.raises(QueryError):
        check_ast(tree, RULES)


@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [("events", True), ("db.events", True), ("users", False), ("other.events", False)],
)
def test_describe_needs_a_readable_table(name: str, is_allowed: bool) -> None:
    tree = [
        "DescribeQuery (children 1)",
        " TableExpression (children 1)",
        f"  TableIdentifier {name}",
    ]
    if is_allowed:
        assert check_ast(tree, RULES).is_description
    else:
        with pytest.raises(QueryError, match=f"unknown table {name}"):
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


def test_select_without_table_needs_no_lookup() -> None:
    assert check_tree(QUERY_TREE, RULES) == LookupNames()


@pytest.mark.parametrize(
    ("identifier", "names"),
    [
        ("identifier: events", set()),
        ("identifier: db.events", set()),
        ("alias: e, identifier: db.events, final: 1, sample_size: 1 / 10", set()),
        ("identifier: system.numbers", set()),
        ("identifier: part", {"part"}),
    ],
)
def test_table_is_allowed_or_looked_up(identifier: str, names: set[str]) -> None:
    tree = [
        "QUERY id: 0",
        "  WITH",
        "    LIST id: 1, nodes: 1",
        "      QUERY id: 2, is_subquery: 1, is_cte: 1, cte_name: part",
        "        PROJECTION",
        "          LIST id: 3, nodes: 1",
        "            CONSTANT id: 4, constant_value: UInt64_1, constant_value_type: UInt8",
        "        JOIN TREE",
        "          IDENTIFIER id: 5, identifier: system.one",
        "  JOIN TREE",
        f"    IDENTIFIER id: 6, {identifier}",
    ]
    assert check_tree(tree, RULES).tables == names


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("IDENTIFIER id: 3, identifier: other.events", "unknown table other.events"),
        ("IDENTIFIER id: 3, identifier: some_cte", "unknown table some_cte"),
        ("IDENTIFIER id: 3, identifier: system.tables", "unknown table system.tables"),
        ("IDENTIFIER id: 3, identifier: /etc/passwd", "plain"),
        ("IDENTIFIER id: 3, identifier: a.b.c", "plain"),
        ("IDENTIFIER id: 3, alias: a, identifier: db.events, identifier: x.y", "imitates"),
        ("IDENTIFIER id: 3, alias: a", "without 'identifier'"),
        ("TABLE_FUNCTION id: 3, table_function_name: url", "table function url"),
        ("TABLE_FUNCTION id: 3, table_function_name: NUMBERS x", "table function NUMBERS x"),
        ("TABLE id: 3, table_name: db.events", "TABLE is not allowed"),
        ("IDENTIFIER id: 4, identifier: events", "imitates"),
    ],
)
def test_other_table_is_forbidden(line: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
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


def test_alias_of_another_name_after_in_is_forbidden() -> None:
    called = function("in", "IDENTIFIER id: 4, identifier: x", "IDENTIFIER id: 5, identifier: e")
    tree = [
        "QUERY id: 0",
        "  WITH",
        "    LIST id: 1, nodes: 1",
        "      IDENTIFIER id: 2, alias: events, identifier: users",
        "  PROJECTION",
        "    LIST id: 3, nodes: 1",
        *(f"      {line}" for line in called),
        "  JOIN TREE",
        "    IDENTIFIER id: 8, identifier: system.one",
    ]
    for old, new in (("id: 5", "id: 7"), ("id: 4", "id: 6"), ("id: 3, n", "id: 5, n")):
        tree = [line.replace(old, new) for line in tree]
    tree[5] = "    LIST id: 3, nodes: 1"
    tree[6] = tree[6].replace("id: 2", "id: 4")
    with pytest.raises(QueryError, match="unknown table e"):
        check_tree(tree, RULES)
    with pytest.raises(QueryError, match="events is an alias of another name"):
        check_tree([line.replace("identifier: e", "identifier: events") for line in tree], RULES)


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
def test_structure_with_expressions_is_forbidden(name: str, first: str) -> None:
    lines = [
        f"TABLE_FUNCTION id: 3, table_function_name: {name}",
        "  ARGUMENTS",
        "    LIST id: 4, nodes: 1",
        f"      {first}",
    ]
    with pytest.raises(QueryError, match=r"structure|imitates"):
        check_tree(tree_of(*lines), RULES)


@pytest.mark.parametrize("name", ["b", "system.contributors", "db.b", "a.b.c"])
def test_name_after_in_is_validated_as_table(name: str) -> None:
    called = function(
        "in", "IDENTIFIER id: 4, identifier: a", f"IDENTIFIER id: 5, identifier: {name}"
    )
    tree = tree_of("IDENTIFIER id: 6, identifier: events", projection=called)
    with pytest.raises(QueryError, match="unknown table"):
        check_tree(tree, RULES)


def test_dot_in_quoted_name_separates_nothing() -> None:
    tree = tree_of("IDENTIFIER id: 3, identifier: db.events")
    assert check_tree(tree, RULES, ["x.y"]) == LookupNames()
    with pytest.raises(QueryError, match="unknown table"):
        check_tree(tree, RULES, ["db.events"])


@pytest.mark.parametrize(
    ("called", "message"),
    [
        (function("file"), "function file"),
        (function("FILE"), "function FILE"),
        (function("sumIfSleep"), "function sumIfSleep"),
        (function("count, function_type: ordinary x"), "imitates"),
        (
            function("in", "IDENTIFIER id: 4, identifier: a", "IDENTIFIER id: 5, identifier: /b"),
            "unknown table /b",
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
        (function("lower, function_type: ordinary, function_name: in"), "imitates"),
    ],
)
def test_function_that_is_not_listed_is_forbidden(called: tuple[str, ...], message: str) -> None:
    number = sum(" id: " in line for line in called) + 2
    tree = tree_of(f"IDENTIFIER id: {number}, identifier: events", projection=called)
    with pytest.raises(QueryError, match=message):
        check_tree(tree, RULES)


def test_existing_table_is_forbidden_unless_readable() -> None:
    check_tables([("db", "events")], RULES)
    with pytest.raises(QueryError, match="table users is not allowed"):
        check_tables([("db", "users")], RULES)
    more = AccessRules(
        TableName("db", "events"), functions.load(), {("db", "users"), ("system", "*")}
    )
    check_tables([("db", "users"), ("system", "tables")], more)


def test_names_are_qualified_with_database_and_temporary() -> None:
    assert qualified_names(LookupNames(frozenset({"b", "a"})), RULES) == [
        "db.a",
        ".a",
        "db.b",
        ".b",
    ]


def test_lambda_named_like_a_function_is_forbidden() -> None:
    check_functions([])
    with pytest.raises(QueryError, match="name of the function hostName"):
        check_functions(["hostName"])


def test_functions_match_any_case_and_combinators() -> None:
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


def test_position_is_relative_to_the_statement() -> None:
    message = "Syntax error: failed at position 19 (1): 1. Expected end of query."
    expected = "Syntax error: failed at position 7 (1): 1. Expected end of query."
    assert relocate(message, EXPLAIN_AST) == expected


def test_limits_request_additional_row_and_readonly() -> None:
    settings = ComplexityLimits(
        seconds=2.5, result_rows=10, result_bytes=20, memory_bytes=30
    ).settings("id")
    assert settings["readonly"] == 1
    assert settings["limit"] == 11
    assert settings["max_execution_time"] == 2.5
    assert settings["max_result_bytes"] == 20
    assert settings["max_memory_usage"] == 30
    assert settings["log_comment"] == "id"
