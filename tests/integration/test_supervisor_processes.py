"""The supervisor over the kernel's own processes: none outlives it, and how it ends is told."""

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
MARK = "OCTANE_SUPERVISED"
KILLS = 6


def begin(mark: str, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.supervised", *arguments],
        env=os.environ | {MARK: mark} | environ,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )


def test_no_child_lives_a_second_after_its_supervisor_was_killed_while_it_forks() -> None:
    chance = random.Random(4)
    for turn in range(KILLS):
        mark = f"{os.getpid()}-{turn}"
        with begin(mark, "restless") as supervisor:
            wait_until(lambda mark=mark: len(processes_with(f"{MARK}={mark}")) > 1)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.05))
            supervisor.kill()
            supervisor.wait()
            wait_until(lambda mark=mark: not processes_with(f"{MARK}={mark}"), 1.0)  # type: ignore[misc]


def test_child_whose_supervisor_died_before_it_asked_to_be_told_ends_at_once(
    tmp_path: Path,
) -> None:
    went_on, mark = tmp_path / "went-on", f"{os.getpid()}-orphan"
    with begin(mark, "orphan", str(went_on)) as supervisor:
        assert supervisor.wait() == -signal.SIGKILL
    wait_until(lambda: not processes_with(f"{MARK}={mark}"))
    assert not went_on.exists()


def test_wait_that_was_stopped_beyond_its_time_has_seen_no_signal() -> None:
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


def test_signal_to_stop_ends_a_wait() -> None:
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


def test_supervisor_without_a_worker_that_starts_says_so_and_ends_with_a_code_of_its_own(
    tmp_path: Path,
) -> None:
    path, mark = tmp_path / "notify", f"{os.getpid()}-failing"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        with begin(mark, "failing", NOTIFY_SOCKET=str(path)) as supervisor:
            assert supervisor.wait() == Exit.NOT_RUNNING
        listening.setblocking(False)
        told = []
        try:
            while True:
                told.append(listening.recv(4096).decode())
        except BlockingIOError:
            pass
    assert "READY=1" not in told
    assert told[-1] == (
        "STATUS=gave up: no worker can start, the last ends: worker-0 with 70, worker-1 with 70"
    )
    assert not processes_with(f"{MARK}={mark}")
