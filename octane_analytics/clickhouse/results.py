"""Results of statements."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

STREAM_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class ResultColumn:
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Result:
    columns: tuple[ResultColumn, ...]
    rows: list[tuple[Any, ...]]


class DataRead(NamedTuple):
    """Amount of data that the server has read for a statement."""

    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RowStream:
    columns: tuple[ResultColumn, ...]
    blocks: Iterator[list[tuple[Any, ...]]]
    """Blocks of up to STREAM_ROWS rows, none empty; can be iterated over once."""
    data_read: Callable[[], DataRead]
    """Data that the server has read so far; final after the last block."""
    totals: Callable[[], tuple[Any, ...] | None] = lambda: None
    """Row of WITH TOTALS after the last block; None if there is none."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Complete result, or its first rows."""

    columns: tuple[ResultColumn, ...]
    rows: list[tuple[Any, ...]]
    is_whole: bool
    data_read: DataRead
    """Data read by the server, as reported when reading ended."""
    totals: tuple[Any, ...] | None = None
    """Row of WITH TOTALS, if it was received."""


def result_columns(columns: Sequence[tuple[str, str]]) -> tuple[ResultColumn, ...]:
    """Convert the driver's names and types."""
    return tuple(ResultColumn(name, kind) for name, kind in columns)
