"""systemd notifications of the API over a real NOTIFY_SOCKET, through reloads and worker crashes."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.test_api_server import Server, children, files, server, wait_until

__all__ = ["server"]


class Listener:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.lines: list[str] = []

    def received(self, start: str) -> bool:
        """Return whether a line with this prefix was received since the last `clear`."""
        while True:
            try:
                self.lines += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return any(line.startswith(start) for line in self.lines)

    def clear(self) -> None:
        self.received("")
        self.lines.clear()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listening = Listener(tmp_path / "notify")
    yield listening
    listening.close()


@pytest.fixture
def arbiter(server: Server, listener: Listener) -> Iterator[subprocess.Popen[str]]:
    server.environment |= {"NOTIFY_SOCKET": str(listener.path), "WATCHDOG_USEC": "3000000"}
    with server.start() as process:
        try:
            yield process
        finally:
            process.kill()
            print(server.log.read_text())


def test_systemd_receives_ready_watchdog_and_stopping(
    server: Server, listener: Listener, arbiter: subprocess.Popen[str]
) -> None:
    wait_until(lambda: listener.received("READY=1"))
    assert server.get("/healthz").status_code == 200  # right after READY=1
    assert len(children(arbiter.pid)) == 2
    assert "STATUS=2 of 2 processes answer" in listener.lines
    listener.clear()
    wait_until(lambda: listener.received("WATCHDOG=1"))
    assert not listener.received("READY=1")
    arbiter.terminate()
    assert arbiter.wait(15) == 0
    assert listener.received("STOPPING=1")


def test_stopped_arbiter_sends_no_watchdog_ping(
    listener: Listener, arbiter: subprocess.Popen[str]
) -> None:
    wait_until(lambda: listener.received("WATCHDOG=1"))
    arbiter.send_signal(signal.SIGSTOP)
    listener.clear()
    time.sleep(2.5)
    assert not listener.received("WATCHDOG=1")
    arbiter.send_signal(signal.SIGCONT)
    wait_until(lambda: listener.received("WATCHDOG=1"))


def test_reload_keeps_serving(
    server: Server, listener: Listener, arbiter: subprocess.Popen[str]
) -> None:
    wait_until(lambda: listener.received("READY=1"))
    stop = threading.Event()
    answers: list[int] = []
    slowest = 0.0

    def ask() -> None:
        nonlocal slowest
        while not stop.is_set():
            started = time.monotonic()
            with httpx.Client(timeout=10) as client:  # one connection per request
                answers.append(client.get(f"{server.url}/healthz").status_code)
            slowest = max(slowest, time.monotonic() - started)

    request_thread = threading.Thread(target=ask)
    request_thread.start()
    try:
        for _ in range(3):
            before = set(children(arbiter.pid))
            listener.clear()
            arbiter.send_signal(signal.SIGHUP)
            wait_until(lambda: listener.received("READY=1"), 20)
            reloading = next(line for line in listener.lines if line.startswith("RELOADING="))
            assert listener.lines.index(reloading) < listener.lines.index("READY=1")
            wait_until(lambda: len(children(arbiter.pid)) == 2)
            assert not before & set(children(arbiter.pid))
    finally:
        stop.set()
        request_thread.join(20)
    assert request_thread.is_alive() is False
    assert set(answers) == {200}
    assert slowest < 5


def test_fifty_crashes_leave_no_more_files_than_slots(
    server: Server, listener: Listener, arbiter: subprocess.Popen[str]
) -> None:
    wait_until(lambda: listener.received("READY=1"))
    descriptors = len(os.listdir(f"/proc/{arbiter.pid}/fd"))
    for crash in range(50):
        before = children(arbiter.pid)
        if crash % 10 == 0:
            assert server.get("/healthz").status_code == 200
        os.kill(before[0], signal.SIGKILL)
        wait_until(
            lambda before=before: (  # type: ignore[misc]
                len(children(arbiter.pid)) == 2 and before[0] not in children(arbiter.pid)
            )
        )
    wait_until(server.is_up)
    slots = {name.rpartition("_")[2].partition(".")[0] for name in files(server)}
    assert slots <= {"api-0", "api-1"}
    wait_until(lambda: len(os.listdir(f"/proc/{arbiter.pid}/fd")) <= descriptors)


def test_process_after_max_requests_is_replaced(server: Server, listener: Listener) -> None:
    server.environment |= {
        "NOTIFY_SOCKET": str(listener.path),
        "API_MAX_REQUESTS": "20",
        "API_MAX_REQUESTS_JITTER": "5",
    }
    with server.start() as process:
        try:
            wait_until(lambda: listener.received("READY=1"))
            before = set(children(process.pid))
            for _ in range(120):
                assert server.get("/healthz").status_code == 200
            wait_until(lambda: not before & set(children(process.pid)), 20)
            slots = {name.rpartition("_")[2] for name in files(server)}
            # Each successor responds before its predecessor is ended.
            assert slots <= {f"api-{slot}.{end}" for slot in range(4) for end in ("db", "alive")}
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()
            print(server.log.read_text())
