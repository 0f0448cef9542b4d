"""Conversion of ClickHouse values to JSON.

| ClickHouse | JSON |
|---|---|
| integers up to 64 bits, floats, Bool | number, boolean; NaN and the infinities null |
| (U)Int128, (U)Int256, Decimal | string, because most JSON parsers would round them; no trailing zeros |
| DateTime, DateTime64 | RFC 3339 string in UTC, to the microsecond |
| Date, UUID, IPv4, IPv6, Enum | string |
| String, FixedString | string; invalid UTF-8 becomes U+FFFD |
| Array, Tuple | array |
| Map, JSON | object, keys as strings |

The driver cannot read other types (Variant, Dynamic, aggregation states): cast them to String.
"""

import codecs
import functools
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from octane_analytics.api.timestamps import rfc3339
from octane_analytics.clickhouse.results import ResultColumn

_WIDE = re.compile(r"\bU?Int(128|256)\b")
_PLAIN = frozenset({bool, float, str, type(None)})
_PLAIN_OR_INTEGER = _PLAIN | {int}
_TIMES = frozenset({datetime, date, type(None)})

_PIECE_BYTES = 256 << 10
"""Bytes decoded in one call, which holds the interpreter's lock: 10 MB of random bytes take 0.5 s."""
MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer up to which a double, and so JavaScript, holds each one exactly."""

_encoder = msgspec.json.Encoder()


def encode(value: object) -> bytes:
    """Encode a value of dicts, lists and plain values as JSON."""
    return _encoder.encode(value)


def encode_lines(values: Sequence[object]) -> bytes:
    """Encode each value as JSON, followed by a line feed."""
    return _encoder.encode_lines(values)


def plain_columns(
    columns: Sequence[ResultColumn],
    rows: Sequence[tuple[Any, ...]],
    *,
    has_safe_integers: bool = False,
) -> list[Sequence[object]]:
    """Return the values by column, each converted by `plain`, and by `safe` if wanted."""
    converted: list[Sequence[object]] = []
    # strict: a result without columns has no rows.
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        is_wide = _is_wide(column.type)
        kinds = set(map(type, values))
        # A column of plain values only is not converted value by value.
        is_plain = kinds <= _PLAIN or (not is_wide and kinds <= _PLAIN_OR_INTEGER)
        if is_plain:
            converted.append(values)
        elif kinds <= _TIMES:
            # Many rows have the same second, and formatting one is expensive.
            texts = {value: plain(value) for value in set(values)}
            converted.append([texts[value] for value in values])
        else:
            converted.append([plain(value, is_wide) for value in values])
        if has_safe_integers and "Int64" in column.type:
            converted[-1] = [safe(value) for value in converted[-1]]
    return converted


def safe(value: object) -> object:
    """Return the value with integers that a double cannot hold exactly as strings."""
    if type(value) is int:
        return value if abs(value) <= MAX_SAFE_INTEGER else str(value)
    if isinstance(value, list):
        return [safe(item) for item in value]
    if isinstance(value, dict):
        return {key: safe(item) for key, item in value.items()}
    return value


@functools.lru_cache(maxsize=64)
def _is_wide(type_name: str) -> bool:
    # Cached, because rows are converted one by one, and the text of an Enum may have many kilobytes.
    return _WIDE.search(type_name) is not None


def unique(names: Sequence[str]) -> list[str]:
    """Return the names, with the first unused suffix of `_2`, `_3` … added to a repeated one."""
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
    """Return a value that JSON can represent; `is_wide` converts integers to strings."""
    kind = type(value)
    if kind is int:
        return str(value) if is_wide else value
    if kind in _PLAIN:
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, bytes):
        return _text(value)
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


def _text(value: bytes) -> str:
    if len(value) <= _PIECE_BYTES:
        return value.decode(errors="replace")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    starts = range(0, len(value), _PIECE_BYTES)
    pieces = [decoder.decode(value[start : start + _PIECE_BYTES]) for start in starts]
    return "".join(pieces) + decoder.decode(b"", final=True)


def _key(key: object) -> str:
    key = plain(key)
    return key if isinstance(key, str) else _encoder.encode(key).decode()
