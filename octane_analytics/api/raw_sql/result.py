"""Serialization of raw SQL results, truncated to the maximum size of an answer.

Does not depend on requests or on how a format writes rows.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from octane_analytics.api.results.formats import (
    FORMATS,
    JSON,
    Envelope,
    Format,
    Row,
    Rows,
    cost,
    row_object,
    writer,
)
from octane_analytics.clickhouse.results import DataRead, Excerpt
from octane_analytics.errors import QueryError

OFFERED = {name: each for name, each in FORMATS.items() if name != "prometheus"}
"""Formats of raw SQL: not Prometheus text, whose metric labels the client could choose."""

_ESCAPE_BYTES = 6
"""Maximum bytes of a character in JSON (control characters); bounds a row before it is encoded."""
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SerializedResult:
    body: bytes
    row_count: int
    is_truncated: bool
    read: DataRead


def serialize(
    excerpt: Excerpt,
    output_format: Format,
    max_bytes: int,
    started: float,
    *,
    is_csv_raw: bool = False,
) -> SerializedResult:
    """Serialize as many rows as fit; `started` is the query's start by time.perf_counter().

    The client chooses the column names, which may repeat in each row, so the size of the server's result
    does not bound that of the answer. Raises QueryError: 422 if not even one row fits, or if the format
    cannot separate totals; 406 if it cannot represent the columns.
    """
    if excerpt.totals is not None and output_format is not JSON:
        raise QueryError(
            422,
            "totals_need_json",
            f"{output_format.name} cannot separate the row of WITH TOTALS: request json, "
            "or use WITH ROLLUP",
        )
    rows = Rows(_consumed(excerpt.rows), len(excerpt.rows))

    def trailer() -> dict[str, object]:
        spent = cost(excerpt.data_read, started)
        if excerpt.totals is None:
            return spent
        return {"totals": row_object(excerpt.columns, excerpt.totals), **spent}

    envelope = Envelope({}, trailer)
    output = writer(output_format, excerpt.columns, rows, envelope, is_csv_raw=is_csv_raw)
    body = io.BytesIO()  # joining parts would hold the answer twice
    body.write(output.begin())
    remaining_bytes = max_bytes
    for block in rows:
        is_encodable = _text_length(block[0]) * _ESCAPE_BYTES <= max(max_bytes, _SMALL_BYTES)
        part = output.rows(block) if is_encodable else b""
        remaining_bytes -= len(part)
        if remaining_bytes < 0 or not is_encodable:
            rows.count -= 1
            rows.is_truncated = True
            break
        body.write(part)
    if not excerpt.is_whole:
        rows.is_truncated = True
    if rows.is_truncated and not rows.count:
        raise QueryError(
            422,
            "result_too_large",
            f"a row or block of the result has more than {max_bytes} bytes, or more values than fit "
            "into twice that: select fewer or shorter columns",
        )
    body.write(output.end())
    return SerializedResult(body.getvalue(), rows.count, rows.is_truncated, excerpt.data_read)


def _consumed(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield each row once and drop it from the list, so that values and their text are not both held."""
    rows.reverse()
    while rows:
        yield [rows.pop()]


def _text_length(row: Row) -> int:
    return sum(len(value) for value in row if isinstance(value, str))
