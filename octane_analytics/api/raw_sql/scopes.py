"""Names that a statement defines itself: which of them a reference means, by ClickHouse's scoping rules.

Answers yes only where the definition is proven to be the one that ClickHouse 26.9 resolves the name to;
where ClickHouse finds no definition it takes a table or a function of the server. The traps: a
definition that refers to itself, directly or through others, reads the table of that name; nothing of
the statement around `view(…)` is visible within it; an alias within a lambda, a subquery or a function's
window is not visible outside; a condition of a join does not see tables that follow; `AS t(a, b)`, which
the tree does not show, renames columns; a lambda named like an aggregate function does not replace it
where a window or parameters follow. Does not depend on what is allowed.
"""

from collections.abc import Iterator

from octane_analytics.api.raw_sql import allowlists
from octane_analytics.api.raw_sql.query_tree import Node

_QUERIES = ("QUERY", "UNION")
_EXPRESSIONS = ("CONSTANT", "FUNCTION", "QUERY", "UNION")
_CLOSED = (*_QUERIES, "LAMBDA", "TABLE_FUNCTION", "WINDOW")
_MAX_STEPS = 100_000


class TooComplex(Exception):
    """The definitions refer to each other more often than it is worth following."""


class Scopes:
    """Immutable view of one query tree; indexes are built when they are first needed."""

    def __init__(self, root: Node) -> None:
        self._aliases: dict[str, list[Node]] = {}
        self._mentions: dict[Node, frozenset[str]] = {}
        self._own: dict[Node, dict[str, list[Node]]] = {}
        self._items: dict[Node, dict[str, list[tuple[int, Node]]]] = {}
        self._steps = 0
        for node in root.walk():
            if alias := node.facts.get("alias"):
                self._aliases.setdefault(alias, []).append(node)

    def is_synonym(self, name: str) -> bool:
        """Whether the name, or its first part, is an alias of another name anywhere in the statement:
        after `WITH a AS b`, ClickHouse reads the table `a` for `b`, whatever else is called `b`."""
        return any(
            node.kind == "IDENTIFIER" and node.section not in allowlists.TABLE_PLACES
            for part in (name, name.partition(".")[0])
            for node in self._aliases.get(part, [])
        )

    def is_part(self, reference: Node, name: str) -> bool:
        """Whether `name`, where `reference` stands, is a part of WITH that is in scope."""
        for query, end in self._enclosing(reference):
            if query.kind == "UNION":
                if query.facts.get("is_recursive_cte") and query.facts.get("cte_name") == name:
                    return True
            elif any(item.facts.get("cte_name") == name for item in self._with(query, end, name)):
                return True
        return False

    def is_set(self, reference: Node, name: str) -> bool:
        """Whether `x IN name` uses an expression that the statement names so.

        Raises TooComplex.
        """
        for ancestor in reference.ancestors():
            if ancestor.kind == "TABLE_FUNCTION":
                return False
            if ancestor.kind == "LAMBDA" and name in _parameters(ancestor):
                return True
            if ancestor.kind in ("LAMBDA", "QUERY"):
                own = self._own_names(ancestor).get(name, [])
                if any(self._is_sound(node, reference) for node in own):
                    return True
            if ancestor.kind == "QUERY":
                return name in _columns(ancestor) or any(
                    item.kind in _EXPRESSIONS
                    and item.facts.get("alias") == name
                    and self._is_sound(item, reference)
                    for query, end in self._enclosing(ancestor)
                    for item in self._with(query, end, name)
                )
        return False

    def is_lambda(self, call: Node) -> bool:
        """Whether this function is a lambda of a WITH that is in scope, called as a plain function."""
        name = call.facts["function_name"]
        if [child.section for child in call.children] != ["ARGUMENTS"]:
            return False
        return any(
            item.kind == "LAMBDA" and item.facts.get("alias") == name
            for query, end in self._enclosing(call)
            for item in self._with(query, end, name)
        )

    def _enclosing(self, node: Node) -> Iterator[tuple[Node, int]]:
        """Queries around the node, innermost first, with the number of items of their WITH that it
        sees: within an item of the same WITH only those before it, which excludes every cycle."""
        item, child = node, node
        for ancestor in node.ancestors():
            if ancestor.kind == "TABLE_FUNCTION":
                return
            if ancestor.kind in _QUERIES:
                is_item = child.kind == "LIST" and child.section == "WITH"
                yield (
                    ancestor,
                    child.children.index(item) if is_item else len(ancestor.list_of("WITH")),
                )
            item, child = child, ancestor

    def _with(self, query: Node, end: int, name: str) -> Iterator[Node]:
        if query not in self._items:
            named: dict[str, list[tuple[int, Node]]] = {}
            for at, item in enumerate(query.list_of("WITH")):
                for fact in ("alias", "cte_name"):
                    if fact in item.facts:
                        named.setdefault(item.facts[fact], []).append((at, item))
            self._items[query] = named
        return (item for at, item in self._items[query].get(name, []) if at < end)

    def _own_names(self, top: Node) -> dict[str, list[Node]]:
        """Aliases of the scope itself: not those in the FROM, or within a nested query or lambda."""
        if top not in self._own:
            named: dict[str, list[Node]] = {}
            left = [child for child in top.children if child.section != "JOIN TREE"]
            while left:
                node = left.pop()
                if (alias := node.facts.get("alias")) and node.kind != "WINDOW":
                    named.setdefault(alias, []).append(node)
                if node.kind not in _CLOSED:
                    left += node.children
            self._own[top] = named
        return self._own[top]

    def _is_sound(self, definition: Node, reference: Node) -> bool:
        """Whether resolving the definition cannot lead back to where the reference stands."""
        if definition.kind not in _EXPRESSIONS:
            return False
        around = set(reference.ancestors())
        seen: set[Node] = set()
        left = [definition]
        while left:
            node = left.pop()
            self._steps += 1
            if self._steps > _MAX_STEPS:
                raise TooComplex
            if node in around:
                return False
            if node not in seen:
                seen.add(node)
                for name in self._mentioned(node):
                    left += self._aliases.get(name, [])
        return True

    def _mentioned(self, top: Node) -> frozenset[str]:
        """Aliases that the expression may use."""
        if top not in self._mentions:
            names: set[str] = set()
            for node in top.walk():
                self._steps += 1
                name = node.facts.get("identifier", "")
                names |= {name, name.partition(".")[0], node.facts.get("function_name", "")}
            self._mentions[top] = frozenset(names & self._aliases.keys())
        return self._mentions[top]


def _columns(query: Node) -> set[str]:
    """Columns of a FROM that is one subquery without an alias, and so without other names for them."""
    source = next((child for child in query.children if child.section == "JOIN TREE"), None)
    if source is None or source.kind != "QUERY" or "alias" in source.facts:
        return set()
    items = source.list_of("PROJECTION")
    return {item.facts.get("alias") or item.facts.get("identifier", "") for item in items}


def _parameters(function: Node) -> set[str]:
    return {
        argument.facts.get("name", "")
        for child in function.children
        if child.kind == "ARGUMENTS"
        for argument in child.children
    }
