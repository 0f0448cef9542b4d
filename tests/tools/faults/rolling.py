"""SIGHUP under load: counts rows and the longest pause in inserts.

`python -m tests.tools.faults.rolling` prints two pauses: of the table, which all workers insert into,
and of the slot with the longest one, from its predecessor's last insert to its own first. Apache Kafka
is held to two seconds for the table. The embedded broker is not: it has no static membership, so each
replaced process costs its group two rebalances of a session less a second each.
"""

import argparse
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from octane_analytics.supervisor.control_socket import request_status
from tests.tools.faults.audit import Report, wait_until
from tests.tools.faults.engines import APACHE, EMBEDDED, Engines
from tests.tools.faults.stack import Shape, Stack, directory_for_logs
from tests.tools.kafka.apache import available

LIMIT_SECONDS = 2.0
_LOOK_SECONDS = 0.05
_ROLL_SECONDS = 120.0
_REST_SECONDS = 2.0


@dataclass
class Pause:
    """Longest time without an insert so far; takes the time of each insert, in any order of slots."""

    last_at: float | None = None
    longest_seconds: float = 0.0

    def saw(self, at: float) -> None:
        if self.last_at is not None:
            self.longest_seconds = max(self.longest_seconds, at - self.last_at)
        self.last_at = at


@dataclass(frozen=True)
class Rolled:
    broker: str
    events_per_second: float
    rolls: int
    roll_seconds: float
    """Duration of the slowest rolling restart."""
    table_pause_seconds: float
    slot_pause_seconds: float
    slot: str
    report: Report


@dataclass
class Watch:
    """Thread that polls the table's rows and each slot's last insert twenty times a second."""

    stack: Stack
    table: Pause = field(default_factory=Pause)
    slots: dict[str, Pause] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._is_over = threading.Event()
        self._rows = 0
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            rows, now = self.stack.audit.rows(), time.monotonic()
            if rows > self._rows:
                self._rows = rows
                self.table.saw(now)
            for slot in status(self.stack)["slots"]:
                if slot["is_worker"] and slot["last_flush_seconds"] is not None:
                    pause = self.slots.setdefault(slot["slot"], Pause())
                    pause.saw(max(pause.last_at or 0.0, now - slot["last_flush_seconds"]))


def status(stack: Stack) -> Any:
    """Return the JSON of `octane-analytics status`."""
    return json.loads(request_status(stack.control_socket, 5.0))


def roll(
    engines: Engines,
    shape: Shape,
    logs: Path,
    *,
    rolls: int,
    seed: int,
    rest_seconds: float = _REST_SECONDS,
) -> Rolled:
    """Send SIGHUP repeatedly while events arrive; then count the rows."""
    with Stack(engines, shape, seed, logs) as stack:
        stack.begin()
        wait_until(lambda: _have_all_inserted(stack), 60.0, "an insert of every worker")
        sent, begun_at, slowest = stack.load.sent, time.monotonic(), 0.0
        with Watch(stack) as watch:
            for number in range(1, rolls + 1):
                time.sleep(rest_seconds)
                before, told_at = stack.command.workers(), time.monotonic()
                stack.command.signal_supervisor(signal.SIGHUP)
                wait_until(
                    lambda number=number: status(stack)["reloads"] == number,  # type: ignore[misc]
                    _ROLL_SECONDS,
                    "the end of the reload",
                )
                slowest = max(slowest, time.monotonic() - told_at)
                after = stack.command.workers()
                assert after.keys() == before.keys()
                assert not set(after.values()) & set(before.values())
            time.sleep(rest_seconds)
        rate = (stack.load.sent - sent) / (time.monotonic() - begun_at)
        report = stack.finish(60.0)
    slot, pause = max(watch.slots.items(), key=lambda item: item[1].longest_seconds)
    return Rolled(
        engines.broker,
        rate,
        rolls,
        slowest,
        watch.table.longest_seconds,
        pause.longest_seconds,
        slot,
        report,
    )


def _have_all_inserted(stack: Stack) -> bool:
    workers = [slot for slot in status(stack)["slots"] if slot["is_worker"]]
    return all(slot["last_flush_seconds"] is not None for slot in workers)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.faults.rolling", description=__doc__
    )
    parser.add_argument("--broker", choices=(APACHE, EMBEDDED, "both"), default="both")
    parser.add_argument(
        "--rate", type=float, default=20_000.0, help="events a second (%(default)g)"
    )
    parser.add_argument("--procs", type=int, default=4, help="workers (%(default)s)")
    parser.add_argument("--rolls", type=int, default=2, help="times SIGHUP is sent (%(default)s)")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs here")
    options = parser.parse_args(arguments)
    brokers = [APACHE, EMBEDDED] if options.broker == "both" else [options.broker]
    if APACHE in brokers and (reason := available()) is not None:
        print(f"rolling: {reason}", file=sys.stderr)
        return 1
    is_good = True
    with directory_for_logs(options.logs) as logs:
        for broker in brokers:
            shape = Shape(
                procs=options.procs,
                partitions=16,
                rate=options.rate,
                batch_size=1000,
                flush_seconds=1.0,
                # A real broker reassigns nothing meanwhile; the embedded one ignores static membership,
                # and its rebalance takes the session timeout less a second.
                session_seconds=45.0 if broker == APACHE else 2.0,
            )
            with Engines(broker, logs / broker) as engines:
                seed = random.SystemRandom().randrange(1_000_000)
                result = roll(engines, shape, logs, rolls=options.rolls, seed=seed)
            is_good &= _print(result)
    return 0 if is_good else 1


def _print(rolled: Rolled) -> bool:
    report = rolled.report
    print(
        f"{rolled.broker}: {rolled.events_per_second:,.0f} events/s, {rolled.rolls} reloads of up to "
        f"{rolled.roll_seconds:.1f} s; longest pause in inserts {rolled.table_pause_seconds:.2f} s, "
        f"of one slot ({rolled.slot}) {rolled.slot_pause_seconds:.2f} s; {report.count:,} rows, "
        f"{report.unique:,} of {report.produced:,} events",
        flush=True,
    )
    for problem in report.problems:
        print(f"{rolled.broker}: {problem}")
    is_quick = rolled.broker != APACHE or rolled.table_pause_seconds <= LIMIT_SECONDS
    if not is_quick:
        print(f"{rolled.broker}: a pause of more than {LIMIT_SECONDS:g} s")
    return is_quick and not report.problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
