"""The answer to raw SQL as bytes: an excerpt of a result in the format asked for, within its size.

Owns where the answer is cut; refuses to know how it was asked for and how rows are written.
"""

import time
from dataclasses import dataclass

from octane_analytics.api.formats import FORMATS, Envelope, Format, Rows, writer
from octane_analytics.clickhouse.results import Excerpt
from octane_analytics.errors import QueryError

OFFERED = {name: each for name, each in FORMATS.items() if name != "prometheus"}
"""Prometheus text repeats labels of the client's choice, and is for reports that are gauges."""


@dataclass(frozen=True, slots=True)
class Written:
    body: bytes
    row_count: int
    is_truncated: bool


def written(excerpt: Excerpt, chosen: Format, max_bytes: int, started: float) -> Written:
    """As many of the rows as fit; `started` is when the query was, by time.perf_counter().

    The names of the columns are the client's choice and may repeat in each row, so bytes from the
    server are no measure of those of the answer. Raises QueryError: 422 where not even one row fits,
    406 where the format cannot carry the columns.
    """
    rows = Rows(([row] for row in excerpt.rows), len(excerpt.rows))
    envelope = Envelope(
        {}, lambda: {"elapsed_ms": round((time.perf_counter() - started) * 1000, 3)}
    )
    out = writer(chosen, excerpt.columns, rows, envelope)
    parts = [out.begin()]
    left = max_bytes
    for block in rows:
        part = out.rows(block)
        left -= len(part)
        if left < 0:
            rows.count -= 1
            rows.is_truncated = True
            break
        parts.append(part)
    if not excerpt.is_whole:
        rows.is_truncated = True
    if rows.is_truncated and not rows.count:
        raise QueryError(
            422,
            "result_too_large",
            f"one part of the result has more than {max_bytes} bytes: ask for fewer or shorter columns",
        )
    parts.append(out.end())
    return Written(b"".join(parts), rows.count, rows.is_truncated)
