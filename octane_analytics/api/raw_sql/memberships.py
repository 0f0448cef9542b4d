"""The functions of IN, whose arguments ClickHouse also looks up as tables.

The right side of `x IN name` is judged by `validator`. For the left side, ClickHouse looks for a table
if no column or alias has the name, and refuses it only when it has opened it: a server that finds
tables by paths, as clickhouse-local does, opens the file or URL of that name. Does not depend on the
allow-lists.
"""

import re

from octane_analytics.api.raw_sql.query_tree import Node

FUNCTION = re.compile(r"(global)?(not)?(null)?in(ignoreset)?\Z")
"""Names in lower case."""
_PATH = re.compile(r"[/:]")


def objection(root: Node) -> str | None:
    """Return what is wrong with a name in a statement with IN; None if nothing is.

    All names are examined, as an alias may stand for another name.
    """
    is_membership = False
    path = None
    for node in root.walk():
        if node.kind == "FUNCTION":
            name = node.facts["function_name"].lower()
            is_membership = is_membership or FUNCTION.match(name) is not None
        elif node.kind == "IDENTIFIER" and _PATH.search(node.facts["identifier"]):
            path = path or node.facts["identifier"]
    if path is None or not is_membership:
        return None
    return f"the name {path[:80]} is not allowed in a statement with IN: write it without / and :"
