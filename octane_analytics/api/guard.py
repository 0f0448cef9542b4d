"""What raw SQL may do: one SELECT, read-only, within limits.

ClickHouse's own parser says what a statement is (`EXPLAIN AST`), so that the one that judges is the one
that executes. Owns the judgement and the limits; refuses to know who asks. It is one fence of several:
give the API a ClickHouse user that may read the table and nothing else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from octane_analytics.errors import QueryError

EXPLAIN = "EXPLAIN AST "

_ROOT = "SelectWithUnionQuery"
_REFUSED_NODES = {
    "Set": "a SETTINGS clause is not allowed: the limits are the service's",
    # Its function does not show in the tree.
    "ColumnsApplyTransformer": "APPLY is not allowed: name the columns one by one",
}
_REFUSED_FUNCTIONS = frozenset({"catboostevaluate", "file", "python"})
"""In lower case: what reaches the server's files even with `readonly=1`, or ends an embedded server."""
_FUNCTION = re.compile(r"Function (\w+)")
_POSITION = re.compile(r"\bat position (\d+)")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one report or query may take of ClickHouse."""

    seconds: float
    result_rows: int
    result_bytes: int
    memory_bytes: int

    def settings(self, comment: str) -> Mapping[str, object]:
        """For `ClickHouse.select`. `comment` is what system.query_log will show of the query.

        One row more than allowed is asked for, which tells a cut answer from a whole one.
        """
        return {
            # 1 and not 2, which would let url() and remote() through and settings be changed.
            "readonly": 1,
            "limit": self.result_rows + 1,
            "max_result_bytes": self.result_bytes,
            "result_overflow_mode": "throw",
            "max_execution_time": self.seconds,
            "timeout_overflow_mode": "throw",
            "max_memory_usage": self.memory_bytes,
            "log_comment": comment,
            # The driver's own: a DateTime without a zone comes in local time with `fold` set, which
            # can be turned into UTC exactly; the server's zone could not.
            "use_client_time_zone": True,
        }


def check(tree: Sequence[str]) -> None:
    """Raises QueryError (403) unless this output of `EXPLAIN AST` is that of one allowed SELECT.

    Each line is one node, a space of indentation per level. Text of the query can break a line in two
    and so add nodes that are not there, never hide one.
    """
    if not tree or _kind(tree[0]) != _ROOT:
        what = _kind(tree[0]) if tree else "nothing"
        raise _refused(f"only one SELECT is allowed, and this is {what}")
    for line in tree:
        kind = _kind(line)
        if kind in _REFUSED_NODES:
            raise _refused(_REFUSED_NODES[kind])
        function = _FUNCTION.match(line.strip())
        if function and function[1].lower() in _REFUSED_FUNCTIONS:
            raise _refused(f"the function {function[1]} is not allowed")
        if kind == "TableIdentifier" and "/" in line:
            # clickhouse-local takes a table's name for a file's or a URL.
            raise _refused("a table's name must not be a path or a URL")
    # The list of SELECTs apart, a clause for the output is a child of the root.
    below = [line for line in tree if line.startswith(" ") and not line.startswith("  ")]
    if any(_kind(line) != "ExpressionList" for line in below) or len(below) != 1:
        raise _refused("INTO OUTFILE and FORMAT are not allowed: the answer is JSON")


def located(message: str) -> str:
    """The parser's message about an explained statement, with its positions as in the statement."""
    return _POSITION.sub(lambda found: f"at position {int(found[1]) - len(EXPLAIN)}", message)


def _kind(line: str) -> str:
    words = line.split()
    return words[0] if words else "nothing"


def _refused(message: str) -> QueryError:
    return QueryError(403, "forbidden_statement", message)
