import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.api.raw_sql import query_tree, syntax_tree
from tests.support.asgi_calls import QUERY_TREE, SELECT_TREE

JOINED = (
    "QUERY id: 0, is_distinct: 1",
    "  PROJECTION",
    "    LIST id: 1, nodes: 2",
    "      MATCHER id: 2, matcher_type: COLUMNS_LIST, column_identifiers: a, b",
    "      LAMBDA id: 3, alias: double",
    "        ARGUMENTS id: 4",
    "          ARGUMENT id: 0, name: x",
    "        EXPRESSION ",
    "          IDENTIFIER id: 5, identifier: x",
    "  JOIN TREE",
    "    JOIN id: 6, strictness: ALL, kind: INNER",
    "      LEFT TABLE EXPRESSION",
    "        IDENTIFIER id: 7, alias: l, identifier: system.one, final: 1, sample_size: 1 / 10",
    "      RIGHT TABLE EXPRESSION",
    "        IDENTIFIER id: 8, alias: r, identifier: system.one",
    "  ORDER BY",
    "    LIST id: 9, nodes: 1",
    "      SORT id: 10, sort_direction: ASCENDING, with_fill: 0",
    "        EXPRESSION a b",
    "          IDENTIFIER id: 11, identifier: a b",
)


def test_tree_has_facts_sections_and_parents() -> None:
    root = query_tree.parse(JOINED)
    left = next(node for node in root.walk() if node.facts.get("alias") == "l")
    assert left.facts == {
        "alias": "l",
        "identifier": "system.one",
        "final": "1",
        "sample_size": "1 / 10",
    }
    assert left.section == "LEFT TABLE EXPRESSION"
    assert [node.kind for node in left.ancestors()] == ["JOIN", "QUERY"]
    assert [node.kind for node in root.list_of("PROJECTION")] == ["MATCHER", "LAMBDA"]


@pytest.mark.parametrize(
    "line",
    [
        "Identifier foo",
        "    x",
        "",
        "  SETTINGS max_threads=1",
        "  PROJECTION",
        "  JOIN TREE",
        "        ARGUMENTS",
        "      IDENTIFIER id: 4, identifier: foo",
        "      ARGUMENT id: 0, name: foo",
        "    LIST id: 4, nodes: 0",
        "QUERY id: 4",
    ],
)
@pytest.mark.parametrize("at", range(1, len(QUERY_TREE) + 1))
def test_additional_line_is_an_error(line: str, at: int) -> None:
    with pytest.raises(syntax_tree.MalformedTree):
        query_tree.parse([*QUERY_TREE[:at], line, *QUERY_TREE[at:]])


# Except for the argument: a lambda may have none.
@pytest.mark.parametrize("at", [at for at, line in enumerate(JOINED) if "ARGUMENT id" not in line])
def test_missing_line_is_an_error(at: int) -> None:
    with pytest.raises(syntax_tree.MalformedTree):
        query_tree.parse([*JOINED[:at], *JOINED[at + 1 :]])


@pytest.mark.parametrize(
    "facts",
    [
        "identifier: a, identifier: b",
        "identifier: a, alias: b, c",
        "identifier: a, surprise: b",
        "identifier",
        "a",
    ],
)
def test_unknown_facts_are_an_error(facts: str) -> None:
    with pytest.raises(syntax_tree.MalformedTree):
        query_tree.parse([*QUERY_TREE[:-1], f"    IDENTIFIER id: 3, {facts}"])


def test_unknown_kind_is_named() -> None:
    with pytest.raises(query_tree.UnknownKind, match="TABLE"):
        query_tree.parse(["TABLE id: 0, table_name: a"])


@given(st.lists(st.sampled_from(JOINED), max_size=12), st.integers(0, len(JOINED)))
def test_repeated_lines_are_an_error(more: list[str], at: int) -> None:
    if more:
        with pytest.raises(syntax_tree.MalformedTree):
            query_tree.parse([*JOINED[:at], *more, *JOINED[at:]])


@pytest.mark.parametrize("line", ["foo", "    Identifier foo", "     Literal UInt64_1", "", "Set"])
@pytest.mark.parametrize("at", range(1, len(SELECT_TREE) + 1))
def test_syntax_tree_with_additional_line_is_an_error(line: str, at: int) -> None:
    with pytest.raises(syntax_tree.MalformedTree):
        syntax_tree.parse([*SELECT_TREE[:at], line, *SELECT_TREE[at:]])


@pytest.mark.parametrize("at", range(1, len(SELECT_TREE)))
def test_syntax_tree_with_missing_line_is_an_error(at: int) -> None:
    with pytest.raises(syntax_tree.MalformedTree):
        syntax_tree.parse([*SELECT_TREE[:at], *SELECT_TREE[at + 1 :]])
