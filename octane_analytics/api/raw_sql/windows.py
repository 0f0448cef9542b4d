"""Frames of windows that ClickHouse computes row by row in bounded time.

It looks at the limits of a query between blocks. Where the start of a frame moves, it aggregates all
rows of the frame again for each row: `sum(x) OVER (ORDER BY y ROWS BETWEEN CURRENT ROW AND UNBOUNDED
FOLLOWING)` over a million rows keeps a thread for minutes after `max_execution_time`. A frame that
starts with the partition only grows, but some functions read all of their state for each row's result.
"""

import re

from octane_analytics.api.raw_sql.query_tree import Node

MAX_FRAME_ROWS = 1_000
"""Length of a frame whose start moves, of sums and the like: a nanosecond for each row."""
MAX_OTHER_FRAME_ROWS = 100
"""Length of such a frame of other functions: up to a microsecond for each row."""
_SIMPLE = re.compile(
    r"(sum|avg|count|min|max|any|anylast|any_value|first_value|last_value|(stddev|var)_?(pop|samp))"
    r"(if|ornull|ordefault)?"
)
_POSITIONAL = frozenset(
    ["row_number", "rank", "dense_rank", "denserank", "laginframe", "leadinframe", "nth_value"]
)
"""Functions that do not aggregate the rows of their frame."""
_GROWING = re.compile(
    r"contingency|cramersv|distinct(json|dynamic)|entropy|estimatecompressionratio|gini|groupbitmap"
    r"|groupnumericindexedvector|intervallengthsum|largesttriangle|lttb|maxintersections"
    r"|(median|quantiles?)(bfloat16|exact|interpolated|prometheus)|rankcorr|sequence|sparkbar|theilsu"
    r"|windowfunnel"
)
"""Functions whose result takes as long as the number of values before it."""
_INTEGER = re.compile(r"U?Int64_(\d{1,9})")


def objection(root: Node) -> str | None:
    """Return why the windows of the statement are not allowed; None if they are."""
    calls = [node for node in root.walk() if node.kind == "FUNCTION" and _has_window(node)]
    for call in calls:
        name = call.facts["function_name"]
        if _GROWING.match(name.lower()):
            return (
                f"the function {name} is not allowed over a window, since it would read all values "
                "again for each row: use GROUP BY"
            )
    names = {call.facts["function_name"].lower() for call in calls} - _POSITIONAL
    is_simple = all(map(_SIMPLE.fullmatch, names))
    limit = MAX_FRAME_ROWS if is_simple else MAX_OTHER_FRAME_ROWS
    for node in root.walk():
        if names and node.kind == "WINDOW" and not _is_bounded(node, limit):
            return (
                "this frame of a window is not allowed, since all of its rows would be aggregated "
                "again for each row: start it with UNBOUNDED PRECEDING, or write ROWS BETWEEN n "
                f"PRECEDING AND m FOLLOWING (or CURRENT ROW) with numbers up to {limit:,}; for a span "
                "of time first use GROUP BY, so that each row stands for a day or an hour"
            )
    return None


def _has_window(call: Node) -> bool:
    return any(child.section == "WINDOW" for child in call.children)


def _is_bounded(window: Node, limit: int) -> bool:
    begin, end = window.facts["frame_begin_type"], window.facts["frame_end_type"]
    if begin == "unbounded preceding":
        return True
    offsets = [child for child in window.children if child.section.startswith("FRAME ")]
    return (
        window.facts["frame_type"] == "ROWS"
        and end != "unbounded following"
        and len(offsets) == sum(each.startswith("offset ") for each in (begin, end))
        and all(_is_at_most(limit, offset) for offset in offsets)
    )


def _is_at_most(limit: int, offset: Node) -> bool:
    if offset.kind != "CONSTANT":
        return False
    number = _INTEGER.fullmatch(offset.facts["constant_value"])
    return number is not None and int(number[1]) <= limit
