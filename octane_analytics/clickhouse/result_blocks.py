"""Input stream of result blocks, bounded before the values become Python objects.

The size of a block says little about the memory of its values: a byte of `Array(UInt8)` becomes four
pointers, two bytes of `Date` become an object, its text and their places in lists. The driver unpacks a
whole column in one call, which holds the interpreter's lock. So each column's values are charged before
the driver creates them, at an estimate of their memory until the response is encoded, and a block that
exceeds the budget is refused. Does not depend on HTTP or on the use of the rows.
"""

import functools
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from clickhouse_driver import defines
from clickhouse_driver import errors as driver_errors
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.bufferedreader import CompressedBufferedReader
from clickhouse_driver.columns.arraycolumn import ArrayColumn
from clickhouse_driver.columns.base import Column, FormatColumn
from clickhouse_driver.columns.datetimecolumn import DateTime64Column
from clickhouse_driver.columns.lowcardinalitycolumn import LowCardinalityColumn
from clickhouse_driver.columns.service import get_column_by_spec
from clickhouse_driver.reader import read_binary_bytes, read_binary_uint8
from clickhouse_driver.streams.native import BlockInputStream
from clickhouse_driver.varint import read_varint

MEMORY_FACTOR = 2
"""Memory limit of a result, as a multiple of its byte limit."""
_CELL_BYTES = 128
"""Memory of an object, its places in a tuple, two lists and a row, and its text in the response."""
_CELL_BYTES_PER_WIRE_BYTE = 16
_TEXT_COPIES = 3
"""Copies of a text: the driver's bytes, the string, and the response's bytes."""
_ESCAPED_TEXT_COPIES = 8
"""Copies of a nested text: JSON escapes a control character with six, and encodes a row at once."""
_MAX_TYPE_CHARACTERS = 32 << 10
"""Length of all long types of a block: the driver parses each one, at 0.1 ms for a nested type."""
_SHORT_TYPE_CHARACTERS = 64
_OPAQUE = ("JSON", "Object(", "Dynamic", "Variant(")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CHARACTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "0": "\0"}
"""Characters after a backslash in the name of an Enum, whose escapes the driver does not know."""
_CHILDREN = ("nested_column", "key_column", "value_column")


class ResultTooLarge(Exception):
    """Raised for a result over its budget; the connection is in the middle of a block."""


class UnreadableResult(Exception):
    """Raised for a value or a type that the driver cannot read."""


class ResultMeter:
    """Budget of one result: bytes after decompression, and memory of its values."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.reset()

    def reset(self) -> None:
        """Restore the budget, for results whose blocks are released one by one."""
        self._bytes_left = self._max_bytes
        self._memory_left = MEMORY_FACTOR * self._max_bytes

    def add_bytes(self, count: int) -> None:
        """Charge bytes. Raise ResultTooLarge if the result exceeds its bytes."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise ResultTooLarge

    def add_memory(self, count: int) -> None:
        """Charge memory. Raise ResultTooLarge if the values exceed their memory."""
        self._memory_left -= count
        if self._memory_left < 0:
            raise ResultTooLarge


class ResultBlocks(BlockInputStream):  # type: ignore[misc]  # the driver has no types
    """Driver's input stream of blocks that charges `meter`, if set, for each column."""

    def __init__(self, source: BlockInputStream) -> None:
        fin = source.fin
        if isinstance(fin, CompressedBufferedReader):
            # Replaced by a metered reader; nothing has been read yet.
            self._read_block: Callable[[], bytes] = source.read_block
            fin = CompressedBufferedReader(self._metered_block, defines.BUFFER_SIZE)
        super().__init__(fin, source.context)
        self.meter: ResultMeter | None = None

    def _metered_block(self) -> bytes:
        block = self._read_block()
        if self.meter is not None:
            self.meter.add_bytes(len(block))
        return block

    def read(self, use_numpy: bool | None = None) -> ColumnOrientedBlock:
        """Read a block. Raise ResultTooLarge, or UnreadableResult if the driver cannot read a value."""
        try:
            return self._read()
        except (
            driver_errors.Error,
            OSError,
            EOFError,
            ResultTooLarge,
            UnreadableResult,
            NotImplementedError,
        ):
            raise
        except (Exception, RecursionError) as error:
            # Zones unknown to pytz, years outside Python's dates, types nested too deeply.
            raise UnreadableResult(f"{type(error).__name__}: {error}") from error

    def _read(self) -> ColumnOrientedBlock:
        info = BlockInfo()
        revision = self.context.server_info.used_revision
        if revision >= defines.DBMS_MIN_REVISION_WITH_BLOCK_INFO:
            info.read(self.fin)
        column_count, row_count = read_varint(self.fin), read_varint(self.fin)
        names_and_types, data = [], []
        type_characters = 0
        for _ in range(column_count):
            name, kind = _read_text(self.fin), _read_text(self.fin)
            if len(kind) > _SHORT_TYPE_CHARACTERS and self.meter is not None:
                type_characters += len(kind)
                if type_characters > _MAX_TYPE_CHARACTERS:
                    raise UnreadableResult("types of more than 32,768 characters")
            names_and_types.append((name, kind))
            has_custom_serialization = False
            if revision >= defines.DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION:
                has_custom_serialization = bool(read_binary_uint8(self.fin))
            if row_count:
                data.append(self._column(kind, row_count, has_custom_serialization))
        return ColumnOrientedBlock(columns_with_types=names_and_types, data=data, info=info)

    def _column(self, kind: str, row_count: int, has_custom_serialization: bool) -> Sequence[Any]:
        options = {"context": self.context, "has_custom_serialization": has_custom_serialization}
        column = get_column_by_spec(_ESCAPE.sub(_character, kind), options)
        column.read_state_prefix(self.fin)
        _keep_fractions(column)
        source: Any = self.fin
        if self.meter is not None:
            is_opaque = any(name in kind for name in _OPAQUE)
            is_nested = is_opaque or any(name in kind for name in ("Array(", "Map(", "Tuple("))
            source = _MeteredReader(self.fin, self.meter, is_opaque, is_nested)
            _meter_column(column, self.meter)
        values: Sequence[Any] = column.read_data(row_count, source)
        return values


def _read_text(source: Any) -> str:
    """Read the name or type of a column, which may quote a literal that is not UTF-8."""
    return bytes(read_binary_bytes(source)).decode(errors="replace")


def _character(found: re.Match[str]) -> str:
    return _CHARACTERS.get(found[1], found[0])


class _MeteredReader:
    """Charges values that columns read directly: array offsets, strings, and all of opaque types."""

    def __init__(self, fin: Any, meter: ResultMeter, is_opaque: bool, is_nested: bool) -> None:
        self.uncharged = fin
        self._meter = meter
        self._per_byte = _CELL_BYTES if is_opaque else _CELL_BYTES_PER_WIRE_BYTE
        self._per_text_byte = _ESCAPED_TEXT_COPIES if is_nested else _TEXT_COPIES

    def read_one(self) -> int:
        return int(self.uncharged.read_one())

    def read(self, count: int) -> bytes:
        self._meter.add_memory(count * self._per_byte)
        data: bytes = self.uncharged.read(count)
        return data

    def read_strings(self, count: int, encoding: str | None = None) -> Sequence[Any]:
        return self._charged(self.uncharged.read_strings(count, encoding=encoding))

    def read_fixed_strings(
        self, count: int, length: int, encoding: str | None = None
    ) -> Sequence[Any]:
        self._meter.add_memory(count * length * self._per_text_byte)
        strings: Sequence[Any] = self.uncharged.read_fixed_strings(count, length, encoding=encoding)
        return strings

    def _charged(self, strings: Sequence[Any]) -> Sequence[Any]:
        # Their count is charged already, and their bytes cannot exceed those of the result.
        self._meter.add_memory(sum(map(len, strings)) * self._per_text_byte)
        return strings


def _meter_column(column: Any, meter: ResultMeter) -> None:
    """Make the column and its nested columns charge their values before they read them."""
    if isinstance(column, LowCardinalityColumn):
        _charge_repeated(column, meter)
    elif not isinstance(column, ArrayColumn):  # whose offsets the reader charges
        has_own = type(column).read_data is not Column.read_data
        _charge(column, "read_data" if has_own else "read_items", meter)
    for child in _children(column):
        _meter_column(child, meter)


def _children(column: Any) -> list[Any]:
    named = [getattr(column, name, None) for name in _CHILDREN]
    return [each for each in [*named, *getattr(column, "nested_columns", ())] if each is not None]


def _keep_fractions(column: Any) -> None:
    """Convert DateTime64 with integers: the driver divides doubles, which round far from 1970."""
    if isinstance(column, DateTime64Column):
        column.after_read_items = functools.partial(_times, column)
    for child in _children(column):
        _keep_fractions(child)


def _times(
    column: DateTime64Column, items: Sequence[int], nulls_map: Sequence[int] | None = None
) -> tuple[datetime | None, ...]:
    """Return the times, truncated to the microseconds of Python's datetime."""
    ticks, zone, is_naive = 10**column.scale, column.timezone, column.offset_naive

    def time(item: int) -> datetime:
        second, rest = divmod(item, ticks)
        microsecond = rest * 1_000_000 // ticks
        moment = datetime.fromtimestamp(second, zone).replace(microsecond=microsecond)
        return moment.replace(tzinfo=None) if is_naive else moment

    if nulls_map is None:
        return tuple(map(time, items))
    return tuple(
        None if is_null else time(item) for item, is_null in zip(items, nulls_map, strict=True)
    )


def _charge(column: Any, method: str, meter: ResultMeter) -> None:
    read = getattr(column, method)
    is_fixed = isinstance(column, FormatColumn)

    def charged(count: int, buf: Any) -> Any:
        meter.add_memory(count * _CELL_BYTES)
        # Values of fixed width are charged by their count alone.
        is_charged = is_fixed and isinstance(buf, _MeteredReader)
        return read(count, buf.uncharged if is_charged else buf)

    setattr(column, method, charged)


def _charge_repeated(column: Any, meter: ResultMeter) -> None:
    """Charge strings of a LowCardinality column for each row: each is encoded again."""
    read = column._read_data

    def charged(count: int, buf: Any, nulls_map: Any = None) -> Any:
        meter.add_memory(count * _CELL_BYTES)
        values = read(count, buf, nulls_map)
        texts = sum(len(value) for value in values if isinstance(value, (str, bytes)))
        meter.add_memory(texts * _TEXT_COPIES)
        return values

    column._read_data = charged
