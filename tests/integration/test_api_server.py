"""gunicorn as it runs in production: real processes, signals and sockets."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.ports import free_port

# gunicorn does not close a socket object of its own that it used to determine its address.
_WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")
_SIGTERM_AT_FORK = """
import os, signal
from gunicorn.app.base import BaseApplication
from octane_analytics.api.server.arbiter import ApiArbiter, give_slot, restore_sigterm
from octane_analytics.supervisor.sd_notify import Notifier

def post_fork(arbiter, worker):
    os.kill(os.getpid(), signal.SIGTERM)
    restore_sigterm()
    os._exit(3)

class Application(BaseApplication):
    def load_config(self):
        self.cfg.set("pre_fork", give_slot)
        self.cfg.set("post_fork", post_fork)

arbiter = ApiArbiter(Application(), Notifier({}, os.getpid()))
arbiter.pid = os.getpid()
arbiter.init_signals()
_, status = os.waitpid(arbiter.spawn_worker(), 0)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
print(os.WTERMSIG(status), signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
_FORK_FAILS_TWICE = """
import errno, os
fork, forks = os.fork, []
def failing_fork():
    forks.append(1)
    if len(forks) in (3, 4):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = failing_fork
"""
_MAIN = """
import os, pathlib, sys
from octane_analytics.api.server.run import run_api
from octane_analytics.errors import ConfigError
from octane_analytics.settings.loading import load
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.telemetry.logging import configure
if __name__ == "__main__":
    settings = load(os.environ).settings
    configure(settings.log.level, settings.log.format, "api")
    try:
        notifier = Notifier(os.environ, os.getpid())
        os.environ.pop("NOTIFY_SOCKET", None)
        code = run_api(settings, pathlib.Path(sys.argv[1]), notifier)
    except ConfigError as error:
        print(error, file=sys.stderr)
        code = 78
    print("returned", os.getpid(), flush=True)
    sys.exit(code)
"""


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


class Server:
    def __init__(self, settings: ClickHouseSettings, directory: Path) -> None:
        self.port = free_port()
        self.metrics = directory / "metrics"
        self.log = directory / "log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.prelude = ""
        """Python source that runs before the service."""
        self.environment = os.environ | {
            "API_PORT": str(self.port),
            "API_WORKERS": "2",
            "CLICKHOUSE_HOST": settings.host,
            "CLICKHOUSE_PORT": str(settings.port),
            "CLICKHOUSE_DATABASE": settings.database,
            "LOG_FORMAT": "json",
            # Does not limit the duration of queries in tests.
            "API_QUERY_FUNCTIONS": "sleep",
        }

    def start(self) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, *_WARNINGS, "-c", self.prelude + _MAIN, str(self.metrics)],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30)

    def query(self, sql: str) -> httpx.Response:
        return httpx.post(f"{self.url}/query", json={"sql": sql}, timeout=20)

    def is_up(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def server(clickhouse_settings: ClickHouseSettings, tmp_path: Path) -> Server:
    return Server(clickhouse_settings, tmp_path)


@pytest.fixture
def arbiter(server: Server) -> Iterator[subprocess.Popen[str]]:
    with server.start() as process:
        try:
            wait_until(server.is_up)
            wait_until(lambda: len(children(process.pid)) == 2)
            yield process
        finally:
            process.kill()
            print(server.log.read_text())


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def files(server: Server) -> set[str]:
    return {path.name for path in server.metrics.iterdir()}


def test_server_serves_logs_counts_and_exits_on_sigterm(
    server: Server, arbiter: subprocess.Popen[str]
) -> None:
    answer = httpx.post(f"{server.url}/report", json={"template": "overview_stats"})
    assert answer.status_code == 200
    assert answer.json()["rows"][0]["total_events"] == 0

    for _ in range(20):
        assert server.get("/healthz").json() == {"status": "ok"}
    counted = 'analytics_api_requests_total{route="/healthz",status="200"} 20.0'
    # The sum over both workers; each counts a request after its response was sent.
    wait_until(lambda: counted in server.get("/metrics").text)
    kinds = ("counter_{}.db", "gauge_sum_{}.db", "histogram_{}.db", "{}.alive")
    expected = {kind.format(f"api-{slot}") for kind in kinds for slot in (0, 1)}
    wait_until(lambda: server.get("/healthz").is_success and files(server) == expected)

    workers = children(arbiter.pid)
    arbiter.terminate()
    output, _ = arbiter.communicate(timeout=30)
    assert arbiter.returncode == 0
    # Workers exit in place and never return to the caller of the server.
    assert output.split() == ["returned", str(arbiter.pid)]
    assert not any(is_alive(pid) for pid in workers)

    lines = server.log.read_text().splitlines()
    assert all(line.startswith('{"time":') for line in lines)
    (request,) = [line for line in lines if '"/report"' in line]
    assert '"status": 200' in request
    assert re.search(r'"process": "api-[01]"', request)


def test_workers_are_replaced_in_their_slots(
    server: Server, arbiter: subprocess.Popen[str]
) -> None:
    before = children(arbiter.pid)
    os.kill(before[0], signal.SIGKILL)
    wait_until(
        lambda: (
            len(set(children(arbiter.pid)) | set(before)) == 3 and len(children(arbiter.pid)) == 2
        )
    )
    wait_until(server.is_up)
    assert all(
        re.search(r"\bapi-[01]\.(db|alive)$", name.replace("_", " ")) for name in files(server)
    )

    replaced = set(children(arbiter.pid))
    arbiter.send_signal(signal.SIGHUP)
    wait_until(
        lambda: len(children(arbiter.pid)) == 2 and not replaced & set(children(arbiter.pid))
    )
    wait_until(server.is_up)
    # New and old workers coexist for a moment.
    assert all(
        re.search(r"\bapi-[0-3]\.(db|alive)$", name.replace("_", " ")) for name in files(server)
    )
    arbiter.terminate()
    assert arbiter.wait(30) == 0


def test_request_in_progress_on_sigterm_is_answered(
    server: Server, arbiter: subprocess.Popen[str], clickhouse_settings: ClickHouseSettings
) -> None:
    answers: list[httpx.Response] = []
    request_thread = threading.Thread(
        target=lambda: answers.append(server.query("SELECT sleep(3) AS n"))
    )
    request_thread.start()
    with ClickHouse(clickhouse_settings, client_name="tests") as clickhouse:
        listed = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep(3)%'"
        wait_until(lambda: clickhouse.select(listed).rows == [(1,)])
    arbiter.terminate()
    request_thread.join(30)
    assert [answer.status_code for answer in answers] == [200]
    assert arbiter.wait(30) == 0


def test_worker_on_sigterm_during_its_fork_exits() -> None:
    done = subprocess.run(
        [sys.executable, *_WARNINGS, "-c", _SIGTERM_AT_FORK],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    number, blocked = done.stdout.split(maxsplit=1)
    assert number == str(signal.SIGTERM.value), done.stderr
    assert "SIGTERM" not in blocked  # the process may have inherited others as blocked


def test_worker_after_a_failed_fork_is_started_later(server: Server) -> None:
    server.prelude = _FORK_FAILS_TWICE
    with server.start() as process:
        try:
            wait_until(lambda: len(children(process.pid)) == 2)
            wait_until(server.is_up)
            before = children(process.pid)
            os.kill(before[0], signal.SIGKILL)
            wait_until(lambda: "worker not started" in server.log.read_text())
            assert server.get("/healthz").status_code == 200
            wait_until(lambda: len(set(children(process.pid)) - {before[0]}) == 2)
            process.terminate()
            assert process.wait(30) == 0
            assert server.log.read_text().count("worker not started") == 1
        finally:
            process.kill()
            print(server.log.read_text())


def test_workers_exit_when_their_arbiter_is_killed(
    server: Server, arbiter: subprocess.Popen[str]
) -> None:
    workers = children(arbiter.pid)
    arbiter.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in workers))


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.1", "no-such-host.invalid"])
def test_unavailable_address_exits_with_one_line(server: Server, address: str) -> None:
    with socket.create_server(("127.0.0.1", server.port)):
        server.environment["API_HOST"] = address
        with server.start() as process:
            assert process.wait(30) == 78
    (line,) = server.log.read_text().splitlines()
    if address == "127.0.0.1":
        assert line.startswith(f"API_PORT: cannot listen on {address}:{server.port}: ")
    else:
        assert line.startswith(f"API_HOST: {address!r} is not an address of this machine: ")
