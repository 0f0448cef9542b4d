"""ClickHouse's query tree out of the text that `EXPLAIN QUERY TREE` prints.

A node is a line `KIND id: N, facts…`; two more spaces lead a level down, and lines without an id name
the part of the parent that follows. Names stand in it unquoted, so a name with a line break in it adds
lines of the client's choice. None of them goes unseen: the server numbers its nodes from 0 in the
order of the lines and counts a list's children, so an added node breaks the sequence, and an added
section that would tear nodes from their list breaks its count. Refuses to know what is allowed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_NODE = re.compile(r"( *)([A-Z][A-Z_ ]*?) id: (\d+)(?:, (.*))?\Z", re.DOTALL)
_PARAMETER = "ARGUMENT"
"""Of a lambda: numbered from 0 for each."""


class Forged(Exception):
    """The text is not that of one tree: some name in the statement imitates the format."""


@dataclass(slots=True)
class Node:
    kind: str
    facts: str
    section: str
    """The line before it if that names a part of the parent; else empty."""
    children: list["Node"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Tree:
    root: Node
    sections: frozenset[str]


def parse(lines: Sequence[str]) -> Tree:
    """Raises Forged."""
    path: list[tuple[int, Node]] = []
    nodes: list[Node] = []
    sections: set[str] = set()
    section = ""
    for line in lines:
        found = _NODE.match(line)
        if not found:
            section = line.strip()
            sections.add(section)
            continue
        indent, node = len(found[1]), Node(found[2], found[4] or "", section)
        section = ""
        if node.kind == _PARAMETER:
            continue
        if int(found[3]) != len(nodes):
            raise Forged(f"node {found[3]} stands where {len(nodes)} was expected")
        while path and path[-1][0] >= indent:
            path.pop()
        if path:
            path[-1][1].children.append(node)
        elif nodes:
            raise Forged("there is a second root")
        path.append((indent, node))
        nodes.append(node)
    if not nodes:
        raise Forged("there is no node")
    for node in nodes:
        if node.kind == "LIST" and node.facts != f"nodes: {len(node.children)}":
            raise Forged(f"a list of {node.facts} has {len(node.children)}")
    return Tree(nodes[0], frozenset(sections))
