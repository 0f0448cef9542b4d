"""An event as a row, and many of them as columns."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from octane_analytics.events.packed_columns import PackedColumn


class Row(NamedTuple):
    """One event as the table stores it, in the order of its columns."""

    timestamp: int
    """Epoch seconds, UTC."""
    app_id: str
    event_name: str
    user_id: str
    properties: bytes
    """The object's JSON text, byte for byte as it came."""


Columns = tuple[PackedColumn[Any], ...]


class Decoded(NamedTuple):
    """Many events as columns, and which of the values are none."""

    columns: Columns
    """Row's fields, each for all events, in the order of their values; text is in UTF-8."""
    invalid: list[tuple[int, str, str]]
    """Index among the values, reason and detail; in ascending order."""


Decode = Callable[[Sequence[bytes | None]], Decoded]
"""Takes the values of records; None is a tombstone."""
