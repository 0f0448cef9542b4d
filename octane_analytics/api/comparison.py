"""Comparison of a report with another range: the range, and the rows of both joined by key.

Each numeric column NAME that is not part of the key is followed by two more: `NAME_before`, the value of
the same key in the compared range, and `NAME_change`, the relative change. Times in a key are compared
by their position in their range. Does not depend on HTTP, or on how SQL is run.
"""

import calendar
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal

import msgspec

from octane_analytics.api.timestamps import Moment, from_epoch, moment
from octane_analytics.clickhouse.results import ResultColumn
from octane_analytics.errors import QueryError

Period = Literal["previous_period", "previous_year"]
PERIODS = ("previous_period", "previous_year")
MAX_COMPARED_ROWS = 10_000
"""Maximum rows of a compared answer, which is held in memory and whose keys are bound as values."""
KEYS = "compared_keys"

Row = tuple[Any, ...]

_NUMERIC = re.compile(r"(?:Nullable\()?(?:U?Int|Float|Decimal)\w*")
_TIME = re.compile(r"(?:Nullable\()?Date")
_DAY_SECONDS = 86_400


class ComparedRange(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from"}
):
    """Range of its own, in the notations of `from` and `to`."""

    start: str | int | float
    to: str | int | float


Comparison = Period | ComparedRange


def from_text(text: str) -> Comparison:
    """Parse the notation of a URL: the name of a period, or FROM/TO. Raises QueryError (422)."""
    if text in PERIODS:
        return text  # type: ignore[return-value]
    start, slash, end = text.partition("/")
    if not slash:
        raise _invalid(f"must be one of {', '.join(PERIODS)} or FROM/TO")
    return ComparedRange(start, end)


def identity(comparison: Comparison) -> object:
    """Return a value that is equal for equal comparisons. Raises QueryError (422)."""
    if isinstance(comparison, str):
        return comparison
    return [_moment(comparison.start), _moment(comparison.to)]


def compared_range(comparison: Comparison, start: int, end: int, now: datetime) -> tuple[int, int]:
    """Return the range to compare `start` to `end` with, in seconds since 1970.

    Raises QueryError (422) if it is empty or does not lie within the range of DateTime.
    """
    if comparison == "previous_period":
        found = (2 * start - end, start)
    elif isinstance(comparison, ComparedRange):
        try:
            found = (_moment(comparison.start).at(now), _moment(comparison.to).at(now))
        except ValueError as error:
            raise _invalid(str(error)) from error
    else:
        found = (_year_before(start), _year_before(end))
    if not 0 <= found[0] < found[1]:
        raise _invalid("has a range that is empty or begins before 1970")
    return found


def columns_with_changes(
    columns: Sequence[ResultColumn], keys: Sequence[str]
) -> tuple[ResultColumn, ...]:
    """Return the columns of the joined rows."""
    joined: list[ResultColumn] = []
    for column in columns:
        joined.append(column)
        if _is_compared(column, keys):
            kind = (
                column.type if column.type.startswith("Nullable(") else f"Nullable({column.type})"
            )
            joined.append(ResultColumn(f"{column.name}_before", kind))
            joined.append(ResultColumn(f"{column.name}_change", "Nullable(Float64)"))
    return tuple(joined)


def is_by_time(columns: Sequence[ResultColumn], keys: Sequence[str]) -> bool:
    """Return whether the key has a time, so that both ranges have the same pages."""
    return any(column.name in keys and _TIME.match(column.type) for column in columns)


def join(
    columns: Sequence[ResultColumn],
    keys: Sequence[str],
    rows: Sequence[Row],
    start: int,
    earlier: Sequence[Row],
    earlier_start: int,
) -> list[Row]:
    """Return the rows with the values of `earlier`; None where it has no row of the same key."""
    before: dict[object, Row] = {}
    for key, row in zip(_keys(columns, keys, earlier, earlier_start), earlier, strict=True):
        before.setdefault(key, row)
    return [
        with_change(columns, keys, row, before.get(key))
        for key, row in zip(_keys(columns, keys, rows, start), rows, strict=True)
    ]


def with_change(
    columns: Sequence[ResultColumn], keys: Sequence[str], row: Row, earlier: Row | None
) -> Row:
    """Return one row with the values of the earlier row and the changes."""
    joined: list[object] = []
    for position, column in enumerate(columns):
        joined.append(row[position])
        if _is_compared(column, keys):
            value = None if earlier is None else earlier[position]
            joined += [value, _change(row[position], value)]
    return tuple(joined)


def _keys(
    columns: Sequence[ResultColumn], keys: Sequence[str], rows: Sequence[Row], start: int
) -> list[object]:
    """Return the key of each row, with times as positions in the range that begins at `start`."""
    parts = [
        _positions([row[index] for row in rows], start)
        if _TIME.match(column.type)
        else [row[index] for row in rows]
        for index, column in enumerate(columns)
        if column.name in keys
    ]
    return list(zip(*parts, strict=True)) if parts else [()] * len(rows)


def _positions(times: Sequence[Any], start: int) -> list[object]:
    if times and all(isinstance(each, date) and not isinstance(each, datetime) for each in times):
        # The nearest midnight of UTC: in a zone with summer time both ranges begin on the same day.
        first = date(1970, 1, 1).toordinal() + (start + _DAY_SECONDS // 2) // _DAY_SECONDS
        return [each.toordinal() - first for each in times]
    numbered = {each: number for number, each in enumerate(sorted(set(times) - {None}))}
    return [numbered.get(each) for each in times]


def _change(value: Any, before: Any) -> float | None:
    if value is None or not before:
        return None
    return round(float(value) / float(before) - 1, 6)


def _is_compared(column: ResultColumn, keys: Sequence[str]) -> bool:
    return column.name not in keys and _NUMERIC.match(column.type) is not None


def _year_before(second: int) -> int:
    time = from_epoch(second)
    last = calendar.monthrange(time.year - 1, time.month)[1]
    earlier = time.replace(year=time.year - 1, day=min(time.day, last), tzinfo=UTC)
    return int(earlier.timestamp())


def _moment(value: object) -> Moment:
    try:
        return moment(value)
    except ValueError as error:
        raise _invalid(str(error)) from error


def _invalid(problem: str) -> QueryError:
    return QueryError(422, "bad_parameter", f"compare {problem}", parameter="compare")
