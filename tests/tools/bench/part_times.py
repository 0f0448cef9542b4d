"""Time at which each insert became readable, without asking ClickHouse: a query costs it a millisecond.

An insert is readable once the server has renamed its part's directory. The rows keep the number of
their insert through merges in the column `_block_number`, which the table must have before the first
insert; the merges of every contender write it.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from octane_analytics.clickhouse.client import ClickHouse

_LOOK_SECONDS = 0.01
_INSERTED = re.compile(r"[^_]+_(\d+)_\1_0")
"""Directory of a part as it was inserted: PARTITION_BLOCK_BLOCK_0."""
_PRODUCED = "JSONExtractFloat(properties, 'produced_at')"


def keep_block_numbers(clickhouse: ClickHouse) -> None:
    """Have merges of the connection's table keep the number of each row's insert."""
    clickhouse.execute(
        f"ALTER TABLE {clickhouse.table} MODIFY SETTING enable_block_number_column = 1"
    )


@contextlib.contextmanager
def part_times(clickhouse: ClickHouse) -> Iterator[Mapping[int, float]]:
    """Record in a thread when each insert into the connection's table was first seen, by its number."""
    name = clickhouse.table
    ((paths,),) = clickhouse.select(
        "SELECT data_paths FROM system.tables "
        "WHERE database = {database:String} AND name = {table:String}",
        {"database": name.database, "table": name.table},
    ).rows
    seen_at: dict[int, float] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_LOOK_SECONDS):
            now = time.time()
            for path in paths:
                for inserted in inserted_blocks(Path(path)):
                    seen_at.setdefault(inserted, now)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen_at
    finally:
        stop.set()
        thread.join()


def inserted_blocks(directory: Path) -> Iterator[int]:
    """Yield the numbers of the inserts whose parts are in the table's directory."""
    for name in os.listdir(directory):
        if match := _INSERTED.fullmatch(name):
            yield int(match[1])


def readable_after(
    clickhouse: ClickHouse, seen_at: Mapping[int, float], began: float
) -> tuple[float, float]:
    """Return median and 99th percentile of the seconds from produced to readable.

    Counts events that were produced from `began` on, in epoch seconds. Raise ValueError if an insert was
    not seen.
    """
    ((quantiles, unseen),) = clickhouse.select(
        "SELECT quantilesExact(0.5, 0.99)(seen - produced), countIf(seen = 0) FROM ("
        f"SELECT {_PRODUCED} AS produced, transform(_block_number, {{numbers:Array(UInt64)}}, "
        f"{{seconds:Array(Float64)}}, toFloat64(0)) AS seen FROM {clickhouse.table}) "
        "WHERE produced >= {began:Float64}",
        {"numbers": list(seen_at), "seconds": list(seen_at.values()), "began": began},
    ).rows
    if unseen:
        raise ValueError(f"{unseen:,} rows are of inserts that were not seen")
    return float(quantiles[0]), float(quantiles[1])
