"""Duration of a service's start, until every process consumes, and of the command's start.

Every process consumes once each owns a partition, as the supervisor reports over its control socket.
The group forms when the first of them does: the time before is Python's start and the broker's delay.
"""

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.table import Table

from octane_analytics.supervisor.control_socket import request_status
from tests.support.command import COMMAND, environment
from tests.tools.bench import options
from tests.tools.bench.backlog import Backlog
from tests.tools.bench.contenders import Job, worker_command
from tests.tools.bench.environment import Place
from tests.tools.bench.measure import rows
from tests.tools.bench.report import show, write_json

_DEADLINE_SECONDS = 90.0
_LOOK_SECONDS = 0.02
_EVENTS_EACH = 2_000
_BATCH_SIZE = 1_000


@dataclass(frozen=True)
class Start:
    """Times of one worker command, in seconds since its start."""

    group_forms: float
    """Time until the first process owns a partition."""
    all_consume: float
    """Time until every process owns one."""
    all_stored: float
    """Time until every event of the backlog can be read."""


@click.command()
@click.option("--procs", default=8, show_default=True, help="Worker processes; as many partitions.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Starts of each kind.",
)
@options.json_file
def start(procs: int, rounds: int, json_file: Path | None) -> None:
    """Measure the time until all processes of `worker` consume, and the duration of --help."""
    backlog = Backlog(procs * _EVENTS_EACH, procs)
    helps = [_help_seconds() for _ in range(rounds)]
    with Place([backlog]) as place:
        starts = [_start(place, backlog, procs, number) for number in range(rounds)]
        broker = place.broker
    write_json(
        json_file,
        broker=broker,
        procs=procs,
        starts=[asdict(start) for start in starts],
        helps=[{"wall_seconds": wall, "cpu_seconds": cpu} for wall, cpu in helps],
    )
    show(f"worker --procs {procs}, {broker}, {rounds} starts", start_table(starts, helps))


def start_table(starts: Sequence[Start], helps: Sequence[tuple[float, float]]) -> Table:
    table = Table("seconds", "median", "lowest", "highest")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in (
        ("start until the group forms", [s.group_forms for s in starts]),
        ("group forms until all consume", [s.all_consume - s.group_forms for s in starts]),
        ("start until all consume", [s.all_consume for s in starts]),
        ("start until the backlog is stored", [s.all_stored for s in starts]),
        ("--help, by the clock", [wall for wall, _ in helps]),
        ("--help, CPU", [cpu for _, cpu in helps]),
    ):
        table.add_row(
            name,
            f"{statistics.median(values):.2f}",
            f"{min(values):.2f}",
            f"{max(values):.2f}",
        )
    return table


def _help_seconds() -> tuple[float, float]:
    """Return the elapsed and the CPU seconds of the command."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([COMMAND, "--help"], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system
    return (
        time.perf_counter() - began,
        cpu - before.children_user - before.children_system,
    )


def _start(place: Place, backlog: Backlog, procs: int, number: int) -> Start:
    table = f"bench_start_{number}"
    with place.table(table) as clickhouse, tempfile.TemporaryDirectory() as directory:
        job = Job(
            table,
            place.bootstrap_servers,
            backlog.topic,
            clickhouse,
            place.engine.host,
            place.engine.tcp_port,
            _BATCH_SIZE,
            procs,
            may_grow=True,
            flush_seconds=1,
        )
        command, settings = worker_command(job, "exactly-once")
        socket = Path(directory) / "control"
        began = time.monotonic()
        with _running(command, settings | {"CONTROL_SOCKET": str(socket)}) as child:
            _wait_for(child, lambda: _consuming(socket) > 0)
            group_forms = time.monotonic() - began
            _wait_for(child, lambda: _consuming(socket) == procs)
            all_consume = time.monotonic() - began
            _wait_for(child, lambda: rows(clickhouse) == backlog.events)
            return Start(group_forms, all_consume, time.monotonic() - began)


@contextlib.contextmanager
def _running(command: list[str], settings: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command, env=environment(settings)) as child:
        try:
            yield child
        finally:
            child.terminate()


def _consuming(socket: Path) -> int:
    """Return the number of processes that own a partition."""
    try:
        told = json.loads(request_status(socket, 1.0))
    except OSError:
        return 0  # the control socket does not exist yet
    return sum(1 for slot in told["slots"] if slot["partitions"])


def _wait_for(child: "subprocess.Popen[bytes]", is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not is_so():
        if child.poll() is not None or time.monotonic() > deadline:
            raise click.ClickException("the worker does not consume with all its processes")
        time.sleep(_LOOK_SECONDS)
