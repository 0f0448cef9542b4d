"""Results as an Arrow stream or a Parquet file; needs pyarrow (the extra `arrow`).

| ClickHouse | Arrow |
|---|---|
| (U)Int8 … (U)Int64, Float32, Float64, Bool | the same |
| Date, Date32 | date32 |
| DateTime, DateTime64 | timestamp in microseconds, UTC |
| String and the like | string |
| Array of the above | list |
| anything else | string: its JSON |
"""

import importlib
import importlib.util
import io
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from octane_analytics.api.results.json_values import encode, plain, unique
from octane_analytics.clickhouse.results import ResultColumn

FORMATS = ("arrow", "parquet")
_GROUP_ROWS = 20_000

_WRAPPED = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)")
_ARRAY = re.compile(r"Array\((.*)\)")
_NUMBERS = {
    **{
        f"{sign.upper()}Int{bits}": f"{sign}int{bits}"
        for sign in ("u", "")
        for bits in (8, 16, 32, 64)
    },
    "Float32": "float32",
    "Float64": "float64",
    "Bool": "bool_",
}

Row = tuple[Any, ...]


def is_available() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def writer(name: str, columns: Sequence[ResultColumn]) -> "ArrowWriter":
    """Return a writer of `arrow` or `parquet`. Imports pyarrow, which is slow."""
    return ArrowWriter(name, columns)


class ArrowWriter:
    """A `formats.Writer` that writes a record batch or row group per `_GROUP_ROWS` rows or more."""

    def __init__(self, name: str, columns: Sequence[ResultColumn]) -> None:
        # Imported here because the library is large and optional.
        self._pa: Any = importlib.import_module("pyarrow")
        self._conversions = [_arrow_type(self._pa, column.type) for column in columns]
        names = unique([column.name for column in columns])
        types = [kind for kind, _ in self._conversions]
        self._schema = self._pa.schema(list(zip(names, types, strict=True)))
        self._sink = _Sink()
        if name == "parquet":
            parquet: Any = importlib.import_module("pyarrow.parquet")
            self._out = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        else:
            self._out = self._pa.ipc.new_stream(self._sink, self._schema)
        self._pending: list[Row] = []

    def begin(self) -> bytes:
        return self._sink.drain()

    def rows(self, block: list[Row]) -> bytes:
        # Row groups of a few thousand rows would make the file large and slow.
        self._pending += block
        if len(self._pending) < _GROUP_ROWS:
            return b""
        self._flush()
        return self._sink.drain()

    def end(self) -> bytes:
        self._flush()
        self._out.close()
        return self._sink.drain()

    def _flush(self) -> None:
        if not self._pending:
            return
        arrays = [
            self._pa.array(values if convert is None else list(map(convert, values)), kind)
            for (kind, convert), values in zip(
                self._conversions, zip(*self._pending, strict=True), strict=True
            )
        ]
        self._out.write_batch(self._pa.record_batch(arrays, schema=self._schema))
        self._pending = []


class _Sink(io.RawIOBase):
    """Buffer of written bytes that `drain` removes.

    Positions still count from the first byte of the file, as the footer of a Parquet file needs.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._written += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._written

    def drain(self) -> bytes:
        chunk = b"".join(self._parts)
        self._parts = []
        return chunk


def _arrow_type(pa: Any, kind: str) -> tuple[Any, Callable[[Any], object] | None]:
    """Return the Arrow type of a ClickHouse type, and the conversion of its values, if any."""
    while wrapped := _WRAPPED.fullmatch(kind):
        kind = wrapped[1]
    if kind in _NUMBERS:
        return getattr(pa, _NUMBERS[kind])(), None
    if kind in ("Date", "Date32"):
        return pa.date32(), None
    if kind.startswith("DateTime"):
        return pa.timestamp("us", tz="UTC"), _to_utc
    array = _ARRAY.fullmatch(kind)
    if array:
        item, convert = _arrow_type(pa, array[1])
        if convert is None:
            return pa.list_(item), None
        return pa.list_(item), lambda values: [convert(value) for value in values]
    return pa.string(), _to_text


def _to_utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


def _to_text(value: object) -> str | None:
    converted = plain(value)
    if converted is None or isinstance(converted, str):
        return converted
    return encode(converted).decode()
