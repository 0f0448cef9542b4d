"""Measure how the cost of functions grows with the size of their arguments.

    python -m tests.tools.function_growth [FUNCTION ...]

Calls each function of linear_functions.txt with generated arguments: at a small size to find those that
it accepts, then with SIZES elements, each eight times the one before. Prints a table in Markdown of what
grows faster than `STEEP` for eightfold arguments, ends more than a second after `max_execution_time`, or
grows the server's memory by more than a tenth beyond `max_memory_usage`; then the names without
arguments that it accepts, and those without an argument that has a size. Other processes make single
runs late: call a function that is reported again, alone. A run over all functions takes about an hour.
"""

import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import OctaneError
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.function_limits import BYTES, GRACE_SECONDS, SECONDS

SIZES = (1_000, 8_000, 64_000, 512_000)
SMALL_SIZE = 4
STEEP = 16.0
"""Ratio of times for a ratio of sizes of eight; n log n gives 9 to 10."""
MEASURABLE_SECONDS = 0.03
GIVE_UP_SECONDS = 8.0
MAX_CALLS = 10
MAX_PAIRS = 1200
MAX_LONGER = 150
LISTED = Path(__file__).with_name("linear_functions.txt")

SIZED = {
    "text": "repeat('a', {n})",
    "words": "repeat('ab ', {n})",
    "digits": "repeat('1', {n})",
    "random text": "randomPrintableASCII({n})",
    "url": "repeat('/a.b?c=d&', {n})",
    "markup": "repeat('<a&amp;', {n})",
    "umlauts": "repeat('\u00e9a', {n})",
    "nested JSON": "repeat('[', {n}) || repeat(']', {n})",
    "JSON text": "'{{\"k' || arrayStringConcat(range({n}), '\":1,\"k') || '\":1}}'",
    "JSON": "CAST('{{\"k' || arrayStringConcat(range(least({n}, 900)), '\":1,\"k') || '\":1}}', 'JSON')",
    "integers": "range({n})",
    "equal integers": "arrayWithConstant({n}, 1)",
    "floats": "arrayMap(i -> toFloat64(sipHash64(i) % 1000), range({n}))",
    "texts": "arrayMap(i -> toString(i), range({n}))",
    "points": "arrayMap(i -> (toFloat64(i % 180), toFloat64(i % 90)), range({n}))",
    "arrays": "arrayMap(i -> [i, i + 1], range({n}))",
    "times": "arrayMap(i -> toDateTime(i, 'UTC'), range({n}))",
    "bitmap": "bitmapBuild(range({n}))",
    "map": "mapFromArrays(range({n}), range({n}))",
    "text map": "mapFromArrays(arrayMap(i -> toString(i), range({n})), "
    "arrayMap(i -> toString(i), range({n})))",
    "number": "toUInt64({n})",
    "signed number": "toInt32({n})",
    "float number": "toFloat64({n})",
}
"""Expressions of {n} elements."""
FIXED = [
    "1", "3", "-1", "0.5", "'a'", "','", "toDateTime(1700000000, 'UTC')", "toDate(19000)",
    "toDateTime64(1700000000, 3, 'UTC')", "'day'", "INTERVAL 1 SECOND", "[1, 2]", "['a', 'b']",
    "[0.5, 1.5]", "(1, 2)", "(0.5, 1.5, 2.5)", "true", "toUInt64(599686042433355775)",
    "'0123456789abcdef'", "'aes-128-ecb'", "'sha256'", "toIPv6('::1')", "generateUUIDv4()",
    "toDecimal64(1.5, 2)", "CAST(1, 'Dynamic')", "CAST('a', 'Enum8(\\'a\\' = 1)')",
]  # fmt: skip
LAMBDAS = [
    "x -> x", "x -> x % 2 = 0", "(x, y) -> x + y", "(k, v) -> v", "(k, v) -> (k, v)", "(a, x) -> a",
]  # fmt: skip
_VECTOR = "numericIndexedVectorBuild(mapFromArrays(range({n}), range({n})))"
SIZED["vector"] = _VECTOR
_WKT_POINTS = "arrayStringConcat(arrayMap(i -> '1 ' || toString(i), range({n})), ',')"
SIZED["WKT line"] = f"'LINESTRING (' || {_WKT_POINTS} || ')'"
SIZED["WKT polygon"] = f"'POLYGON ((' || {_WKT_POINTS} || ', 1 0))'"
SIZED["WKT lines"] = f"'MULTILINESTRING ((' || {_WKT_POINTS} || '))'"
SIZED["WKT polygons"] = f"'MULTIPOLYGON (((' || {_WKT_POINTS} || ', 1 0)))'"
SIZED["WKT points"] = f"'MULTIPOINT (' || {_WKT_POINTS} || ')'"
_KEY = "'0123456789abcdef'"
_CIPHERTEXT = f"encrypt('aes-128-ecb', repeat('a', {{n}}), {_KEY})"
KNOWN: dict[str, list[tuple[str, ...]]] = {
    "aes_encrypt_mysql": [("'aes-128-ecb'", "text", _KEY)],
    "aes_decrypt_mysql": [("'aes-128-ecb'", _CIPHERTEXT, _KEY)],
    "decrypt": [("'aes-128-ecb'", _CIPHERTEXT, _KEY)],
    "trydecrypt": [("'aes-128-ecb'", "text", _KEY)],
    "substringindex": [("url", "'/'", "number"), ("text", "'a'", "-1")],
    "substringindexutf8": [("url", "'/'", "number"), ("umlauts", "'a'", "-1")],
    "naivebayesngrams": [("words", "1", "'token'")],
    "convertcharset": [("text", "'utf-8'", "'utf-16'"), ("umlauts", "'utf-8'", "'utf-7'")],
    "conv": [("digits", "10", "16"), ("digits", "2", "36")],
    "timeslots": [("toDateTime(0, 'UTC')", "toUInt32({n})".replace("{n}", "512000"), "1")],
    "mapadd": [("map", "map")],
    "mapsubtract": [("map", "map")],
    "mapupdate": [("map", "map"), ("text map", "text map")],
    "subbitmap": [("bitmap", "1", "number")],
    "bitmapsubsetlimit": [("bitmap", "1", "number")],
    "bitmapsubsetinrange": [("bitmap", "1", "number")],
    "bitmaptransform": [("bitmap", "CAST([1], 'Array(UInt32)')", "CAST([2], 'Array(UInt32)')")],
    "isipaddressinrange": [("'127.0.0.1'", "'127.0.0.0/8'")],
    "datediff": [("'day'", "toDateTime(0, 'UTC')", "toDateTime(9, 'UTC')")],
    "base32decode": [("base32Encode(repeat('a', {n}))",)],
    "comparesubstrings": [("text", "text", "0", "0", "number")],
    "timeseriesrange": [("toDateTime(0, 'UTC')", "toDateTime(512000, 'UTC')", "1")],
    "timeseriesfromgrid": [
        ("toDateTime(0, 'UTC')", "toDateTime(99, 'UTC')", "1", "arrayWithConstant(100, 0.5)")
    ],
    "finalizeaggregation": [("arrayReduce('uniqExactState', range({n}))",)],
}
"""Arguments that random choice does not find."""
ROWS = [
    "number", "number % 2", "toFloat64(sipHash64(number) % 1000)", "toDateTime(number, 'UTC')",
    "toString(number)", "[number, number + 1]", "[toFloat64(number)]", "map(number, number)",
    "toUInt8(number % 2)", "(number, number)", "number % 3 = 1", "number % 3 = 2",
    "toInt32(number % 100)", "CAST('{\"k' || toString(number) || '\":1}', 'JSON')",
    "bitmapBuild([number])", "([number], [number])",
]  # fmt: skip
"""Arguments of aggregate functions, over rows of `numbers`."""
PARAMETERS = [
    "", "(3)", "(0.5)", "(10, 5)", "(100)", "(1000, 0.5)", "('(?1).*(?2).*(?1)')", "(0, 100000, 1)",
    "(0, 100000, 10, 30)", "([1, 2])",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """A call with arguments: names of SIZED, or expressions; columns unless `is_constant`."""

    function: str
    arguments: tuple[str, ...]
    is_constant: bool = False

    @property
    def has_size(self) -> bool:
        return any(each in SIZED or "{n}" in each for each in self.arguments)

    def sql(self, size: int) -> str:
        columns, given = [], []
        for index, argument in enumerate(self.arguments):
            is_sized = argument in SIZED or "{n}" in argument
            text = SIZED.get(argument, argument)
            text = text.format(n=size) if is_sized else text
            if is_sized and not self.is_constant:
                columns.append(f"materialize({text}) AS c{index}")
                text = f"c{index}"
            given.append(text)
        return (
            f"SELECT ignore(`{self.function}`({', '.join(given)})) "
            f"FROM (SELECT {', '.join([*columns, '1 AS one'])})"
        )


@dataclass(frozen=True, slots=True)
class AggregateCall:
    """A call over `size` rows, as an aggregate, or as a window function."""

    function: str
    parameters: str
    arguments: tuple[str, ...]
    is_window: bool = False

    def sql(self, size: int) -> str:
        call = f"`{self.function}`{self.parameters}({', '.join(self.arguments)})"
        if self.is_window:
            over = "ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
            rows = f"SELECT {call} OVER ({over}) AS a FROM numbers({size})"
            return f"SELECT count(ignore(a)) FROM ({rows})"
        return f"SELECT ignore({call}) FROM numbers({size})"


class Server:
    """ClickHouse of its own, started again after a statement that did not end."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._engine = EmbeddedClickHouse(Path(self._directory.name))
        self._engine.start()
        self._settings = ClickHouseSettings(
            host=self._engine.host, port=self._engine.tcp_port, timeout_seconds=GIVE_UP_SECONDS
        )
        self._connection = ClickHouse(self._settings, client_name="function_growth")

    def stop(self) -> None:
        self._connection.close()
        self._engine.stop()
        self._directory.cleanup()

    def names(self) -> dict[str, str]:
        """Return the spelling of each function, by its name in lower case, without aliases."""
        rows = self._connection.select("SELECT name FROM system.functions WHERE alias_to = ''").rows
        return {str(name).lower(): str(name) for (name,) in rows}

    def run(self, sql: str) -> "Outcome":
        status = Path(f"/proc/{self._engine.pid}/status")
        status.with_name("clear_refs").write_text("5")
        before = _memory(status, "VmRSS")
        limits = {
            "max_execution_time": SECONDS,
            "max_memory_usage": BYTES,
            "max_threads": 2,
            "max_block_size": 8192,
        }
        started = time.monotonic()
        error: OctaneError | None = None
        try:
            self._connection.excerpt(sql, settings=limits, max_rows=10, max_bytes=64 << 20)
        except OctaneError as raised:
            error = raised
        seconds = time.monotonic() - started
        grown = _memory(status, "VmHWM") - before
        if seconds > SECONDS + GRACE_SECONDS:
            self.stop()
            self._start()
        return Outcome(seconds, grown, error)


@dataclass(frozen=True, slots=True)
class Outcome:
    seconds: float
    grown_bytes: int
    error: OctaneError | None = None

    @property
    def is_answered(self) -> bool:
        return self.error is None

    @property
    def is_wrong_count(self) -> bool:
        return "arguments" in str(self.error) and "number of" in str(self.error).lower()

    @property
    def may_need_constant(self) -> bool:
        return "onst" in str(self.error) or "llegal column" in str(self.error)


@dataclass(slots=True)
class Report:
    lines: list[str] = field(default_factory=list)
    without_calls: list[str] = field(default_factory=list)
    without_size: list[str] = field(default_factory=list)
    measured: int = 0


def listed() -> tuple[list[str], list[str]]:
    """Return the ordinary and the aggregate functions of linear_functions.txt."""
    sections: dict[str, list[str]] = {"[ordinary]": [], "[aggregate]": []}
    names = sections["[ordinary]"]
    for line in LISTED.read_text("utf-8").splitlines():
        if line in sections:
            names = sections[line]
        elif not line.startswith("#"):
            names += line.split()
    return sections["[ordinary]"], sections["[aggregate]"]


def candidates(choose: random.Random) -> Iterator[tuple[str, ...]]:
    """Yield arguments to try, shorter lists first."""
    every = [*SIZED, *FIXED]
    yield ()
    yield from ((one,) for one in every)
    pairs = list(itertools.product(every, repeat=2))
    yield from choose.sample(pairs, min(MAX_PAIRS, len(pairs)))
    for count, tries in ((3, MAX_LONGER), (4, MAX_LONGER // 2), (5, MAX_LONGER // 3)):
        yield from (tuple(choose.choices(every, k=count)) for _ in range(tries))
    yield from itertools.product(LAMBDAS, SIZED)
    yield from itertools.product(LAMBDAS, ["integers", "floats", "map"], ["integers", "map", "3"])


def accepted(server: Server, name: str, choose: random.Random) -> list[Call]:
    """Return calls that the function accepts at a small size."""
    found: list[Call] = []
    counts: dict[int, int] = {}
    impossible: set[int] = set()
    for arguments in itertools.chain(KNOWN.get(name.lower(), []), candidates(choose)):
        count = len(arguments)
        if count in impossible or counts.get(count, 0) > MAX_CALLS:
            continue
        for is_constant in (False, True):
            call = Call(name, arguments, is_constant)
            outcome = server.run(call.sql(SMALL_SIZE))
            if outcome.is_answered:
                found.append(call)
                counts[count] = counts.get(count, 0) + 1
                break
            if outcome.is_wrong_count and not any(each in arguments for each in LAMBDAS):
                impossible.add(count)
            if not outcome.may_need_constant:
                break
    return found


def accepted_aggregates(server: Server, name: str, choose: random.Random) -> list[AggregateCall]:
    found: list[AggregateCall] = []
    lists: list[tuple[str, ...]] = [(), *((one,) for one in ROWS)]
    lists += itertools.product(ROWS, repeat=2)
    lists += [tuple(choose.choices(ROWS, k=3)) for _ in range(60)]
    for is_window in (False, True):
        for parameters, arguments in itertools.product(PARAMETERS, lists):
            call = AggregateCall(name, parameters, arguments, is_window)
            if server.run(call.sql(SMALL_SIZE)).is_answered:
                found.append(call)
                if len(found) == MAX_CALLS:
                    return found
        if found:
            break
    return found


def problem(run: Callable[[str], Outcome], call: Call | AggregateCall) -> str | None:
    """Return what is wrong with the call at one of the SIZES; None if nothing is."""
    last = 0.0
    for size in SIZES:
        outcome = run(call.sql(size))
        if outcome.seconds > SECONDS + GRACE_SECONDS:
            return f"{size:,}: ended after {outcome.seconds:.1f} s"
        if outcome.grown_bytes > BYTES * 1.1:
            return f"{size:,}: {outcome.grown_bytes >> 20} MiB"
        if not outcome.is_answered:
            return None
        if last > MEASURABLE_SECONDS and outcome.seconds > STEEP * last:
            return f"{size:,}: {outcome.seconds:.2f} s, {outcome.seconds / last:.0f} times as long"
        last = outcome.seconds
    return None


def measure(server: Server, calls: Sequence[Call | AggregateCall], report: Report) -> None:
    report.measured += 1
    for call in calls[:MAX_CALLS]:
        found = problem(server.run, call)
        if found:
            print(f"| `{call.function}` | `{call.arguments}` | {found} |", flush=True)
            report.lines.append(call.function)


@contextmanager
def running_server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.stop()


def main(names: list[str]) -> int:
    ordinary, aggregate = listed()
    report = Report()
    print("| function | arguments | problem |\n|---|---|---|")
    with running_server() as server:
        known = server.names()
        for name in ordinary:
            if name in known and (not names or name in names):
                choose = random.Random(name)  # the same arguments in each run
                calls = accepted(server, known[name], choose)
                sized = [call for call in calls if call.has_size]
                choose.shuffle(sized)
                if sized:
                    measure(server, sized, report)
                else:
                    (report.without_size if calls else report.without_calls).append(name)
        for name in aggregate:
            if name in known and (not names or name in names):
                found = accepted_aggregates(server, known[name], random.Random(name))
                if found:
                    measure(server, found, report)
                else:
                    report.without_calls.append(name)
    print(f"\nMeasured: {report.measured}.")
    print(f"No arguments found: {' '.join(report.without_calls)}.")
    print(f"No argument with a size: {' '.join(report.without_size)}.")
    return len(report.lines)


def _memory(status: Path, field_name: str) -> int:
    for line in status.read_text().splitlines():
        if line.startswith(field_name):
            return int(line.split()[1]) << 10
    return 0


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
