"""Expansion of the part of a template that is answered from a rollup.

A template writes such a SELECT once, between the lines `{rollup:begin}` and `{rollup:end}`. It is
expanded to a UNION ALL of two SELECTs: one of whole hours, which ClickHouse can answer from an aggregate
projection, and one of the other events of the range, up to an hour at either end. Both return states
(`countState()`), which the template merges (`countMerge`). On a table without rollups ClickHouse reads
the events of both, with the same result. With a rollup of weeks there is a third SELECT, of whole weeks;
the hours are then those of the other days. On a table without it ClickHouse reads the weeks from the
rollup of hours. In the block

| text | whole hours | other events |
|---|---|---|
| `{time:Rollup}` | hour of the event | its timestamp |
| `{range:Rollup}` | condition of whole hours within the range | condition of the rest of the range |
| a line that ends with `-- events only` | removed | kept |

and everywhere in a template `{NAME:Rollup}` stands for the expression NAME of
`clickhouse.rollup_expressions`. A projection answers only a query that repeats its expressions.

Does not depend on values or on how SQL is run.
"""

import re

from octane_analytics.clickhouse.rollup_expressions import EXPRESSIONS, HOUR, WEEK

_BEGIN, _END = "{rollup:begin}", "{rollup:end}"
_ONLY = re.compile(r"^(.*?)[ \t]*-- events only$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_NAMED = re.compile(r"\{(\w+):Rollup\}")
_TO = "{to:DateTime('UTC')}"


def expand(sql: str, start: str, hours: str, *, has_weeks: bool = False) -> str:
    """Return the SQL with blocks and expressions expanded; the number of its lines is the same.

    `start` is the SQL of the start of the range; `hours` is a condition for a whole hour, whose start
    it names `{hour}`; `has_weeks` adds the SELECT of weeks. Raises ValueError with what is wrong.
    """
    parts = re.split(r"^[ \t]*\{rollup:begin\}[ \t]*$", sql, flags=re.MULTILINE)
    expanded = [parts[0]]
    for part in parts[1:]:
        block, end, rest = part.partition(_END)
        if not end:
            raise ValueError(f"{_BEGIN} without {_END}")
        if has_weeks and (hours or "{time:Rollup}" in block):
            raise ValueError("a week has neither {time:Rollup} nor a condition of hours")
        expanded += _union(block, start, hours, has_weeks), rest
    return _NAMED.sub(_expression, "".join(expanded))


def _union(block: str, start: str, hours: str, has_weeks: bool) -> str:
    whole = f"({HOUR} >= {start} AND {HOUR} < toStartOfHour({_TO}, 'UTC')"
    whole += f" AND ({hours.replace('{hour}', HOUR)}))" if hours else ")"
    rest = f"(timestamp >= {start} AND timestamp < {_TO} AND NOT {whole})"
    # On one line and in place of the end, so that ClickHouse's errors count the template's own lines.
    other = " ".join(_COMMENT.sub("", _ONLY.sub(r"\1", block)).split())
    of_rollup = _ONLY.sub("", block)
    selects = [_bound(other, "timestamp", rest)]
    if has_weeks:
        in_line, weeks = " ".join(_COMMENT.sub("", of_rollup).split()), _in_weeks(start)
        selects.insert(0, _bound(in_line, WEEK, weeks))
        whole = f"({whole} AND NOT {weeks})"
    return " UNION ALL ".join([_bound(of_rollup, HOUR, whole), *selects])


def _in_weeks(start: str) -> str:
    """Return the condition of a week within the range, which begins with the first Monday of it."""
    monday = f"toMonday({start}, 'UTC')"
    first = f"{monday} + 7 * (toDateTime({monday}, 'UTC') < {start})"
    return f"({WEEK} >= {first} AND {WEEK} < toMonday({_TO}, 'UTC'))"


def _bound(block: str, time: str, condition: str) -> str:
    return block.replace("{time:Rollup}", time).replace("{range:Rollup}", condition)


def _expression(match: re.Match[str]) -> str:
    if match[1] not in EXPRESSIONS:
        known = ", ".join(EXPRESSIONS)
        raise ValueError(f"{match[0]} is unknown or not within a block; expressions: {known}")
    return EXPRESSIONS[match[1]]
