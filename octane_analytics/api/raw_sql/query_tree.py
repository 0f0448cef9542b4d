"""Parser for the text of `EXPLAIN QUERY TREE run_passes = 0` (ClickHouse 26.9, `dumpTreeImpl`).

A node is a line `KIND id: N, fact: value, …`; its children follow two spaces deeper, either
directly or below a line that names a section of the node. The text contains names without escaping,
so the parser is strict: it checks the sections, facts and indentation of each kind, the numbers of
the nodes, which follow the order of the lines, and the number of children of a list. Any other line
is an error. The caller must reject names that could contain a separator of facts (see
`quoted_names`). Does not depend on the allow-lists.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from octane_analytics.api.raw_sql.syntax_tree import MalformedTree

_NODE = re.compile(r"( *)([A-Z][A-Z_ ]*?) id: (\d+)(?:, (.*))?\Z", re.DOTALL)
_CONSTANT = re.compile(
    r"(?:alias: (?P<alias>(?:(?!, |: ).)+), )?constant_value: (?P<constant_value>.*),"
    r" constant_value_type: (?P<constant_value_type>.*)\Z",
    re.DOTALL,
)
_REPLACEMENT = re.compile(r"REPLACEMENT NAME .* EXPRESSION\Z")
_NAMED_EXPRESSION = re.compile(r"EXPRESSION(?: .*)?\Z")
_LISTS = ("identifiers", "column_identifiers")
_PATTERNS = ("pattern", "columns_pattern")
"""Facts that end a line: comma-separated names, or a regular expression without escaping."""


@dataclass(frozen=True, slots=True)
class _Shape:
    facts: frozenset[str] = frozenset()
    sections: tuple[str, ...] = ()
    """In the server's order; each at most once."""
    has_plain_children: bool = False


def _shape(facts: str = "", *sections: str, has_plain_children: bool = False) -> _Shape:
    return _Shape(frozenset(facts.split()), sections, has_plain_children)


_SUBQUERY = "alias is_subquery is_cte is_recursive_cte is_materialized cte_name union_mode"
_SHAPES: Mapping[str, _Shape] = {
    "QUERY": _shape(
        f"{_SUBQUERY} is_distinct is_recursive_with is_limit_with_ties is_group_by_with_totals"
        " is_group_by_all is_order_by_all is_limit_by_all group_by_type",
        "WITH",
        "PROJECTION",
        "JOIN TREE",
        "PREWHERE",
        "WHERE",
        "GROUP BY",
        "HAVING",
        "WINDOW",
        "QUALIFY",
        "ORDER BY",
        "INTERPOLATE",
        "LIMIT BY LIMIT",
        "LIMIT BY OFFSET",
        "LIMIT BY",
        "LIMIT",
        "OFFSET",
    ),
    "UNION": _shape(_SUBQUERY, "QUERIES"),
    "LIST": _shape("nodes", has_plain_children=True),
    "CONSTANT": _shape("alias constant_value constant_value_type"),
    "IDENTIFIER": _shape("alias identifier final sample_size sample_offset"),
    "FUNCTION": _shape(
        "alias function_name function_type nulls_action", "PARAMETERS", "ARGUMENTS", "WINDOW"
    ),
    "TABLE_FUNCTION": _shape("alias table_function_name", "ARGUMENTS"),
    "LAMBDA": _shape("alias", "EXPRESSION", has_plain_children=True),
    "ARGUMENTS": _shape(has_plain_children=True),
    "ARGUMENT": _shape("name"),
    "MATCHER": _shape(
        "matcher_type qualified_identifier columns_pattern column_identifiers",
        has_plain_children=True,
    ),
    "APPLY COLUMN TRANSFORMER": _shape("apply_transformer_type", "EXPRESSION"),
    "EXCEPT COLUMN TRANSFORMER": _shape("except_transformer_type identifiers pattern"),
    "REPLACE COLUMN TRANSFORMER": _shape(""),
    "JOIN": _shape(
        "alias locality strictness kind",
        "LEFT TABLE EXPRESSION",
        "RIGHT TABLE EXPRESSION",
        "JOIN EXPRESSION",
    ),
    "CROSS JOIN": _shape("alias"),
    "ARRAY_JOIN": _shape("alias is_left", "TABLE EXPRESSION", "JOIN EXPRESSIONS"),
    "WINDOW": _shape(
        "alias parent_window_name frame_type frame_begin_type frame_end_type",
        "PARTITION BY",
        "ORDER BY",
        "FRAME BEGIN OFFSET",
        "FRAME END OFFSET",
    ),
    "SORT": _shape(
        "sort_direction nulls_sort_direction collator with_fill",
        "EXPRESSION",
        "FILL FROM",
        "FILL TO",
        "FILL STEP",
        "FILL STALENESS",
    ),
    "INTERPOLATE": _shape("", "EXPRESSION", "INTERPOLATE_EXPRESSION"),
}
KINDS = frozenset(_SHAPES)
_REPEATED = {"CROSS JOIN": "TABLE EXPRESSION"}


class UnknownKind(MalformedTree):
    """A node of a kind unknown to the parser; the argument is its name."""


@dataclass(slots=True, eq=False)
class Node:
    kind: str
    facts: Mapping[str, str]
    section: str = ""
    """Section of the parent; empty for a child without one."""
    parent: "Node | None" = field(default=None, repr=False)
    children: list["Node"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        """Yield this node and its descendants, in the order of the lines."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def ancestors(self) -> Iterator["Node"]:
        """Yield the ancestors, from the parent to the root."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def list_of(self, section: str) -> list["Node"]:
        """Return the items of the list in that section; empty if there is none."""
        found = next((child for child in self.children if child.section == section), None)
        return found.children if found is not None and found.kind == "LIST" else []


def parse(lines: Sequence[str]) -> Node:
    """Parse the lines into a tree and return its root. Raises MalformedTree."""
    parser = _Parser()
    for line in lines:
        parser.add(line)
    return parser.finish()


class _Parser:
    def __init__(self) -> None:
        self._path: list[tuple[int, Node]] = []
        self._root: Node | None = None
        self._count = 0
        self._lists: list[Node] = []
        self._section: tuple[int, str] | None = None
        """Indentation and name of a section whose node has not been read."""
        self._seen_sections: dict[int, list[str]] = {}
        """Sections already read, by identity of their node."""

    def add(self, line: str) -> None:
        match = _NODE.match(line)
        if match:
            self._add_node(len(match[1]), match[2], int(match[3]), match[4] or "")
        else:
            self._add_section(line)

    def finish(self) -> Node:
        if self._root is None:
            raise MalformedTree("the tree is empty")
        if self._section is not None:
            raise MalformedTree(f"the section {self._section[1]!r} has no node")
        for node in self._lists:
            if node.facts.get("nodes") != str(len(node.children)):
                raise MalformedTree("the number of nodes in a list differs from its count")
        return self._root

    def _add_node(self, indent: int, kind: str, number: int, facts: str) -> None:
        if kind not in _SHAPES:
            raise UnknownKind(kind)
        node = Node(kind, _parse_facts(kind, facts))
        self._attach(indent, node)
        if kind == "ARGUMENT":
            # The server numbers these from 0 in each lambda.
            expected = len(node.parent.children) - 1 if node.parent else 0
        else:
            expected = self._count
            self._count += 1
        if number != expected:
            raise MalformedTree(f"node {number} found where {expected} was expected")
        if kind == "LIST":
            self._lists.append(node)
        self._path.append((indent, node))

    def _attach(self, indent: int, node: Node) -> None:
        section, self._section = self._section, None
        self._leave(indent if section is None else section[0])
        if not self._path:
            if self._root is not None or indent or section is not None:
                raise MalformedTree("the tree has a second root")
            self._root = node
            return
        above, parent = self._path[-1]
        if section is not None:
            node.section = section[1]
            is_placed = indent == section[0] + 2
        else:
            is_placed = indent == above + 2 and _SHAPES[parent.kind].has_plain_children
        if not is_placed or (node.kind == "ARGUMENT") != (parent.kind == "ARGUMENTS"):
            raise MalformedTree(f"a node {node.kind} found where none is expected")
        node.parent = parent
        parent.children.append(node)

    def _add_section(self, line: str) -> None:
        name = line.strip(" ")
        indent = len(line) - len(line.lstrip(" "))
        if self._section is not None or not self._path:
            raise MalformedTree(f"unknown line {line!r}")
        self._leave(indent)
        if not self._path:
            raise MalformedTree(f"unknown line {line!r}")
        above, owner = self._path[-1]
        seen = self._seen_sections.setdefault(id(owner), [])
        if owner.kind == "REPLACE COLUMN TRANSFORMER":
            self._add_replacement(line, name, indent - above, seen)
            return
        if owner.kind in ("SORT", "INTERPOLATE") and _NAMED_EXPRESSION.match(name):
            name = "EXPRESSION"
        if indent != above + 2 or not _may_follow(owner.kind, name, seen):
            raise MalformedTree(f"unknown line {line!r}")
        seen.append(name)
        self._section = (indent, name)

    def _add_replacement(self, line: str, name: str, depth: int, seen: list[str]) -> None:
        if not seen and depth == 2 and re.fullmatch(r"REPLACEMENTS \d+", name):
            seen.append(name)
        elif seen and depth == 4 and _REPLACEMENT.match(name):
            self._section = (len(line) - len(line.lstrip(" ")), "REPLACEMENT")
        else:
            raise MalformedTree(f"unknown line {line!r}")

    def _leave(self, indent: int) -> None:
        while self._path and self._path[-1][0] >= indent:
            self._path.pop()


def _may_follow(kind: str, section: str, seen: Sequence[str]) -> bool:
    if _REPEATED.get(kind) == section:
        return True
    order = _SHAPES[kind].sections
    if section not in order:
        return False
    return not seen or order.index(section) > order.index(seen[-1])


def _parse_facts(kind: str, text: str) -> Mapping[str, str]:
    """Parse the facts of a node. Raises MalformedTree for an unknown or repeated fact."""
    if kind == "CONSTANT":
        match = _CONSTANT.match(text)
        if not match:
            raise MalformedTree("a constant has facts other than a value and its type")
        return {name: value for name, value in match.groupdict().items() if value is not None}
    facts: dict[str, str] = {}
    rest = text
    while rest:
        name, colon, rest = rest.partition(": ")
        name = name.rstrip(" ")
        if not colon or name in facts or name not in _SHAPES[kind].facts:
            raise MalformedTree(f"a node {kind} has unknown facts")
        if name in _LISTS or name in _PATTERNS:
            value, rest = rest, ""
        else:
            value, _, rest = rest.partition(", ")
        facts[name] = value
    return facts
