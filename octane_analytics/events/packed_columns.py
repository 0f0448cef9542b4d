"""Columns of packed values, without a Python object for each value.

The packing is that of ClickHouse's Native format (its documentation, "Native" and "RowBinary"): a second
is four bytes, little-endian; a text follows its length in bytes as an LEB128 varint. So an insert copies
bytes that were packed when the record was read. That takes half the memory of lists of texts, and a
third of the time of an insert from them.
"""

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from sys import byteorder
from typing import Any, Generic, Self, TypeVar, overload

_V = TypeVar("_V")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


_VARINTS = [_varint(number) for number in range(1 << 14)]
"""Varints of one or two bytes, which cover nearly all lengths."""
_ASCII_VARINTS = [chr(number) for number in range(1 << 7)]


class PackedColumn(Sequence[_V], Generic[_V]):
    """Append-only column. Iteration and indexing unpack all of it."""

    __slots__ = ("_rows", "chunks")

    def __init__(self, values: Iterable[_V] = ()) -> None:
        self.chunks: list[bytes] = []
        """Parts whose concatenation is the packed column."""
        self._rows = 0
        self.extend(values)

    def __len__(self) -> int:
        return self._rows

    def append_packed(self, chunk: bytes, rows: int) -> None:
        """Append packed values; `rows` is their number."""
        self.chunks.append(chunk)
        self._rows += rows

    def extend(self, values: Iterable[_V]) -> None:
        if isinstance(values, PackedColumn):
            self.chunks += values.chunks
            self._rows += len(values)
        elif more := list(values):
            self.append_packed(self._pack(more), len(more))

    def __iadd__(self, values: Iterable[_V]) -> Self:
        self.extend(values)
        return self

    def __iter__(self) -> Iterator[_V]:
        return iter(self._unpack(b"".join(self.chunks)))

    @overload
    def __getitem__(self, index: int) -> _V: ...
    @overload
    def __getitem__(self, index: slice) -> list[_V]: ...
    def __getitem__(self, index: int | slice) -> _V | list[_V]:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"

    @abstractmethod
    def _pack(self, values: list[_V]) -> bytes: ...

    @abstractmethod
    def _unpack(self, packed: bytes) -> Sequence[_V]: ...


class SecondsColumn(PackedColumn[int]):
    """Epoch seconds from 0 to 2**32 - 1, as in ClickHouse's DateTime."""

    __slots__ = ()

    def _pack(self, values: list[int]) -> bytes:
        return pack_seconds(values)

    def _unpack(self, packed: bytes) -> Sequence[int]:
        return _little_endian(array("I", packed))


class TextColumn(PackedColumn[bytes]):
    """UTF-8 texts, as in ClickHouse's String."""

    __slots__ = ()

    def _pack(self, values: list[bytes]) -> bytes:
        return pack_bytes(values)[0]

    def _unpack(self, packed: bytes) -> Sequence[bytes]:
        values, at = [], 0
        while at < len(packed):
            length = shift = 0
            while True:
                byte = packed[at]
                at += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            values.append(packed[at : at + length])
            at += length
        return values


def new_columns() -> tuple[PackedColumn[Any], ...]:
    """Return empty columns, in the order of `event.Row`."""
    return SecondsColumn(), TextColumn(), TextColumn(), TextColumn(), TextColumn()


def pack_seconds(values: Sequence[int]) -> bytes:
    return _little_endian(array("I", values)).tobytes()


def pack_bytes(values: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """Return the packed texts, and the byte position at which each text starts, after its length."""
    parts: list[Any] = [None] * (2 * len(values))
    parts[::2] = _lengths(values)
    parts[1::2] = values
    return b"".join(parts), list(accumulate(map(len, parts)))[::2]


def pack_texts(values: Sequence[str]) -> bytes:
    """Return the packed texts; encodes all at once if they are short ASCII texts."""
    parts: list[Any] = [None] * (2 * len(values))
    try:
        parts[::2] = map(_ASCII_VARINTS.__getitem__, map(len, values))
    except IndexError:
        return pack_bytes([value.encode() for value in values])[0]
    parts[1::2] = values
    packed = "".join(parts)
    if packed.isascii():
        return packed.encode()
    return pack_bytes([value.encode() for value in values])[0]


def pack_text(value: str) -> bytes:
    return pack_bytes([value.encode()])[0]


def _lengths(values: Sequence[bytes]) -> Iterable[bytes]:
    try:
        return list(map(_VARINTS.__getitem__, map(len, values)))
    except IndexError:
        return [_varint(len(value)) for value in values]


def _little_endian(seconds: "array[int]") -> "array[int]":
    if byteorder == "big":
        seconds.byteswap()
    return seconds
