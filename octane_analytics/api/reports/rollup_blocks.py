"""Expansion of the part of a template that is answered from a rollup.

A template writes such a SELECT once, between the lines `{rollup:begin}` and `{rollup:end}`. It is
expanded to a UNION ALL of two SELECTs: one of whole hours, which ClickHouse can answer from an aggregate
projection, and one of the other events of the range, up to an hour at either end. Both return states
(`countState()`), which the template merges (`countMerge`). On a table without rollups ClickHouse reads
the events of both, with the same result. In the block

| text | whole hours | other events |
|---|---|---|
| `{time:Rollup}` | hour of the event | its timestamp |
| `{range:Rollup}` | condition of whole hours within the range | condition of the rest of the range |
| a line that ends with `-- events only` | removed | kept |

and everywhere in a template `{NAME:Rollup}` stands for the expression NAME of `clickhouse.rollups`. A
projection answers only a query that repeats its expressions.

Does not depend on values or on how SQL is run.
"""

import re

from octane_analytics.clickhouse.rollups import EXPRESSIONS, HOUR

_BEGIN, _END = "{rollup:begin}", "{rollup:end}"
_ONLY = re.compile(r"^(.*?)[ \t]*-- events only$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_NAMED = re.compile(r"\{(\w+):Rollup\}")
_TO = "{to:DateTime('UTC')}"


def expand(sql: str, start: str, hours: str) -> str:
    """Return the SQL with blocks and expressions expanded; the number of its lines is the same.

    `start` is the SQL of the start of the range; `hours` is a condition for a whole hour, whose start
    it names `{hour}`. Raises ValueError with what is wrong.
    """
    parts = re.split(r"^[ \t]*\{rollup:begin\}[ \t]*$", sql, flags=re.MULTILINE)
    expanded = [parts[0]]
    for part in parts[1:]:
        block, end, rest = part.partition(_END)
        if not end:
            raise ValueError(f"{_BEGIN} without {_END}")
        expanded += _union(block, start, hours), rest
    return _NAMED.sub(_expression, "".join(expanded))


def _union(block: str, start: str, hours: str) -> str:
    whole = f"({HOUR} >= {start} AND {HOUR} < toStartOfHour({_TO}, 'UTC')"
    whole += f" AND ({hours.replace('{hour}', HOUR)}))" if hours else ")"
    rest = f"(timestamp >= {start} AND timestamp < {_TO} AND NOT {whole})"
    # On one line and in place of the end, so that ClickHouse's errors count the template's own lines.
    other = " ".join(_COMMENT.sub("", _ONLY.sub(r"\1", block)).split())
    return (
        _bound(_ONLY.sub("", block), HOUR, whole) + "UNION ALL " + _bound(other, "timestamp", rest)
    )


def _bound(block: str, time: str, condition: str) -> str:
    return block.replace("{time:Rollup}", time).replace("{range:Rollup}", condition)


def _expression(match: re.Match[str]) -> str:
    if match[1] not in EXPRESSIONS:
        known = ", ".join(EXPRESSIONS)
        raise ValueError(f"{match[0]} is unknown or not within a block; expressions: {known}")
    return EXPRESSIONS[match[1]]
