"""Answers through ClickHouse's native protocol and Python, and through its HTTP interface and formats.

    python -m tests.tools.bench.answers            # cost, as a table
    python -m tests.tools.bench.answers --promises # what each does at faults and at the edges of types

Starts an embedded ClickHouse. Three ways take turns, each in a process of its own, so that its peak of
memory is its own:

| way | is |
|---|---|
| native | today's path: driver, Python objects, the writers of `api/results` |
| raw | HTTP, ClickHouse's bytes passed on as they come; keeps none of the API's promises |
| kept | HTTP with what can be kept: columns ahead of the rows, a counted limit, apostrophes |

`kept` asks for the columns first (DESCRIBE) and has ClickHouse escape the cells of CSV. It has no form
for Parquet and Arrow, whose bytes cannot be cut at a row. CPU of this side and of ClickHouse is from
/proc; the peak is what the answer adds to a process that has answered one row.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.results.formats import FORMATS, Envelope, Rows, writer
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.bench import answer_promises
from tests.tools.bench.http_answers import HttpAnswers
from tests.tools.bench.measure import cpu_seconds

SHAPES = {
    "narrow": "SELECT concat('content-', toString(number % 5000)) AS content, "
    "number * 7919 AS views, number / 7 AS seconds",
    "wide": "SELECT concat('content-', toString(number % 5000)) AS content, "
    "toDateTime(1770000000 + number) AS bucket, "
    "toDateTime64(1770000000.123456 + number, 6) AS exact, toDate(number % 20000) AS day, "
    "if(number % 10 = 0, NULL, number) AS perhaps, [number, number + 1] AS pair, "
    "toLowCardinality(toString(number % 7)) AS device, "
    + ", ".join(f"number * {n} AS count_{n}" for n in range(1, 7))
    + ", "
    + ", ".join(f"number / {n} AS share_{n}" for n in range(3, 10)),
}
WAYS = ("native", "raw", "kept")
SIZES = (1, 10_000, 100_000)
_NAMES = ("json", "ndjson", "csv", "parquet", "arrow")
_REPEATS = {1: 50, 10_000: 5, 100_000: 2}
_LIMITS = ComplexityLimits(
    seconds=60, result_rows=200_000, result_bytes=1 << 30, memory_bytes=2 << 30
)


@dataclass(frozen=True)
class Cell:
    """One format, shape and size in one way; of one answer."""

    format: str
    shape: str
    rows: int
    way: str
    ms: float
    cpu_ms: float
    clickhouse_cpu_ms: float
    peak_mib: float
    kib: float


class NativeAnswers:
    def __init__(self, port: int) -> None:
        settings = ClickHouseSettings(host="127.0.0.1", port=port)
        self._connection = ClickHouse(settings, client_name="bench")

    def close(self) -> None:
        self._connection.close()

    def answer(self, sql: str, name: str, max_rows: int, put: Callable[[bytes], object]) -> None:
        with self._connection.stream(
            sql,
            settings={**_LIMITS.settings("bench"), "limit": max_rows + 1},
            max_block_bytes=_LIMITS.result_bytes,
        ) as result:
            rows = Rows(result.blocks, max_rows)
            read = result.data_read
            envelope = Envelope({"template": "bench"}, lambda: {"rows_read": read().rows})
            output = writer(FORMATS[name], result.columns, rows, envelope)
            put(output.begin())
            for block in rows:
                put(output.rows(block))
            put(output.end())


def answers(way: str, port: int) -> NativeAnswers | HttpAnswers:
    if way == "native":
        return NativeAnswers(port)
    return HttpAnswers(port, _LIMITS, is_kept=way == "kept")


def child(way: str, name: str, shape: str, rows: int, port: int, engine: int) -> dict[str, float]:
    """Measure one cell in this process."""
    source = answers(way, port)
    sizes: list[int] = []

    def ask(count: int) -> None:
        digest = hashlib.blake2b(digest_size=12)
        sizes.clear()

        def put(chunk: bytes) -> None:
            digest.update(chunk)
            sizes.append(len(chunk))

        source.answer(f"SELECT * FROM {shape} LIMIT {count}", name, 150_000, put)

    ask(1)
    before = _peak_mib()
    ask(rows)
    peak = _peak_mib() - before
    repeats = _REPEATS[rows]
    wall, own, server = time.perf_counter(), time.process_time(), cpu_seconds(engine)
    for _ in range(repeats):
        ask(rows)
    return {
        "ms": (time.perf_counter() - wall) / repeats * 1000,
        "cpu_ms": (time.process_time() - own) / repeats * 1000,
        "clickhouse_cpu_ms": (cpu_seconds(engine) - server) / repeats * 1000,
        "peak_mib": peak,
        "kib": sum(sizes) // 1024,
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(arguments: argparse.Namespace) -> list[Cell]:
    with (
        tempfile.TemporaryDirectory(prefix="octane-bench-") as directory,
        EmbeddedClickHouse(Path(directory)) as engine,
    ):
        _create(engine)
        return [
            Cell(name, shape, rows, way, **_in_a_process(way, name, shape, rows, engine))
            for name, shape, rows, way in _cells(arguments)
        ]


def _cells(arguments: argparse.Namespace) -> Iterator[tuple[str, str, int, str]]:
    for name in arguments.format or _NAMES:
        for shape in SHAPES:
            for rows in arguments.rows or SIZES:
                for way in WAYS if name not in ("parquet", "arrow") else WAYS[:2]:
                    yield name, shape, rows, way


def _in_a_process(
    way: str, name: str, shape: str, rows: int, engine: EmbeddedClickHouse
) -> dict[str, float]:
    port = engine.tcp_port if way == "native" else engine.http_port
    arguments = [way, name, shape, str(rows), str(port), str(engine.pid)]
    command = [sys.executable, "-m", "tests.tools.bench.answers", "--child", *arguments]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def _create(engine: EmbeddedClickHouse) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
    with ClickHouse(settings, client_name="bench") as connection:
        for name, select in SHAPES.items():
            source = f"{select} FROM numbers({SIZES[-1]})"
            connection.execute(
                f"CREATE TABLE {name} ENGINE = MergeTree ORDER BY tuple() AS {source}"
            )


def table(cells: list[Cell]) -> Table:
    shown = Table("format", "rows", "way", "ms", "CPU ms", "ClickHouse ms", "peak MiB", "KiB")
    for column in shown.columns[3:]:
        column.justify = "right"
    for cell in cells:
        shown.add_row(
            cell.format,
            f"{cell.rows:,} {cell.shape}",
            cell.way,
            f"{cell.ms:,.1f}",
            f"{cell.cpu_ms:,.1f}",
            f"{cell.clickhouse_cpu_ms:,.1f}",
            f"{cell.peak_mib:,.1f}",
            f"{cell.kib:,.0f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", action="append", choices=_NAMES, help="may be repeated")
    parser.add_argument("--rows", action="append", type=int, choices=SIZES, help="may be repeated")
    parser.add_argument("--promises", action="store_true", help="faults and edges, not cost")
    parser.add_argument("--json", type=Path, help="write every cell to this file")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, name, shape, rows, port, engine = arguments.child
        print(json.dumps(child(way, name, shape, int(rows), int(port), int(engine))))
        return
    if arguments.promises:
        answer_promises.show()
        return
    cells = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cell) for cell in cells]))
    Console(width=100).print(table(cells))


if __name__ == "__main__":
    main()
