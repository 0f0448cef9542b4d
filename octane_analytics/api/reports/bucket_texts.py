"""Expansion of the parts of a template that divide its range into buckets.

A template with the parameters `bucket_seconds` and `timezone` numbers its buckets, because days have no
fixed width; WITH FILL adds the numbers without events. 86400 is a calendar day in the time zone; 0,
where the template allows it, makes one bucket of the whole range.

| text | meaning |
|---|---|
| `{number:Bucket}` | number of the event's bucket |
| `{rollup_number:Bucket}` | the same within a rollup block, see `rollup_blocks` |
| `{start:Bucket}` | start of the bucket `number`, in the time zone |
| `{fill:Bucket}` | WITH FILL from the first bucket of the range to the last one of the page |
| `{whole_hours:Bucket}` | condition of `[rollup] hours`: the hour lies in one bucket |

Does not depend on values or on how SQL is run.
"""

import re

_NAMED = re.compile(r"\{(\w+):Bucket\}")
_WIDTH, _ZONE = "{bucket_seconds:UInt32}", "{timezone:String}"
_FROM, _TO = "{from:DateTime('UTC')}", "{to:DateTime('UTC')}"


def _number(time: str) -> str:
    return (
        f"multiIf({_WIDTH} = 0, toUInt32(0), "
        f"{_WIDTH} = 86400, toUInt32(toDate({time}, {_ZONE})), "
        f"intDiv(toUInt32({time}), greatest({_WIDTH}, 1)))"
    )


_DAYS = f"range(toUInt32(dateDiff('day', {_FROM}, {_TO}, {_ZONE})) + 2)"
_MEANINGS = {
    "number": _number("timestamp"),
    "rollup_number": _number("{time:Rollup}"),
    "start": (
        f"multiIf({_WIDTH} = 0, toDateTime(toUInt32({_FROM}), {_ZONE}), "
        f"{_WIDTH} = 86400, toDateTime(toDate(number), {_ZONE}), "
        f"toDateTime(toUInt32(number * {_WIDTH}), {_ZONE}))"
    ),
    # Only up to the end of the page: a long range of short buckets has millions.
    "fill": (
        f"WITH FILL FROM {_number(_FROM)} TO least({_number(f'{_TO} - 1')} + 1, "
        f"{_number(_FROM)} + {{offset:UInt32}} + {{limit:UInt32}})"
    ),
    "whole_hours": (
        f"({_WIDTH} = 0 OR {_WIDTH} >= 3600) AND ({_WIDTH} != 86400 OR NOT arrayExists("
        f"day -> toUnixTimestamp(toDateTime(day, {_ZONE})) % 3600 != 0, "
        f"arrayMap(n -> toDate({_FROM}, {_ZONE}) + n, {_DAYS})) "
        f"OR toDate({{hour}}, {_ZONE}) = toDate({{hour}} + 3599, {_ZONE}))"
    ),
}


def expand(sql: str) -> str:
    """Return the SQL with these texts expanded, on as many lines. Raises ValueError for others."""
    return _NAMED.sub(_meaning, sql)


def _meaning(match: re.Match[str]) -> str:
    if match[1] not in _MEANINGS:
        raise ValueError(f"{match[0]} is unknown; buckets: {', '.join(_MEANINGS)}")
    return _MEANINGS[match[1]]
