"""Order of packed rows by the table's sorting key: application, event name, second.

A batch has its rows in the order in which they were read. ClickHouse sorts every block that it receives
and copies the columns into that order, unless the block is sorted already. The compiled part does both
for a fraction of the cost, because few pairs of application and event name are different. It is
optional: without it rows are sent as they are, and ClickHouse sorts them.

Nothing depends on the order in which the rows of a block are sent. A token stands for the ranges of the
batch, for tables and for their materialized views; a recovery reads its partitions in another order than
the first owner; missing rows are counted by their values and numbered as in the caller's columns, which
stay as they are. Equal keys keep their order, as in ClickHouse, so that the rows lie on disk as those of
an unsorted block would.
"""

from collections.abc import Callable, Sequence

from octane_analytics.events.packed_columns import PackedColumn, SecondsColumn

try:
    from octane_analytics.events import _ordering
except ImportError:  # there was no compiler
    _ordering = None  # type: ignore[assignment]

KEY = ("app_id", "event_name", "timestamp")
"""Columns of the order. A table with another sorting key sorts the rows again."""
MIN_ROWS = 1_000
"""Number of rows from which on ClickHouse saves more than sorting costs here."""


def sorting_order(columns: Sequence[object]) -> bytes | None:
    """Return the order of the rows for `write_in_order`; None if they are to be sent as they are.

    The columns are those of `event.Row`. Raise ValueError if their packing is invalid.
    """
    packed = [column for column in columns if isinstance(column, PackedColumn)]
    if _ordering is None or len(packed) < len(columns):
        return None
    timestamps, app_ids, event_names = packed[:3]
    rows = len(timestamps)
    if rows < MIN_ROWS:
        return None
    return _ordering.row_order(timestamps.chunks, app_ids.chunks, event_names.chunks, rows)


def write_in_order(
    column: PackedColumn[object], order: bytes, write: Callable[[bytes], object]
) -> None:
    """Call `write` with the packed column in this order, piece by piece: there is never a second copy of
    the column. Raise ValueError if its packing is invalid."""
    is_seconds = isinstance(column, SecondsColumn)
    (_ordering.write_seconds if is_seconds else _ordering.write_texts)(column.chunks, order, write)
