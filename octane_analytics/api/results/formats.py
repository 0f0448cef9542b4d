"""Formats of results: content negotiation, and a writer of each format.

A writer converts blocks of rows into chunks of bytes, so that a result of any size needs the memory of
one block. Does not depend on HTTP connections or on the source of the rows.

| format | media type | content |
|---|---|---|
| `json` | application/json | one object: columns, rows, whether they were truncated |
| `ndjson` | application/x-ndjson | one object per row |
| `csv` | text/csv | RFC 4180 with a header; null is empty, arrays and objects are JSON |
| `prometheus` | text/plain | a gauge for each numeric column, the others as labels |
| `arrow`, `parquet` | application/vnd.apache.… | needs the extra `arrow` |

In CSV, text that a spreadsheet would evaluate is prefixed with an apostrophe, unless `csv_raw` is set.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from octane_analytics.api.results import arrow
from octane_analytics.api.results.csv_cells import CsvWriter
from octane_analytics.api.results.json_values import encode, encode_lines, plain_columns, unique
from octane_analytics.api.results.prometheus_text import PrometheusWriter
from octane_analytics.clickhouse.results import DataRead, ResultColumn
from octane_analytics.errors import QueryError

Row = tuple[Any, ...]


_EXTENSIONS = {"prometheus": "txt"}


@dataclass(frozen=True, slots=True)
class Format:
    name: str
    media_type: str
    accepted: tuple[str, ...]
    """Media types in Accept that select this format, without parameters."""
    is_download: bool = False
    """True if a browser saves the answer, under a name that ends with the format's."""

    def headers(self, stem: str, *, is_download: bool = False) -> dict[str, str]:
        """Return the headers of an answer that is saved as `stem`, ASCII without quotes.

        is_download has a browser save an answer of any format.
        """
        headers = {"Content-Type": self.media_type}
        if is_download or self.is_download:
            headers["Content-Disposition"] = (
                f'attachment; filename="{stem}.{_EXTENSIONS.get(self.name, self.name)}"'
            )
        return headers


FORMATS = {
    each.name: each
    for each in (
        Format("json", "application/json", ("application/json",)),
        Format(
            "ndjson",
            "application/x-ndjson",
            ("application/x-ndjson", "application/ndjson", "application/jsonl"),
            is_download=True,
        ),
        Format("csv", "text/csv; charset=utf-8; header=present", ("text/csv",), is_download=True),
        Format(
            "prometheus",
            "text/plain; version=0.0.4; charset=utf-8",
            ("text/plain",),
        ),
        Format(
            "arrow",
            "application/vnd.apache.arrow.stream",
            ("application/vnd.apache.arrow.stream",),
            is_download=True,
        ),
        Format(
            "parquet",
            "application/vnd.apache.parquet",
            ("application/vnd.apache.parquet",),
            is_download=True,
        ),
    )
}
JSON = FORMATS["json"]


def choose(
    name: str | None, accept: str, offered: Mapping[str, Format] = MappingProxyType(FORMATS)
) -> Format:
    """Return the format `name`, else the one that the Accept header prefers, else JSON.

    `offered` must contain JSON. Raises QueryError: 422 for an unknown name, 406 if the header accepts
    none of the formats, 501 if the library of the format is not installed.
    """
    chosen = _named(name, offered) if name is not None else _accepted(accept, offered)
    if chosen.name in arrow.FORMATS and not arrow.is_available():
        raise QueryError(
            501,
            "format_not_installed",
            f"{chosen.name} needs the extra `arrow`: pip install 'octane-analytics[arrow]'",
        )
    return chosen


def _named(name: str, offered: Mapping[str, Format]) -> Format:
    if name not in offered:
        raise QueryError(
            422,
            "bad_parameter",
            f"format must be one of {', '.join(offered)}",
            parameter="format",
        )
    return offered[name]


def _accepted(accept: str, offered: Mapping[str, Format]) -> Format:
    ranked: list[tuple[float, int, Format]] = []
    for position, item in enumerate(accept.split(",")):
        media, *options = (part.strip().lower() for part in item.split(";"))
        quality = _quality(options)
        if quality <= 0:
            continue
        if media in ("", "*/*", "application/*"):
            ranked.append((-quality, position, JSON))
        ranked += [
            (-quality, position, each)
            for each in offered.values()
            if media in each.accepted or (media == "text/*" and each.name == "csv")
        ]
    if not ranked:
        raise QueryError(
            406,
            "not_acceptable",
            "none of the media types in Accept is available",
            available=[each.accepted[0] for each in offered.values()],
        )
    return min(ranked, key=lambda each: each[:2])[2]


def _quality(options: Sequence[str]) -> float:
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


class Rows:
    """The rows of a response in blocks, truncated to `max_rows`.

    Can be iterated once; `count` and `is_truncated` are valid after that.
    """

    def __init__(self, blocks: Iterable[list[Row]], max_rows: int) -> None:
        self._blocks = blocks
        self._max_rows = max_rows
        self.count = 0
        self.is_truncated = False

    def __iter__(self) -> Iterator[list[Row]]:
        for block in self._blocks:
            room = self._max_rows - self.count
            if len(block) > room:
                self.is_truncated = True
                block = block[:room]
            if block:
                self.count += len(block)
                yield block


def cost(read: DataRead | None, started: float) -> dict[str, object]:
    """Return the members of a JSON answer about its cost; `started` is by time.perf_counter().

    `read` is None if the client may not know it.
    """
    elapsed = round((time.perf_counter() - started) * 1000, 3)
    known = {} if read is None else {"rows_read": read.rows, "bytes_read": read.bytes}
    return {**known, "elapsed_ms": elapsed}


def server_timing(seconds: float) -> dict[str, str]:
    """Return the header for the time that ClickHouse and encoding took. Format: W3C Server Timing."""
    return {"Server-Timing": f"query;dur={seconds * 1000:.1f}"}


def read_headers(read: DataRead | None) -> dict[str, str]:
    """Return the headers for what ClickHouse read, which JSON says too; none if it is not known."""
    if read is None:
        return {}
    return {"X-Rows-Read": str(read.rows), "X-Bytes-Read": str(read.bytes)}


@dataclass(frozen=True, slots=True)
class Envelope:
    """Members of a JSON response before and after the rows. `after` is called after the last row."""

    before: Mapping[str, object]
    after: Callable[[], Mapping[str, object]]


class Writer(Protocol):
    """Call `begin`, then `rows` for each block, then `end`; the joined results are the body."""

    def begin(self) -> bytes: ...
    def rows(self, block: list[Row]) -> bytes: ...
    def end(self) -> bytes: ...


def writer(
    format: Format,  # noqa: A002
    columns: Sequence[ResultColumn],
    rows: Rows,
    envelope: Envelope,
    *,
    is_csv_raw: bool = False,
    has_safe_integers: bool = False,
) -> Writer:
    """Return a writer for these columns. Raises QueryError (406) if the format cannot represent them.

    `is_csv_raw` turns off the apostrophe before CSV cells that a spreadsheet would evaluate;
    `has_safe_integers` writes integers beyond 2^53 as strings in JSON.
    """
    match format.name:
        case "json":
            return _Json(columns, rows, envelope, has_safe_integers)
        case "ndjson":
            return _Ndjson(columns, has_safe_integers)
        case "csv":
            return CsvWriter(columns, is_raw=is_csv_raw)
        case "prometheus":
            return PrometheusWriter(columns, str(envelope.before.get("template", "query")))
        case _:
            return arrow.writer(format.name, columns)


class _Json:
    def __init__(
        self,
        columns: Sequence[ResultColumn],
        rows: Rows,
        envelope: Envelope,
        has_safe_integers: bool,
    ) -> None:
        self._has_safe_integers = has_safe_integers
        self._names = unique([column.name for column in columns])
        self._columns = columns
        self._rows = rows
        self._envelope = envelope
        self._has_rows = False

    def begin(self) -> bytes:
        described = [
            {"name": name, "type": column.type}
            for name, column in zip(self._names, self._columns, strict=True)
        ]
        head = encode({**self._envelope.before, "columns": described})
        return head[:-1] + b',"rows":['

    def rows(self, block: list[Row]) -> bytes:
        lines = encode_lines(_objects(self._names, self._columns, block, self._has_safe_integers))
        separator = b"," if self._has_rows else b""
        self._has_rows = True
        # Line breaks inside strings are escaped, so that each one separates two rows.
        return separator + lines[:-1].replace(b"\n", b",")

    def end(self) -> bytes:
        tail = encode(
            {
                "row_count": self._rows.count,
                "truncated": self._rows.is_truncated,
                **self._envelope.after(),
            }
        )
        return b"]," + tail[1:]


class _Ndjson:
    def __init__(self, columns: Sequence[ResultColumn], has_safe_integers: bool) -> None:
        self._has_safe_integers = has_safe_integers
        self._names = unique([column.name for column in columns])
        self._columns = columns

    def begin(self) -> bytes:
        return b""

    def rows(self, block: list[Row]) -> bytes:
        return encode_lines(_objects(self._names, self._columns, block, self._has_safe_integers))

    def end(self) -> bytes:
        return b""


def row_object(
    columns: Sequence[ResultColumn], row: Row, *, has_safe_integers: bool = False
) -> dict[str, object]:
    """Return one row as an object for JSON."""
    names = unique([column.name for column in columns])
    return _objects(names, columns, [row], has_safe_integers)[0]


def _objects(
    names: Sequence[str],
    columns: Sequence[ResultColumn],
    block: list[Row],
    has_safe_integers: bool,
) -> list[dict[str, object]]:
    return [
        dict(zip(names, row, strict=True))
        for row in zip(
            *plain_columns(columns, block, has_safe_integers=has_safe_integers), strict=True
        )
    ]
