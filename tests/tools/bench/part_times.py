"""Rows and time of each readable insert, without asking ClickHouse: a query costs it a millisecond.

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
from dataclasses import dataclass, field
from pathlib import Path

from octane_analytics.clickhouse.client import ClickHouse
from tests.tools.bench.latency_run import wait_for_rows

_LOOK_SECONDS = 0.01
_INSERTED = re.compile(r"[^_]+_(\d+)_\1_0")
"""Directory of a part as it was inserted: PARTITION_BLOCK_BLOCK_0."""
_PRODUCED = "JSONExtractFloat(properties, 'produced_at')"


@dataclass
class SeenInserts:
    """Inserts seen so far; a thread adds to them."""

    at: dict[int, float] = field(default_factory=dict)
    """Time at which each was first seen, in epoch seconds, by its number."""
    rows: int = 0
    """Rows of all of them."""

    def wait_for_rows(self, wanted: int) -> None:
        """Block until so many rows are readable. Raise ClickException after two minutes, or for more."""
        wait_for_rows(lambda: self.rows, wanted, _LOOK_SECONDS)


def keep_block_numbers(clickhouse: ClickHouse) -> None:
    """Have merges of the connection's table keep the number of each row's insert."""
    clickhouse.execute(
        f"ALTER TABLE {clickhouse.table} MODIFY SETTING enable_block_number_column = 1"
    )


@contextlib.contextmanager
def part_times(clickhouse: ClickHouse) -> Iterator[SeenInserts]:
    """Record in a thread the inserts into the connection's table."""
    name = clickhouse.table
    ((paths,),) = clickhouse.select(
        "SELECT data_paths FROM system.tables "
        "WHERE database = {database:String} AND name = {table:String}",
        {"database": name.database, "table": name.table},
    ).rows
    seen = SeenInserts()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_LOOK_SECONDS):
            now = time.time()
            for path in paths:
                for number, part in inserted_parts(Path(path)):
                    if number not in seen.at:
                        seen.at[number] = now
                        seen.rows += rows_of(part)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def inserted_parts(directory: Path) -> Iterator[tuple[int, Path]]:
    """Yield number and directory of each insert's part in the table's directory.

    It stays for minutes after a merge has replaced it.
    """
    for name in os.listdir(directory):
        if match := _INSERTED.fullmatch(name):
            yield int(match[1]), directory / name


def rows_of(part: Path) -> int:
    """Return the number of rows of the part in this directory."""
    return int((part / "count.txt").read_text())


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
