"""Choice of the decoder of polled record values: the compiled one, or the one in Python.

Both return the same. The compiled one is built at the installation, where a C compiler is; it decodes
the values that it is certain about and leaves all others to the one in Python.
"""

from collections.abc import Sequence
from typing import NamedTuple

from octane_analytics.errors import ConfigError, DecodeError
from octane_analytics.events.decode import append_row, decode, decode_all
from octane_analytics.events.event import Decode, Decoded
from octane_analytics.events.packed_columns import new_columns

try:
    from octane_analytics.events._decoding import pack
except ImportError as error:
    _MISSING = f"the compiled decoder cannot be loaded: {error}"
else:
    _MISSING = ""

AUTO, COMPILED, PYTHON = "auto", "compiled", "python"
CHOICES = (AUTO, COMPILED, PYTHON)


class Decoder(NamedTuple):
    """Decoder of many values, by name."""

    name: str
    """`compiled` or `python`."""
    decode: Decode
    missing: str = ""
    """Why it is not the compiled one; empty if it is, or if the one in Python was chosen."""


def choose(choice: str) -> Decoder:
    """Return the decoder for a value of DECODER. Raise ConfigError if it cannot be loaded."""
    if choice == PYTHON:
        return Decoder(PYTHON, decode_all)
    if not _MISSING:
        return Decoder(COMPILED, decode_compiled)
    if choice == COMPILED:
        raise ConfigError(
            f"DECODER is {COMPILED!r}, but {_MISSING}: install a C compiler and Python's headers and "
            f"repeat the installation, or set DECODER={AUTO}"
        )
    return Decoder(PYTHON, decode_all, _MISSING)


def decode_compiled(values: Sequence[bytes | None]) -> Decoded:
    """Decode like `decode.decode_all`, at a quarter of the cost."""
    columns = new_columns()
    invalid: list[tuple[int, str, str]] = []
    listed = values if isinstance(values, list) else list(values)
    at = 0
    while True:
        rows, *chunks = pack(listed, at)
        if rows:
            for column, chunk in zip(columns, chunks, strict=True):
                column.append_packed(chunk, rows)
        at += rows
        if at >= len(listed):
            return Decoded(columns, invalid)
        try:
            row = decode(listed[at])
        except DecodeError as error:
            invalid.append((at, error.reason, error.detail))
        else:
            append_row(columns, row)
        at += 1
