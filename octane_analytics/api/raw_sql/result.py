"""The answer to raw SQL as bytes: an excerpt of a result in the format asked for, within its size.

Owns where the answer is cut; refuses to know how it was asked for and how rows are written.
"""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass

from octane_analytics.api.results.formats import (
    FORMATS,
    JSON,
    Envelope,
    Format,
    Row,
    Rows,
    row_object,
    writer,
)
from octane_analytics.clickhouse.results import Excerpt
from octane_analytics.errors import QueryError

OFFERED = {name: each for name, each in FORMATS.items() if name != "prometheus"}
"""Prometheus text repeats labels of the client's choice, and is for reports that are gauges."""

_ESCAPE_BYTES = 6
"""JSON's for a control character; a row is encoded before its bytes can be counted."""
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SerializedResult:
    body: bytes
    row_count: int
    is_truncated: bool


def serialize(
    excerpt: Excerpt,
    chosen: Format,
    max_bytes: int,
    started: float,
    *,
    is_csv_raw: bool = False,
) -> SerializedResult:
    """As many of the rows as fit; `started` is when the query was, by time.perf_counter().

    The names of the columns are the client's choice and may repeat in each row, so bytes from the
    server are no measure of those of the answer. Raises QueryError: 422 where not even one row fits or
    there are totals that the format cannot set apart, 406 where it cannot carry the columns.
    """
    if excerpt.totals is not None and chosen is not JSON:
        raise QueryError(
            422,
            "totals_need_json",
            f"{chosen.name} cannot tell the row of WITH TOTALS from others: ask for json, "
            "or use WITH ROLLUP",
        )
    rows = Rows(_consumed(excerpt.rows), len(excerpt.rows))

    def closing() -> dict[str, object]:
        elapsed = {"elapsed_ms": round((time.perf_counter() - started) * 1000, 3)}
        if excerpt.totals is None:
            return {**elapsed}
        return {"totals": row_object(excerpt.columns, excerpt.totals), **elapsed}

    envelope = Envelope({}, closing)
    out = writer(chosen, excerpt.columns, rows, envelope, is_csv_raw=is_csv_raw)
    body = io.BytesIO()  # joining parts would hold the answer twice
    body.write(out.begin())
    left = max_bytes
    for block in rows:
        is_encodable = _text_length(block[0]) * _ESCAPE_BYTES <= max(max_bytes, _SMALL_BYTES)
        part = out.rows(block) if is_encodable else b""
        left -= len(part)
        if left < 0 or not is_encodable:
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
            f"one part of the result has more than {max_bytes} bytes, or more values than fit into "
            "twice that: ask for fewer or shorter columns",
        )
    body.write(out.end())
    return SerializedResult(body.getvalue(), rows.count, rows.is_truncated)


def _consumed(rows: list[Row]) -> Iterator[list[Row]]:
    """Each row once. Drops it from the list then: values and their text need not be in memory both."""
    rows.reverse()
    while rows:
        yield [rows.pop()]


def _text_length(row: Row) -> int:
    return sum(len(value) for value in row if isinstance(value, str))
