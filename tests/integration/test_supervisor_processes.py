"""Supervisor with real processes: no child outlives it, and it reports why it exits."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from octane_analytics.runtime.exit_codes import Exit
from tests.support.command import processes_with, wait_until

ROOT = Path(__file__).resolve().parents[2]
MARK_VARIABLE = "OCTANE_SUPERVISED"
KILLS = 6


def start_supervisor(mark: str, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.supervised", *arguments],
        env=os.environ | {MARK_VARIABLE: mark} | environ,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )


def test_children_of_killed_supervisor_exit_within_second() -> None:
    generator = random.Random(4)
    for attempt in range(KILLS):
        mark = f"{os.getpid()}-{attempt}"
        with start_supervisor(mark, "restless") as supervisor:
            wait_until(lambda mark=mark: len(processes_with(f"{MARK_VARIABLE}={mark}")) > 1)  # type: ignore[misc]
            time.sleep(generator.uniform(0.0, 0.05))
            supervisor.kill()
            supervisor.wait()
            wait_until(lambda mark=mark: not processes_with(f"{MARK_VARIABLE}={mark}"), 1.0)  # type: ignore[misc]


def test_child_orphaned_before_prctl_exits_at_once(
    tmp_path: Path,
) -> None:
    child_ran, mark = tmp_path / "child-ran", f"{os.getpid()}-orphan"
    with start_supervisor(mark, "orphan", str(child_ran)) as supervisor:
        assert supervisor.wait() == -signal.SIGKILL
    wait_until(lambda: not processes_with(f"{MARK_VARIABLE}={mark}"))
    assert not child_ran.exists()


def test_wait_interrupted_by_sigstop_returns_no_signal() -> None:
    body = (
        "from octane_analytics.supervisor.posix import PosixSystem\n"
        "print(flush=True)\n"
        "print(PosixSystem().wait_signal(0.3))"
    )
    with subprocess.Popen([sys.executable, "-c", body], stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        waiting.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        waiting.send_signal(signal.SIGCONT)
        assert waiting.stdout.read() == b"None\n"


def test_stop_signal_ends_a_wait() -> None:
    body = (
        "from octane_analytics.runtime.stop_signal import StopSignal\n"
        "stop = StopSignal().install()\n"
        "print(flush=True)\n"
        "stop.wait(600)\n"
        "raise SystemExit(7 if stop.is_set else 1)"
    )
    with subprocess.Popen([sys.executable, "-c", body], stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        waiting.terminate()
        assert waiting.wait(60) == 7


def test_supervisor_without_workers_reports_and_exits(
    tmp_path: Path,
) -> None:
    path, mark = tmp_path / "notify", f"{os.getpid()}-failing"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        with start_supervisor(mark, "failing", NOTIFY_SOCKET=str(path)) as supervisor:
            assert supervisor.wait() == Exit.NOT_RUNNING
        listening.setblocking(False)
        messages = []
        try:
            while True:
                messages.append(listening.recv(4096).decode())
        except BlockingIOError:
            pass
    assert "READY=1" not in messages
    assert messages[-1] == (
        "STATUS=gave up: no worker can start, last exits: worker-0 with 70, worker-1 with 70"
    )
    assert not processes_with(f"{MARK_VARIABLE}={mark}")
