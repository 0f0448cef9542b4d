"""Cost of one run: rows per second, CPU of every process, memory, parts; from the first insert on.

The start, the join of the group and the first insert do not count: the clock and the CPU times of the
processes are read when the first rows are seen, and the CPU times again when the last ones are.
"""

import ctypes
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from octane_analytics.clickhouse.client import ClickHouse
from tests.tools.bench.backlog import Shape
from tests.tools.bench.layouts import Target

_LIBC = ctypes.CDLL(None)
_POLL_SECONDS = 0.2
"""Period of polls; each costs ClickHouse a millisecond, which counts as the contender's."""
_TIMED_SHARE = 0.75
"""Share of the events in full batches up to which the rate is measured, because the other events wait
idle for FLUSH_INTERVAL, some seconds. CPU time covers all of them."""


class BenchError(RuntimeError):
    """A run did not insert the expected events."""


@dataclass(frozen=True)
class Run:
    contender: str
    batch_size: int
    processes: int
    partitions: int
    event_bytes: int | None
    """Size of an event; None for the generator's."""
    events: int
    events_per_second: float
    client_cpu_us: float
    """CPU time for each event of everything outside ClickHouse, in microseconds."""
    clickhouse_cpu_us: float
    peak_client_mib: int
    """Largest resident memory of one of the client's processes; 0 without any."""
    peak_clickhouse_mib: int
    """Largest observed sum over its servers."""
    parts: int
    """Parts that the inserts created, before merges."""

    @property
    def cpu_us(self) -> float:
        return self.client_cpu_us + self.clickhouse_cpu_us


@dataclass(frozen=True)
class Look:
    """Progress of a run at one moment."""

    at: float
    rows: int
    client_seconds: float = 0.0
    """Total CPU time of the processes since their starts."""
    clickhouse_seconds: float = 0.0


@dataclass(frozen=True)
class Pace:
    """Result of a run."""

    events_per_second: float
    client_cpu_us: float
    clickhouse_cpu_us: float


def pace(first: Look, timed: Look, last: Look) -> Pace:
    """Return the rate up to the timed poll, and CPU times up to the last; all since the first."""
    events = last.rows - first.rows
    return Pace(
        (timed.rows - first.rows) / (timed.at - first.at),
        (last.client_seconds - first.client_seconds) / events * 1e6,
        (last.clickhouse_seconds - first.clickhouse_seconds) / events * 1e6,
    )


def measure(
    target: Target,
    clients: Callable[[], Iterable[int]],
    *,
    contender: str,
    shape: Shape,
    full_events: int,
    deadline_seconds: float,
) -> Run:
    """Block until the table holds all events, on every replica. Raise BenchError after the deadline."""
    deadline = time.monotonic() + deadline_seconds
    events = shape.backlog.events

    def look(found: int) -> Look:
        return Look(
            time.monotonic(),
            found,
            sum(map(cpu_seconds, clients())),
            sum(map(cpu_seconds, target.pids)),
        )

    while not (found := target.rows()):
        _check(deadline, contender, 0, events)
        time.sleep(_POLL_SECONDS)
    first = timed = look(found)
    engine_kib = 0
    while found < events:
        _check(deadline, contender, found, events)
        time.sleep(_POLL_SECONDS)
        found = target.rows()
        if timed.rows < (full_events or events) * _TIMED_SHARE:
            timed = Look(time.monotonic(), found)
        engine_kib = max(engine_kib, sum(_kib(pid, "VmRSS") for pid in target.pids))
    target.synchronise()
    last = look(found)
    if found != events or timed is first:
        raise BenchError(
            f"{contender}: {found:,} rows of {events:,} events, {first.rows:,} of them in the first "
            "insert: too few are left to measure; give more --events"
        )
    came_to = pace(first, timed, last)
    return Run(
        contender=contender,
        batch_size=shape.batch_size,
        processes=shape.processes,
        partitions=shape.backlog.partitions,
        event_bytes=shape.backlog.event_bytes,
        events=events,
        events_per_second=came_to.events_per_second,
        client_cpu_us=came_to.client_cpu_us,
        clickhouse_cpu_us=came_to.clickhouse_cpu_us,
        peak_client_mib=peak_mib(clients()),
        peak_clickhouse_mib=engine_kib >> 10,
        parts=sum(parts(first, is_replicated=target.is_replicated) for first, *_ in target.shards),
    )


def rows(clickhouse: ClickHouse) -> int:
    return int(clickhouse.select(f"SELECT count() FROM {clickhouse.table}").rows[0][0])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of the process and of all its threads, ended ones too.

    Counts nanoseconds, see clock_getcpuclockid(3). /proc/PID/stat counts ticks of 10 ms, as much as 40
    events cost at a low rate. Raise ProcessLookupError if there is no such process.
    """
    clock = ctypes.c_int()
    if error := _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise ProcessLookupError(error, os.strerror(error), str(pid))
    return time.clock_gettime(clock.value)


def peak_mib(pids: Iterable[int]) -> int:
    """Return the largest resident memory that one of the processes has had; 0 without any."""
    return max((_kib(pid, "VmHWM") for pid in pids), default=0) >> 10


def _kib(pid: int, name: str) -> int:
    """Return a field of proc_pid_status(5) in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0])


def parts(clickhouse: ClickHouse, *, is_replicated: bool = False) -> int:
    """Return the number of parts that inserts have created, by their numbers: from 1 in a plain table,
    from 0 in each month of a replicated one."""
    numbers = "sum(last + 1)" if is_replicated else "max(last)"
    return int(
        clickhouse.select(
            f"SELECT {numbers} FROM (SELECT max(max_block_number) AS last FROM system.parts "
            "WHERE database = {database:String} AND table = {table:String} GROUP BY partition_id)",
            {"database": clickhouse.table.database, "table": clickhouse.table.table},
        ).rows[0][0]
    )


def active_parts(clickhouse: ClickHouse) -> int:
    """Return the number of parts that merges have left."""
    return int(
        clickhouse.select(
            "SELECT count() FROM system.parts "
            "WHERE active AND database = {database:String} AND table = {table:String}",
            {"database": clickhouse.table.database, "table": clickhouse.table.table},
        ).rows[0][0]
    )


def _check(deadline: float, contender: str, found: int, events: int) -> None:
    if time.monotonic() > deadline:
        raise BenchError(f"{contender}: only {found:,} of {events:,} events in time")
