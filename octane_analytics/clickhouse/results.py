"""What a statement answers, for all who read it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

STREAM_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class ResultColumn:
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Result:
    columns: tuple[ResultColumn, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class RowStream:
    columns: tuple[ResultColumn, ...]
    blocks: Iterator[list[tuple[Any, ...]]]
    """Of STREAM_ROWS rows at most, none empty; to be gone through once."""
    rows_read: Callable[[], int]
    """How many the server has read so far; of all, once the blocks have come to their end."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The beginning of a result, or all of it."""

    columns: tuple[ResultColumn, ...]
    rows: list[tuple[Any, ...]]
    is_whole: bool
    rows_read: int
    """By the server, as far as it had told when reading ended."""
    totals: tuple[Any, ...] | None = None
    """The row of WITH TOTALS, where reading came to it."""


def result_columns(columns: Sequence[tuple[str, str]]) -> tuple[ResultColumn, ...]:
    """Of the names and types as the driver tells them."""
    return tuple(ResultColumn(name, kind) for name, kind in columns)
