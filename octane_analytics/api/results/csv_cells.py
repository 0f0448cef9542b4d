"""Results as CSV: RFC 4180 with a header."""

import re
from collections.abc import Sequence
from typing import Any

from octane_analytics.api.results.json_values import encode, plain_columns, unique
from octane_analytics.clickhouse.results import ResultColumn

_FORMULA_PREFIXES = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""First characters of a formula in a spreadsheet, four of them full-width: owasp.org, CSV Injection."""
_INVISIBLE = "".join(
    map(chr, [*range(9), 11, 12, *range(14, 33), 0x85, 0xA0, 0x200B, 0x3000, 0xFEFF])
)
"""Characters that a spreadsheet may drop before a formula: controls, spaces, and a byte order mark."""
_FIRST_INVISIBLE = tuple(_INVISIBLE)
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?\Z")
_SPECIAL = re.compile(r'[",;\t\r\n]')
"""A semicolon and a tab separate cells in some spreadsheets, so that `a;=1` would hold a formula."""


class CsvWriter:
    """A `formats.Writer`; `is_raw` turns off the apostrophe before formulas."""

    def __init__(self, columns: Sequence[ResultColumn], *, is_raw: bool) -> None:
        self._names = unique([column.name for column in columns])
        self._columns = columns
        self._cell = _cell if is_raw else _escaped_cell

    def begin(self) -> bytes:
        return _csv([[self._cell(name)] for name in self._names])

    def rows(self, block: list[tuple[Any, ...]]) -> bytes:
        return _csv(
            [list(map(self._cell, values)) for values in plain_columns(self._columns, block)]
        )

    def end(self) -> bytes:
        return b""


def _csv(columns: Sequence[Sequence[str]]) -> bytes:
    # The csv module works character by character, which takes twice as long.
    lines = map(",".join, zip(*columns, strict=True))
    return "".join([f"{line}\r\n" for line in lines]).encode()


def _escaped_cell(value: object) -> str:
    """Return the cell, with an apostrophe before text that a spreadsheet would evaluate."""
    if type(value) is not str:
        return _cell(value)
    shown = value.lstrip(_INVISIBLE) if value.startswith(_FIRST_INVISIBLE) else value
    if shown.startswith(_FORMULA_PREFIXES) and not _NUMBER.match(shown):
        return _cell(f"'{value}")
    return _cell(value)


def _cell(value: object) -> str:
    """Return the cell in RFC 4180: null is empty, an empty string is quoted."""
    kind = type(value)
    if kind is str:
        text = str(value)
    elif value is None:
        return ""
    elif kind is int or kind is float:
        # NaN and the infinities are empty, as they are null in JSON.
        return str(value) if value - value == 0 else ""  # type: ignore[operator]
    else:
        text = encode(value).decode()
    if not text or _SPECIAL.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text
