"""Queries that count rows of a block in the table: which are missing, and how many equal ones it has.

Pure; the connection runs them. A block is sent as the external table `batch`, in chunks of bounded size:
equal rows are always in one chunk, because they are counted together.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.events.packed_columns import PackedColumn

CHUNK_ROWS = 100_000
CHUNK_BYTES = 32 << 20
_ROW_BYTES = 64
"""Allowance for the columns other than properties."""
_NAMES = ", ".join(schema.COLUMN_NAMES)
_ZONE = re.compile(r"DateTime\('[^'\\]*'\)")


def _known(table: TableName) -> str:
    """Return the query for the batch's rows in the table; reads only the granules of their keys."""
    return f"""
        SELECT {_NAMES}, count() AS here FROM {table}
        WHERE ({schema.SORTING_KEY}) IN (SELECT {schema.SORTING_KEY} FROM batch)
        AND timestamp >= (SELECT min(timestamp) FROM batch)
        AND timestamp <= (SELECT max(timestamp) FROM batch)
        AND ({_NAMES}) IN (SELECT {_NAMES} FROM batch)
        GROUP BY {_NAMES}
    """  # noqa: S608  # only names of the expected schema and the quoted table


def missing_query(table: TableName, unexpired: str) -> str:
    """Return the query for the numbers of missing rows: of equal rows, as many as the table lacks.

    Rows that do not match the condition `unexpired` are not missing.
    """
    return f"""
        SELECT row FROM (
            SELECT row, {_NAMES}, row_number() OVER (PARTITION BY {_NAMES} ORDER BY row) AS nth
            FROM batch WHERE {unexpired}
        ) AS wanted LEFT JOIN ({_known(table)}) AS known USING ({_NAMES})
        WHERE nth > ifNull(here, 0) ORDER BY row
    """  # noqa: S608  # as above, and the TTL as the server itself writes it


def equal_query(table: TableName) -> str:
    """Return the query for the batch's row numbers and their equal rows in the table, if any."""
    return f"SELECT row, here FROM batch INNER JOIN ({_known(table)}) AS known USING ({_NAMES})"  # noqa: S608  # as above


def partition_query(partition_key: str) -> str:
    """Return the query for the partition of each row, by the table's own expression."""
    return f"SELECT row, toString(tuple({partition_key})) FROM batch"  # noqa: S608  # as the server writes it


def chunks(
    columns: Sequence[Sequence[object]], timestamp_type: str = "DateTime"
) -> Iterator[dict[str, Any]]:
    """Yield the block as external tables `batch`, whose column `row` numbers the rows of the block.

    `timestamp_type` is the live column's type: its time zone counts in a TTL.
    """
    zone = _ZONE.search(timestamp_type)
    types = {column.name: column.type for column in schema.COLUMNS}
    types["timestamp"] = zone[0] if zone else types["timestamp"]
    structure = [("row", "UInt32"), *types.items()]
    values = [list(column) for column in columns]
    for rows in _divided(columns, values):
        picked = ([column[row] for row in rows] for column in values)
        yield {
            "name": "batch",
            "structure": structure,
            "data": list(zip(rows, *picked, strict=True)),
        }


def _divided(
    columns: Sequence[Sequence[object]], values: list[list[object]]
) -> Iterator[Sequence[int]]:
    """Yield the row numbers of each chunk, ordered by time so that a chunk reads few granules."""
    count = len(values[0])
    if count <= CHUNK_ROWS and _payload_bytes(columns[-1]) <= CHUNK_BYTES:
        yield range(count)
        return
    keys = list(map(_key, *values))
    chunk: list[int] = []
    size, previous = 0, None
    for row in sorted(range(count), key=keys.__getitem__):
        if keys[row] != previous and (len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        previous = keys[row]
        chunk.append(row)
        size += _ROW_BYTES + len(values[-1][row])  # type: ignore[arg-type]
    yield chunk


def _key(timestamp: object, *texts: object) -> tuple[int, int]:
    """Return a key that equal rows share."""
    checksum = 0
    for text in texts:
        checksum = zlib.crc32(text if isinstance(text, bytes) else str(text).encode(), checksum)
    return int(timestamp), checksum  # type: ignore[call-overload]


def _payload_bytes(column: Sequence[object]) -> int:
    if isinstance(column, PackedColumn):
        return sum(map(len, column.chunks))
    return sum(map(len, column))  # type: ignore[arg-type]
