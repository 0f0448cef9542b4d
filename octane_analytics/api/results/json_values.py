"""Values of results as JSON has them.

| ClickHouse | JSON |
|---|---|
| integers up to 64 bits, floats, Bool | number, boolean; NaN and the infinities null |
| (U)Int128, (U)Int256, Decimal | string, for most readers of JSON would round them; no trailing zeros |
| DateTime, DateTime64 | RFC 3339 string in UTC, to the microsecond |
| Date, UUID, IPv4, IPv6, Enum | string |
| String, FixedString | string; what is not UTF-8 becomes U+FFFD |
| Array, Tuple | array |
| Map, JSON | object, keys as strings |

Other types (Variant, Dynamic, aggregation states) the driver cannot read: cast them to String.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from octane_analytics.api.timestamps import rfc3339
from octane_analytics.clickhouse.results import ResultColumn

_WIDE = re.compile(r"\bU?Int(128|256)\b")
_AS_THEY_ARE = frozenset({bool, float, str, type(None)})
_WITH_INTEGERS = _AS_THEY_ARE | {int}
_TIMES = frozenset({datetime, date, type(None)})

_encoder = msgspec.json.Encoder()


def encode(value: object) -> bytes:
    """JSON of what is made of dicts, lists and plain values."""
    return _encoder.encode(value)


def encode_lines(values: Sequence[object]) -> bytes:
    """The same of each value, with a line feed behind each."""
    return _encoder.encode_lines(values)


def plain_columns(
    columns: Sequence[ResultColumn], rows: Sequence[tuple[Any, ...]]
) -> list[Sequence[object]]:
    """The rows' values column by column, each as `plain` makes it."""
    plain_ones: list[Sequence[object]] = []
    # strict: an answer without columns has no rows.
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        is_wide = bool(_WIDE.search(column.type))
        kinds = set(map(type, values))
        # What a whole block already is need not be looked at value by value.
        is_plain = kinds <= _AS_THEY_ARE or (not is_wide and kinds <= _WITH_INTEGERS)
        if is_plain:
            plain_ones.append(values)
        elif kinds <= _TIMES:
            # Events share seconds, and the text of one is dear.
            texts = {value: plain(value) for value in set(values)}
            plain_ones.append([texts[value] for value in values])
        else:
            plain_ones.append([plain(value, is_wide) for value in values])
    return plain_ones


def unique(names: Sequence[str]) -> list[str]:
    """The names, a repeated one with `_2`, `_3` … behind it, as no other is called."""
    taken = set(names)
    seen: set[str] = set()
    chosen = []
    for name in names:
        if name in seen:
            number = 2
            while f"{name}_{number}" in taken:
                number += 1
            name = f"{name}_{number}"
        seen.add(name)
        taken.add(name)
        chosen.append(name)
    return chosen


def plain(value: Any, is_wide: bool = False) -> object:
    """The value as JSON can carry it; `is_wide` turns integers into strings."""
    kind = type(value)
    if kind is int:
        return str(value) if is_wide else value
    if kind in _AS_THEY_ARE:
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (list, tuple)):
        return [plain(item, is_wide) for item in value]
    if isinstance(value, dict):
        return {_key(key): plain(item, is_wide) for key, item in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def _key(key: object) -> str:
    key = plain(key)
    return key if isinstance(key, str) else _encoder.encode(key).decode()
