import pytest

from octane_analytics.api.guard import Limits, check, located
from octane_analytics.errors import QueryError
from tests.unit.api.trees import ALLOWED, REFUSED


@pytest.mark.parametrize("sql", ALLOWED)
def test_one_select_is_allowed(sql: str) -> None:
    check(ALLOWED[sql].splitlines())


@pytest.mark.parametrize("sql", REFUSED)
def test_anything_else_is_refused(sql: str) -> None:
    tree, said = REFUSED[sql]
    with pytest.raises(QueryError) as raised:
        check(tree.splitlines())
    assert (raised.value.status, raised.value.code) == (403, "forbidden_statement")
    assert said in str(raised.value)


def test_no_tree_is_refused() -> None:
    with pytest.raises(QueryError, match="this is nothing"):
        check([])


def test_line_that_a_name_breaks_in_two_cannot_hide_a_node() -> None:
    tree = [
        "SelectWithUnionQuery (children 2)",
        " ExpressionList",
        "x",
        "    Set",
        " Identifier CSV",
    ]
    with pytest.raises(QueryError):
        check(tree)


def test_position_is_told_as_in_the_statement() -> None:
    message = "Syntax error: failed at position 19 (1): 1. Expected end of query."
    assert located(message) == "Syntax error: failed at position 7 (1): 1. Expected end of query."


def test_limits_ask_for_one_row_more_and_only_for_reading() -> None:
    settings = Limits(seconds=2.5, result_rows=10, result_bytes=20, memory_bytes=30).settings("id")
    assert settings["readonly"] == 1
    assert settings["limit"] == 11
    assert settings["max_execution_time"] == 2.5
    assert settings["max_result_bytes"] == 20
    assert settings["max_memory_usage"] == 30
    assert settings["log_comment"] == "id"
