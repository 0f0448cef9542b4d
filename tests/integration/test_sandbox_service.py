import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octane_analytics.sandbox.service import Service

DEADLINE_SECONDS = 20.0


def _service(script: str, log: Path | None) -> Service:
    return Service("it", [sys.executable, "-c", script], os.environ, log)


def _wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"no {text!r} in {path}"
        time.sleep(0.01)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_tail_returns_the_lines_of_this_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("an earlier run\n")
    service = _service("for n in range(5): print(n, flush=True)\nraise SystemExit(3)", log)
    service.start()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while service.exit_code is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    service.stop(deadline)
    assert service.exit_code == 3
    assert service.tail(2) == "3\n4"
    assert service.tail(99) == "0\n1\n2\n3\n4"


def test_stop_sends_sigterm_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    service = _service(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True)\nsignal.pause()",
        log,
    )
    service.start()
    _wait_for(log, "up")
    service.stop(time.monotonic() + DEADLINE_SECONDS)
    assert service.exit_code == 7


def test_stop_kills_an_unresponsive_program_and_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    service = _service(
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: print(child, 'up', flush=True)\n"
        "signal.pause()",
        log,
    )
    service.start()
    _wait_for(log, "up")
    child = int(log.read_text().split()[0])
    service.stop(time.monotonic() + 0.1)
    assert service.exit_code == -signal.SIGKILL
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not _is_gone(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stop_before_start_does_nothing(tmp_path: Path) -> None:
    service = _service("", tmp_path / "log")
    service.stop(time.monotonic())
    assert service.exit_code is None
    assert service.tail(3) == ""


def test_output_goes_to_the_terminal_without_a_log() -> None:
    script = (
        "import os, sys, time\n"
        "from octane_analytics.sandbox.service import Service\n"
        "service = Service('it', [sys.executable, '-c', 'print(42)'], os.environ, None)\n"
        "service.start()\n"
        "while service.exit_code is None: time.sleep(0.01)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stderr == b"42\n"
    assert done.stdout == b""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_service_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import os, sys, time, pathlib\n"
        "from octane_analytics.sandbox.service import Service\n"
        "code = 'import os, signal; print(os.getpid(), \"up\", flush=True); signal.pause()'\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "Service('it', [sys.executable, '-c', code], os.environ, log).start()\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    _wait_for(tmp_path / "log", "up")
    child = int((tmp_path / "log").read_text().split()[0])
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not _is_gone(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
