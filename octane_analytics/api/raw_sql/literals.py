"""Literals among the arguments of a call, as the query tree shows them."""

import re

from octane_analytics.api.raw_sql.query_tree import Node

_TIMES = frozenset(["now", "now64", "today", "todate", "todate32", "todatetime", "todatetime64"])
"""Functions whose result cannot be the name of a time zone."""
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CHARACTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "0": "\0"}
"""Characters after a backslash in the tree's text of a string; any other stands for itself."""


def text(node: Node) -> str | None:
    """Return the value of a string literal; None for any other node."""
    if node.kind != "CONSTANT" or node.facts["constant_value_type"] != "String":
        return None
    return node.facts["constant_value"][1:-1].replace("\\'", "'")


def unescaped(node: Node) -> str | None:
    """Return the string, or all strings of the array, that the node is; None if it is not a literal."""
    if node.kind == "FUNCTION" and node.facts["function_name"] == "array":
        items = [unescaped(item) for item in node.list_of("ARGUMENTS")]
        return None if None in items else "".join(item or "" for item in items)
    if node.kind != "CONSTANT":
        return None
    kind, value = node.facts["constant_value_type"], node.facts["constant_value"]
    if kind == "Array(String)":
        return value
    if kind != "String":
        return None
    return _ESCAPE.sub(lambda found: _CHARACTERS.get(found[1], found[1]), value[1:-1])


def is_number(node: Node) -> bool:
    return node.kind == "CONSTANT" and node.facts["constant_value_type"] != "String"


def is_time(node: Node) -> bool:
    return node.kind == "FUNCTION" and node.facts["function_name"].lower() in _TIMES


def is_row(node: Node) -> bool:
    """Return whether the node is a tuple, or a literal other than a string."""
    if node.kind == "FUNCTION":
        return node.facts["function_name"] == "tuple"
    return node.kind == "CONSTANT" and node.facts["constant_value_type"] != "String"
