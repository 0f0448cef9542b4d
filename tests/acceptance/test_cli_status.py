"""Output of `status` on a terminal, in a pipe and in a file, with a real control socket."""

import json
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octane_analytics.supervisor.control_socket import ControlSocket
from tests.support.command import COMMAND, environment, run, running, wait_until
from tests.support.terminal import CTRL_C, on_terminal

ALL_COLUMNS = (
    "slot pid state uptime restarts partitions events/s lag last flush memory".split()  # noqa: SIM905
)
ERROR = (
    "kafka: partition octane.events[17]: 12,345,678 records are not available any more; lengthen the "
    "topic's retention"
)


def _slot(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "slot": name,
        "is_worker": name.startswith("worker"),
        "pid": 1_234_567,
        "state": "running",
        "is_waiting": False,
        "uptime_seconds": 1_234_567.0,
        "restarts": 12,
        "partitions": 128,
        "events_per_second": 123_456.7,
        "lag": 12_345_678_901,
        "last_flush_seconds": 3.0,
        "memory_bytes": 1_234_567_890,
        "last_error": None,
        "last_error_seconds": None,
        "last_exit": None,
        **facts,
    }


STATUS = {
    "is_healthy": False,
    "problems": [
        {
            "text": "workers that wait for a dependency: 1 (limit 0): worker-9",
            "page": "alerts",
            "section": "AnalyticsIngestionStalled",
        }
    ],
    "pid": 1_234_566,
    "state": "running",
    "uptime_seconds": 1_234_567.0,
    "events_per_second": 987_654.3,
    "lag": 98_765_432_109,
    "held_back": 0,
    "last_reload": "reloaded 3m 4s ago",
    "slots": [
        _slot("metrics"),
        *(_slot(f"worker-{number}") for number in range(9)),
        _slot("worker-9", is_waiting=True, last_error=ERROR, last_error_seconds=3.0),
    ],
}


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[dict[str, str]]:
    control = ControlSocket(tmp_path / "worker.sock")
    control.open()
    has_ended = threading.Event()

    def serve() -> None:
        while not has_ended.is_set():
            poll = select.poll()
            for descriptor, events in control.descriptors():
                poll.register(descriptor, events)
            poll.poll(50)
            control.serve_clients(time.monotonic(), lambda: json.dumps(STATUS))

    thread = threading.Thread(target=serve)
    thread.start()
    yield {"CONTROL_SOCKET": str(control.path)}
    has_ended.set()
    thread.join()
    control.close()


@pytest.mark.parametrize("columns", [80, 60, 200])
def test_status_fits_the_terminal_with_whole_words(settings: dict[str, str], columns: int) -> None:
    shown = on_terminal("status", columns=columns, settings=settings)
    assert shown.code == 1
    assert max(map(len, shown.lines)) <= columns
    text = " ".join(" ".join(shown.lines).split())
    for expected in ("12,345,678,901", "123,457", "worker-9", "waiting", "not healthy", ERROR):
        assert expected in text
    assert ("1,235 MB" in text) is (columns == 200)


def test_status_without_a_terminal_has_all_columns(settings: dict[str, str]) -> None:
    done = run("status", settings=settings)
    reason, headings, row = done.stdout.splitlines()[1:4]
    assert reason == (
        "not healthy: workers that wait for a dependency: 1 (limit 0): worker-9; see "
        "AnalyticsIngestionStalled in `octane-analytics manual alerts`"
    )
    assert headings.split() == ALL_COLUMNS
    assert "1,235 MB" in row
    assert f"worker-9: 3s ago: {ERROR}" in done.stdout.splitlines()


@pytest.mark.parametrize("seconds", [("--watch=0.1",), ("--watch", "0.1")])
def test_status_watch_into_a_file_appends(
    settings: dict[str, str], seconds: tuple[str, ...], tmp_path: Path
) -> None:
    with running(tmp_path / "output", "status", *seconds, settings=settings) as watching:
        wait_until(lambda: watching.output.count("12,345,678,901") >= 30, 20.0)
        watching.interrupt()
        assert watching.wait() == 0
    assert "\x1b" not in watching.output
    assert watching.output.count("supervisor 1234566") >= 3


def test_status_watch_ends_when_the_pipe_closes(
    settings: dict[str, str],
) -> None:
    child = subprocess.Popen(
        [COMMAND, "status", "--watch", "0.1", "--json"],
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    reports = [json.loads(child.stdout.readline()) for _ in range(3)]
    assert reports == [STATUS] * 3
    child.stdout.close()
    assert child.wait(20.0) == 1
    assert child.stderr.read() == ""
    child.stderr.close()


def test_status_watch_on_a_terminal_ends_on_interrupt(settings: dict[str, str]) -> None:
    shown = on_terminal(
        *("status", "--watch"),
        answers=[("worker-9: ", CTRL_C)],
        settings=settings,
    )
    assert shown.code == 0
    assert shown.raw.startswith("\x1b[H\x1b[2Jsupervisor")
