"""Events as rows and as columns."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from octane_analytics.events.packed_columns import PackedColumn


class Row(NamedTuple):
    """Event as stored, in the order of the table's columns."""

    timestamp: int
    """Epoch seconds, UTC."""
    app_id: str
    event_name: str
    user_id: str
    properties: bytes
    """JSON text of the object, unchanged byte for byte."""


Columns = tuple[PackedColumn[Any], ...]


class Decoded(NamedTuple):
    """Decoded events as columns, and the invalid values."""

    columns: Columns
    """One column for each field of Row, in the order of the values; text is UTF-8."""
    invalid: list[tuple[int, str, str]]
    """Index of the value, reason and detail; in ascending order."""


Decode = Callable[[Sequence[bytes | None]], Decoded]
"""Decoder of record values; None is a tombstone."""
