"""Numbers in URLs and on command lines."""

import re

_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def from_text(text: str) -> float:
    """Return the decimal number; infinity beyond a double.

    Raises ValueError for any other text, also what `float` would read: `nan`, `1_000`, other digits.
    """
    if not _DECIMAL.fullmatch(text):
        raise ValueError("is not a decimal number")
    return float(text)
