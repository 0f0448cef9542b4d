"""Resolution of names that a statement defines itself, by ClickHouse's scoping rules.

A name counts as defined only if ClickHouse 26.9 provably resolves it to that definition; it
resolves a name without a definition to a table or function of the server. Pitfalls: a definition
that refers to itself, directly or through others, reads the table of that name; nothing around
`view(…)` is visible within it; an alias within a lambda, a subquery or a function's window is not
visible outside; a join condition does not see the tables that follow; `AS t(a, b)`, which the tree
does not show, renames columns; a lambda with the name of an aggregate function does not replace it
if a window or parameters follow. Does not depend on the allow-lists.
"""

from collections.abc import Iterator

from octane_analytics.api.raw_sql import allowlists
from octane_analytics.api.raw_sql.query_tree import Node

_QUERIES = ("QUERY", "UNION")
_EXPRESSIONS = ("CONSTANT", "FUNCTION", "QUERY", "UNION")
_CLOSED = (*_QUERIES, "LAMBDA", "TABLE_FUNCTION", "WINDOW")
_MAX_STEPS = 100_000


class TooComplex(Exception):
    """The references between definitions exceed the maximum number of resolution steps."""


class Scopes:
    """Definitions of one query tree; indexes are built lazily."""

    def __init__(self, root: Node) -> None:
        self._aliases: dict[str, list[Node]] = {}
        self._mentioned_names: dict[Node, frozenset[str]] = {}
        self._own: dict[Node, dict[str, list[Node]]] = {}
        self._items: dict[Node, dict[str, list[tuple[int, Node]]]] = {}
        self._steps = 0
        for node in root.walk():
            if alias := node.facts.get("alias"):
                self._aliases.setdefault(alias, []).append(node)

    def is_synonym(self, name: str) -> bool:
        """Return whether the name, or its first part, is an alias of another name in the statement.

        After `WITH a AS b`, ClickHouse reads the table `a` for `b`, even if something else is named `b`.
        """
        return any(
            node.kind == "IDENTIFIER" and node.section not in allowlists.TABLE_SECTIONS
            for part in (name, name.partition(".")[0])
            for node in self._aliases.get(part, [])
        )

    def is_cte(self, reference: Node, name: str) -> bool:
        """Return whether a common table expression `name` is in scope at `reference`."""
        for query, end in self._enclosing(reference):
            if query.kind == "UNION":
                if query.facts.get("is_recursive_cte") and query.facts.get("cte_name") == name:
                    return True
            elif any(item.facts.get("cte_name") == name for item in self._with(query, end, name)):
                return True
        return False

    def is_set(self, reference: Node, name: str) -> bool:
        """Return whether `x IN name` uses an expression of the statement. Raises TooComplex."""
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
        """Return whether the call is a plain one of a lambda of a WITH in scope."""
        name = call.facts["function_name"]
        if [child.section for child in call.children] != ["ARGUMENTS"]:
            return False
        return any(
            item.kind == "LAMBDA" and item.facts.get("alias") == name
            for query, end in self._enclosing(call)
            for item in self._with(query, end, name)
        )

    def _enclosing(self, node: Node) -> Iterator[tuple[Node, int]]:
        """Yield enclosing queries, innermost first, with the number of WITH items visible to the node.

        An item of a WITH sees only the items before it, which excludes cycles.
        """
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
            for index, item in enumerate(query.list_of("WITH")):
                for fact in ("alias", "cte_name"):
                    if fact in item.facts:
                        named.setdefault(item.facts[fact], []).append((index, item))
            self._items[query] = named
        return (item for index, item in self._items[query].get(name, []) if index < end)

    def _own_names(self, top: Node) -> dict[str, list[Node]]:
        """Return the aliases of the scope itself, without FROM, nested queries and lambdas."""
        if top not in self._own:
            named: dict[str, list[Node]] = {}
            pending = [child for child in top.children if child.section != "JOIN TREE"]
            while pending:
                node = pending.pop()
                if (alias := node.facts.get("alias")) and node.kind != "WINDOW":
                    named.setdefault(alias, []).append(node)
                if node.kind not in _CLOSED:
                    pending += node.children
            self._own[top] = named
        return self._own[top]

    def _is_sound(self, definition: Node, reference: Node) -> bool:
        """Return whether resolving the definition cannot lead back to the reference."""
        if definition.kind not in _EXPRESSIONS:
            return False
        enclosing = set(reference.ancestors())
        seen: set[Node] = set()
        pending = [definition]
        while pending:
            node = pending.pop()
            self._steps += 1
            if self._steps > _MAX_STEPS:
                raise TooComplex
            if node in enclosing:
                return False
            if node not in seen:
                seen.add(node)
                for name in self._mentioned(node):
                    pending += self._aliases.get(name, [])
        return True

    def _mentioned(self, top: Node) -> frozenset[str]:
        """Return the aliases that the expression may use."""
        if top not in self._mentioned_names:
            names: set[str] = set()
            for node in top.walk():
                self._steps += 1
                name = node.facts.get("identifier", "")
                names |= {name, name.partition(".")[0], node.facts.get("function_name", "")}
            self._mentioned_names[top] = frozenset(names & self._aliases.keys())
        return self._mentioned_names[top]


def _columns(query: Node) -> set[str]:
    """Return the columns of a FROM that is one subquery without an alias that could rename them."""
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
