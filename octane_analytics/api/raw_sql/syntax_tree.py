"""Parser for the text of `EXPLAIN AST`: each line is a node, its indentation the depth.

Each line ends with the number of its children (` (children N)`), which must agree with the lines
below it: a name with a line break would add a node that is not counted. Does not depend on the
allow-lists.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LINE = re.compile(r"( *)([A-Za-z:]+)(?: (.*?))??(?: \(children (\d+)\))?\Z", re.DOTALL)


class MalformedTree(Exception):
    """The text is not one syntax tree, or a name imitates its format."""


@dataclass(frozen=True, slots=True)
class AstNode:
    kind: str
    text: str
    """Text between the kind and the number of children: a name, a value, an alias."""
    depth: int


@dataclass(frozen=True, slots=True)
class Syntax:
    """Facts of an allowed statement that the syntax tree shows and the query tree does not."""

    is_description: bool
    """DESCRIBE of a readable table, otherwise a single plain SELECT."""
    renames_columns: bool = False


def parse(lines: Sequence[str]) -> list[AstNode]:
    """Parse the lines into nodes, at least one. Raises MalformedTree."""
    nodes: list[AstNode] = []
    missing: list[int] = []
    """Number of children not yet read, for each node on the path to the last line."""
    for line in lines:
        match = _LINE.match(line)
        if not match:
            raise MalformedTree(f"unknown line {line!r}")
        depth = len(match[1])
        while len(missing) > depth:
            if missing.pop():
                raise MalformedTree("a node has fewer children than its count")
        if len(missing) != depth or (depth == 0 and nodes):
            raise MalformedTree("a node found where none is expected")
        if missing:
            missing[-1] -= 1
            if missing[-1] < 0:
                raise MalformedTree("a node has more children than its count")
        missing.append(int(match[4] or 0))
        nodes.append(AstNode(match[2], match[3] or "", depth))
    if not nodes or any(missing):
        raise MalformedTree("a node is missing")
    return nodes


def renames_columns(nodes: Sequence[AstNode]) -> bool:
    """Return whether an alias of a table may have names of columns: `FROM … AS t(a, b)`.

    These names are a list beside the table.
    """
    tables: set[int] = set()
    for node in nodes:
        tables = {depth for depth in tables if depth < node.depth}
        if node.depth - 1 in tables and node.kind == "ExpressionList":
            return True
        if node.kind == "TableExpression":
            tables.add(node.depth)
    return False
