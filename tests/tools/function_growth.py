"""Measure how the cost of functions grows with the size of their arguments.

    python -m tests.tools.function_growth [--classes] [FUNCTION ...]

Calls each function of linear_functions.txt with arguments from ClickHouse's own examples, one or two of
which are replaced by each expression of SIZED, or with random ones where that gives none. A function
belongs to one class:

- sized: it accepts an argument with a size (text, array, map, JSON, geometry, bitmap, state, or a number
  that may set a size). Measured with up to SIZES[-1] elements.
- fixed: in no place of an accepted call any of SIZED is accepted, so its arguments have a fixed size.
- without arguments: it only accepts none.
- not called: no accepted call was found.
- aggregate: measured over up to SIZES[-1] rows, also over windows, with parameters that set a size.

Every ordinary function with arguments is also called for each of ELEMENTS elements of a lambda, which is
one block to ClickHouse. Reports what grows faster than `STEEP` for eightfold arguments, ends more than a
second after `max_execution_time`, or grows the server's memory by more than a tenth beyond
`max_memory_usage`, and again when it runs alone after all others. Two servers work at the same time.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from octane_analytics.api.limits import BLOCK_ROWS
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from tests.support.statements import SETTINGS, Answer, Statements, statements
from tests.tools import growth_arguments
from tests.tools.function_limits import BYTES, GRACE_SECONDS, SECONDS
from tests.tools.growth_arguments import COMBINED, KNOWN, LAMBDAS, PARAMETERS, ROWS
from tests.tools.growth_calls import (
    SMALL_SIZE,
    WINDOWS,
    AggregateCall,
    AnyCall,
    Call,
    ElementCall,
)
from tests.tools.process_usage import cpu_seconds, memory_bytes

SIZES = (1_000, 8_000, 64_000, 512_000)
STEEP = 16.0
"""Ratio of times for a ratio of sizes of eight; n log n gives 9 to 10."""
MEASURABLE_SECONDS = 0.03
ELEMENTS = 1_000_000
_FEWER_ELEMENTS = ELEMENTS // 8
MAX_CALLS = 6
_MAX_FIXED_CALLS = 2
_MAX_EXAMPLES = 3
SERVERS = 2
LISTED = Path(__file__).with_name("linear_functions.txt")
_LIMITS = {
    **SETTINGS,
    "max_execution_time": SECONDS,
    "max_memory_usage": BYTES,
    "max_threads": 2,
    "max_block_size": BLOCK_ROWS,
    "readonly": 1,
}
LATE_SECONDS = SECONDS + GRACE_SECONDS + 0.01
_GIVE_UP_SECONDS = 12.0
_WITHOUT_PARAMETERS = 133


@dataclass(frozen=True, slots=True)
class Outcome:
    seconds: float
    grown_bytes: int
    answer: Answer

    @property
    def is_answered(self) -> bool:
        return self.answer.code == 0

    @property
    def may_need_constant(self) -> bool:
        text = " ".join(self.answer.lines)
        return "onst" in text or "llegal column" in text


class Server:
    """ClickHouse of its own, started again after a statement that did not end."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._engine = EmbeddedClickHouse(Path(self._directory.name))
        self._engine.start()
        self._status = Path(f"/proc/{self._engine.pid}/status")
        self._statements = Statements(self._engine.http_port, _LIMITS, _GIVE_UP_SECONDS)

    def stop(self) -> None:
        self._statements.close()
        self._engine.stop()
        self._directory.cleanup()

    def select(self, sql: str) -> list[list[str]]:
        with statements(self._engine.http_port) as unlimited:
            return [line.split("\t") for line in unlimited.answer(sql).lines]

    def accepts(self, sql: str) -> Answer:
        """Return the answer to a statement that is not measured."""
        try:
            return self._statements.answer(sql)
        except (OSError, HTTPException):
            self._restart()
            return Answer(-1, [])

    def run(self, sql: str) -> Outcome:
        """Return the time that the statement took, without the share that other processes took."""
        self._status.with_name("clear_refs").write_text("5")
        before, spent = memory_bytes(self._status, "VmRSS"), cpu_seconds(self._status)
        started = time.monotonic()
        answer = None
        with suppress(OSError, HTTPException):
            answer = self._statements.answer(sql)
        seconds = min(time.monotonic() - started, cpu_seconds(self._status) - spent)
        grown = memory_bytes(self._status, "VmHWM") - before
        if answer is None:
            self._restart()
            return Outcome(max(seconds, LATE_SECONDS), grown, Answer(-1, []))
        return Outcome(seconds, grown, answer)

    def _restart(self) -> None:
        self._statements.close()
        self._engine.kill()
        with suppress(OSError):
            self._directory.cleanup()
        self._start()


@dataclass(slots=True)
class Report:
    found: list[AnyCall] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


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


def accepted(server: Server, name: str, examples: Sequence[tuple[str, ...]]) -> list[Call]:
    """Return calls that the function accepts at a small size, those with a size first."""
    found: dict[Call, None] = {}
    refused_counts: set[int] = set()

    def attempt(arguments: tuple[str, ...]) -> bool:
        if len(arguments) in refused_counts:
            return False
        for is_constant in (False, True):
            call = Call(name, arguments, is_constant)
            answer = server.accepts(call.sql(SMALL_SIZE))
            if answer.code == 0:
                found[call] = None
                return True
            if answer.is_wrong_count and not any(each in arguments for each in LAMBDAS):
                refused_counts.add(len(arguments))
            if not Outcome(0, 0, answer).may_need_constant:
                break
        return False

    choose = random.Random(name)  # the same arguments in each run
    known = [*KNOWN.get(name.lower(), []), *examples[:_MAX_EXAMPLES]]
    for arguments in known:
        if attempt(arguments):
            for one in growth_arguments.substitutes(arguments):
                if attempt(one):
                    for two in _doubled(arguments, one):
                        attempt(two)
    if not any(call.has_size for call in found):
        tries = growth_arguments.random_arguments(choose)
        counts: dict[int, int] = defaultdict(int)
        for arguments in tries:
            if counts[len(arguments)] <= MAX_CALLS:
                counts[len(arguments)] += attempt(arguments)
    calls = list(found)
    choose.shuffle(calls)
    return sorted(calls, key=lambda call: not call.has_size)


def accepted_aggregates(
    server: Server, name: str, examples: Sequence[list[tuple[str, ...]]]
) -> list[AggregateCall]:
    """Return calls that the aggregate or window function accepts."""
    choose = random.Random(name)
    lists: list[tuple[str, ...]] = [(), *((one,) for one in ROWS)]
    lists += [(one, two) for one in ROWS for two in ROWS]
    lists += [tuple(choose.choices(ROWS, k=3)) for _ in range(60)]
    shown = [f"({', '.join(lists[0])})" for lists in examples if len(lists) == 2]
    for window in ("", "running"):
        found: list[AggregateCall] = []
        for parameters in [*dict.fromkeys([*PARAMETERS, *shown])]:
            for arguments in lists:
                call = AggregateCall(name, parameters, arguments, window)
                answer = server.accepts(call.sql(SMALL_SIZE))
                if answer.code == 0:
                    found.append(call)
                if answer.code == _WITHOUT_PARAMETERS or len(found) % MAX_CALLS == MAX_CALLS - 1:
                    break
            if len(found) > 3 * MAX_CALLS:
                break
        if found:
            choose.shuffle(found)
            found.sort(key=lambda call: "{n}" not in call.parameters)
            return found[: MAX_CALLS // 2] + over_windows(server, found[:3] + found[-2:])
    return []


def over_windows(server: Server, calls: Iterable[AggregateCall]) -> list[AggregateCall]:
    found = (
        AggregateCall(call.function, call.parameters, call.arguments, window)
        for call in calls
        for window in WINDOWS
    )
    return [call for call in found if server.accepts(call.sql(SMALL_SIZE)).code == 0]


def per_element(server: Server, calls: Iterable[Call]) -> list[ElementCall]:
    """Return the calls with as many arguments as possible that differ for each element."""
    found = []
    for call in calls:
        places = [index for index, each in enumerate(call.arguments) if "->" not in each]
        choices = [frozenset(places), *(frozenset([place]) for place in places)]
        for copied in choices:
            tried = ElementCall(call.function, call.arguments, copied)
            if copied and server.accepts(tried.sql(SMALL_SIZE)).code == 0:
                found.append(tried)
                break
    return found


def problem(run: Callable[[str], Outcome], call: AnyCall) -> str | None:
    """Return what is wrong with the call; None if it is quick for many elements, or nothing is."""
    sizes = (_FEWER_ELEMENTS, ELEMENTS) if isinstance(call, ElementCall) else SIZES
    # Anything quadratic takes longer than this at 64,000 elements.
    sample = run(call.sql(sizes[-2]))
    if (
        sample.is_answered
        and sample.seconds <= MEASURABLE_SECONDS
        and sample.grown_bytes < BYTES / 8
    ):
        return None
    last = 0.0
    for size in sizes:
        outcome = run(call.sql(size))
        if outcome.seconds > SECONDS + GRACE_SECONDS:
            return f"{size:,}: ended after {outcome.seconds:.1f} s"
        if outcome.grown_bytes > BYTES * 1.1:
            return f"{size:,}: {outcome.grown_bytes >> 20} MiB"
        if last and outcome.seconds > STEEP * max(last, MEASURABLE_SECONDS):
            return f"{size:,}: {outcome.seconds:.2f} s, {outcome.seconds / last:.0f} times as long"
        if not outcome.is_answered:
            return None
        last = outcome.seconds
    return None


class Examiner:
    """Classification and measurement of functions by one server for each thread."""

    def __init__(self, report: Report, *, is_measured: bool) -> None:
        self._report = report
        self._is_measured = is_measured
        self._local = threading.local()
        self.servers: list[Server] = []

    def start_server(self) -> None:
        self._local.server = Server()
        self.servers.append(self._local.server)

    def ordinary(self, name: str, examples: str) -> None:
        server: Server = self._local.server
        shown = growth_arguments.calls_in_examples(name, examples)
        calls = accepted(server, name, [lists[0] for lists in shown if len(lists) == 1])
        sized = [call for call in calls if call.has_size]
        kind = "sized" if sized else "fixed" if any(call.arguments for call in calls) else ""
        self._report.classes[kind or ("without arguments" if calls else "not called")].append(name)
        if self._is_measured:
            fixed = [call for call in calls if call.arguments][-_MAX_FIXED_CALLS:]
            self._measure([*sized[:MAX_CALLS], *per_element(server, fixed)])

    def aggregate(self, name: str, examples: str) -> None:
        shown = growth_arguments.calls_in_examples(name, examples)
        calls = accepted_aggregates(self._local.server, name, shown)
        self._report.classes["aggregate" if calls else "not called"].append(name)
        if self._is_measured:
            self._measure(calls)

    def combined(self, name: str, parameters: str, arguments: tuple[str, ...]) -> None:
        parameters = "" if parameters == "()" else parameters
        call = AggregateCall(name, parameters, arguments)
        if self._local.server.accepts(call.sql(SMALL_SIZE)).code == 0:
            self._report.classes["combined"].append(name)
            if self._is_measured:
                self._measure([call, *over_windows(self._local.server, [call])])

    def _measure(self, calls: Sequence[AnyCall]) -> None:
        for call in calls:
            if found := problem(self._local.server.run, call):
                print(_row(call, found), flush=True)
                self._report.found.append(call)


@contextmanager
def running_server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.stop()


def main(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure how the cost of functions grows.")
    parser.add_argument("names", nargs="*", metavar="FUNCTION")
    parser.add_argument("--classes", action="store_true", help="only classify, measure nothing")
    options = parser.parse_args(given)
    report = Report()
    print("| function | call | problem |\n|---|---|---|")
    _examine_all(report, options.names, is_measured=not options.classes)
    again = _again(report.found)
    for kind, names in report.classes.items():
        print(
            f"\n{kind}: {len(names)}" + ("." if kind == "sized" else f": {' '.join(sorted(names))}")
        )
    return len(again)


def _examine_all(report: Report, wanted: Sequence[str], *, is_measured: bool) -> None:
    examiner = Examiner(report, is_measured=is_measured)
    with running_server() as server:
        rows = server.select("SELECT name, hex(examples) FROM system.functions WHERE alias_to = ''")
    known = {name.lower(): (name, bytes.fromhex(text).decode()) for name, text in rows}
    ordinary, aggregate = (
        [known[name] for name in names if name in known and (not wanted or name in wanted)]
        for names in listed()
    )
    combined = [each for each in COMBINED if not wanted or each[0].lower() in wanted]
    with ThreadPoolExecutor(SERVERS, initializer=examiner.start_server) as pool:
        jobs = [pool.submit(examiner.ordinary, *each) for each in ordinary]
        jobs += [pool.submit(examiner.aggregate, *each) for each in aggregate]
        jobs += [pool.submit(examiner.combined, *each) for each in combined]
        for job in jobs:
            job.result()
    for each in examiner.servers:
        each.stop()


def _again(calls: Sequence[AnyCall]) -> list[AnyCall]:
    """Run what was reported again, alone; print and return what is reported again."""
    confirmed = []
    if calls:
        print("\nAgain, alone:\n")
    for call in calls:
        with running_server() as server:
            if found := problem(server.run, call):
                confirmed.append(call)
                print(_row(call, found), flush=True)
    return confirmed


def _doubled(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield arguments where one more place has the expression by which `after` differs."""
    changed = [place for place, each in enumerate(after) if each != before[place]]
    for place in range(len(after)):
        if changed and place not in changed and "->" not in after[place]:
            yield (*after[:place], after[changed[0]], *after[place + 1 :])


def _row(call: AnyCall, found: str) -> str:
    kind = {Call: "", ElementCall: "for each element "}.get(type(call), "")
    parameters = f"{call.parameters} {call.window}" if isinstance(call, AggregateCall) else ""
    return f"| `{call.function}` | {kind}{parameters} `{call.arguments}` | {found} |"


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
