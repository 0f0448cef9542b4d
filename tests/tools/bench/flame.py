"""Flame graph of a worker command that consumes a backlog, over all its processes.

py-spy looks at the stacks from outside, Python's and those of the C beneath. It starts the command
itself, because to look at a process that one has not started takes a right that users mostly lack.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from tests.tools.bench.backlog import Shape
from tests.tools.bench.contenders import Job, worker_command
from tests.tools.bench.environment import Place
from tests.tools.bench.measure import children, rows

_SAMPLES_A_SECOND = 400
_DEADLINE_SECONDS = 300.0
_END_SECONDS = 60.0
_TABLE = "bench_flame"


def flame(place: Place, shape: Shape, file: Path) -> None:
    """Write the picture, a self-contained SVG. Block until the backlog is consumed."""
    with place.table(_TABLE) as clickhouse:
        job = Job(
            f"{_TABLE}_{time.time_ns()}",
            place.bootstrap_servers,
            shape.backlog.topic,
            clickhouse,
            place.engine.host,
            place.engine.tcp_port,
            shape.batch_size,
            1,
            may_grow=shape.may_grow,
        )
        command, settings = worker_command(job, "exactly-once")
        spy = str(Path(sys.executable).with_name("py-spy"))
        options = [
            "--native",
            "--subprocesses",
            "--rate",
            str(_SAMPLES_A_SECOND),
            "--output",
            str(file),
        ]
        with subprocess.Popen(
            [spy, "record", *options, "--", *command],
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as child:
            deadline = time.monotonic() + _DEADLINE_SECONDS
            while child.poll() is None and rows(clickhouse) < shape.backlog.events:
                if time.monotonic() > deadline:
                    child.kill()
                time.sleep(0.2)
            # Stop the worker, not py-spy, which draws when the worker has ended.
            for pid in children(child.pid) if child.poll() is None else ():
                os.kill(pid, signal.SIGTERM)
            _, told = child.communicate(timeout=_END_SECONDS)
        found = rows(clickhouse)
        clickhouse.execute(f"DROP TABLE {clickhouse.table} SYNC")
    if child.returncode or found < shape.backlog.events:
        last = told.decode(errors="replace").strip().splitlines()[-1:]
        raise click.ClickException(f"no flame graph: py-spy {child.returncode}: {' '.join(last)}")
