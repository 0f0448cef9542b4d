"""Installed command `worker` and its signals: processes, exit codes, log, every event once."""

import json
import os
import signal
import socket
import stat
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.acceptance.test_cli_worker import (
    PARTITIONS,
    TOPIC,
    Service,
    _log,
    _pids,
    service,  # noqa: F401  # a fixture
)
from tests.support.command import Running, run, running, wait_until
from tests.tools.faults.load import Load

RATE = 1500
KILLS = 51


@pytest.fixture
def environ(service: Service, tmp_path: Path) -> dict[str, str]:  # noqa: F811
    return service.environ | {
        "CONTROL_SOCKET": str(tmp_path / "worker.sock"),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "LOG_LEVEL": "info",
    }


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.update(map(int, (task / "children").read_text().split()))
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _log_count(worker: Running, message: str) -> int:
    return sum(event["message"] == message for event in _log(worker))


def _wait_for_log(worker: Running, message: str, times: int = 1) -> None:
    wait_until(lambda: _log_count(worker, message) >= times)


def _status(environ: dict[str, str]) -> dict[str, object]:
    status: dict[str, object] = json.loads(run("status", "--json", settings=environ).stdout)
    return status


def test_every_signal_keeps_events_exactly_once(
    service: Service,  # noqa: F811
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    env_file = tmp_path / "worker.env"
    env_file.write_text("FLUSH_INTERVAL=0.3\n")
    environ.pop("FLUSH_INTERVAL")
    command = ("--env-file", str(env_file), "worker", "--procs", "2")

    load = Load(service.kafka.bootstrap_servers, TOPIC, PARTITIONS, RATE, seed=11)
    load.resume()
    try:
        with running(tmp_path / "first.log", *command, settings=environ) as worker:
            _wait_for_log(worker, "assignment changed")
            wait_until(lambda: len(_children(worker.child.pid)) == 3)
            wait_until(lambda: service.counts()[0] > 0)

            before = _pids(worker)
            env_file.write_text("FLUSH_INTERVAL=0.4\nMETRICS_PORT=1\n")
            worker.child.send_signal(signal.SIGHUP)
            _wait_for_log(worker, "every process is replaced")
            after = _pids(worker)
            assert after.keys() == before.keys()
            assert not set(after.values()) & set(before.values())
            (read,) = (e for e in _log(worker) if e["message"] == "settings reloaded")
            assert read["changed"] == ["FLUSH_INTERVAL"]

            env_file.write_text("FLUSH_INTERVAL=soon\n")
            worker.child.send_signal(signal.SIGHUP)
            _wait_for_log(worker, "new settings refused: the old ones stay")
            assert "FLUSH_INTERVAL is 'soon'" in worker.output
            assert _pids(worker) == after
            env_file.write_text("FLUSH_INTERVAL=0.4\n")

            worker.child.send_signal(signal.SIGTTIN)
            wait_until(lambda: len(_children(worker.child.pid)) == 4)
            wait_until(lambda: "worker-2" in _pids(worker))
            worker.child.send_signal(signal.SIGTTOU)
            wait_until(lambda: len(_children(worker.child.pid)) == 3)

            worker.child.send_signal(signal.SIGUSR1)
            _wait_for_log(worker, "status of a slot", 3)

            os.kill(_pids(worker)["worker-1"], signal.SIGKILL)
            _wait_for_log(worker, "process ended: replacing it")

            worker.child.send_signal(signal.SIGINT)
            assert worker.wait() == 0, worker.output

        for number, code in ((signal.SIGQUIT, 131), (signal.SIGTERM, 0)):
            log = tmp_path / f"{number.name}.log"
            with running(log, *command, settings=environ) as worker:
                _wait_for_log(worker, "assignment changed")
                if number == signal.SIGTERM:
                    load.pause()
                    wait_until(lambda: service.counts()[0] >= load.sent)
                children = _children(worker.child.pid)
                assert len(children) == 3
                worker.child.send_signal(number)
                assert worker.wait() == code, worker.output
                assert not any(map(_is_alive, children))
    finally:
        load.pause()
    assert service.counts() == (load.sent, load.sent)


def test_fifty_killed_children_leak_nothing(
    service: Service,  # noqa: F811
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    procs = 17
    with running(
        tmp_path / "worker.log", "worker", "--procs", str(procs), settings=environ
    ) as worker:
        supervisor = worker.child.pid

        def open_files() -> list[str]:
            found = Path(f"/proc/{supervisor}/fd").iterdir()
            return sorted(os.readlink(path) for path in found)

        def files() -> set[str]:
            return {path.name for path in (tmp_path / "metrics").iterdir()}

        wait_until(lambda: run("status", settings=environ).returncode == 0)
        descriptors, metrics = open_files(), files()
        for turn in range(1, KILLS // procs + 1):
            killed = dict(_pids(worker))
            assert len(killed) == procs
            for pid in killed.values():
                os.kill(pid, signal.SIGKILL)

            def are_replaced(killed: dict[object, int] = killed) -> bool:
                now = _pids(worker)
                return all(now[slot] != pid for slot, pid in killed.items())

            wait_until(are_replaced)
            assert _log_count(worker, "process ended: replacing it") == procs * turn
            # Wait for the start, so that the next kill hits a running process.
            wait_until(lambda: all(s["state"] == "running" for s in _slots(environ)))
        wait_until(lambda: run("status", settings=environ).returncode == 0)
        assert open_files() == descriptors
        assert files() <= metrics | {path for path in files() if path.endswith(".alive")}
        assert len(_children(supervisor)) == procs + 1
        assert sum(int(str(slot["restarts"])) for slot in _slots(environ)) == KILLS
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output


def _slots(environ: dict[str, str]) -> list[dict[str, object]]:
    slots = _status(environ)["slots"]
    assert isinstance(slots, list)
    return slots


def test_killed_supervisor_leaves_no_child_or_socket(
    environ: dict[str, str], tmp_path: Path
) -> None:
    command = ("worker", "--procs", "2")
    with running(tmp_path / "first.log", *command, settings=environ) as worker:
        wait_until(lambda: len(_pids(worker)) == 2)
        children = _children(worker.child.pid)
        assert len(children) == 3
        os.kill(worker.child.pid, signal.SIGKILL)
        worker.wait()
        wait_until(lambda: not any(map(_is_alive, children)), 10.0)
    assert run("status", settings=environ).returncode == 69
    with running(tmp_path / "second.log", *command, settings=environ) as worker:
        wait_until(lambda: run("status", settings=environ).returncode == 0)
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output
    assert not Path(environ["CONTROL_SOCKET"]).exists()


def test_status_shows_slots_despite_silent_clients(
    service: Service,  # noqa: F811
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    with running(tmp_path / "worker.log", "worker", "--procs", "2", settings=environ) as worker:
        wait_until(lambda: run("status", settings=environ).returncode == 0)
        path = Path(environ["CONTROL_SOCKET"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        sent = run("produce", "--generate", "5000", settings=environ)
        assert sent.returncode == 0, sent.stderr
        wait_until(lambda: service.counts()[0] >= 5000)
        wait_until(lambda: float(str(_status(environ)["events_per_second"])) > 0)
        silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(8)]
        for client in silent:
            client.connect(str(path))
        wait_until(lambda: _status(environ)["lag"] == 0)
        status = _status(environ)
        slots = _slots(environ)
        assert [slot["slot"] for slot in slots] == ["metrics", "worker-0", "worker-1"]
        assert sum(int(str(slot["partitions"])) for slot in slots) == 8
        assert all(int(str(slot["memory_bytes"])) > 10_000_000 for slot in slots)
        assert status["is_healthy"] is True
        shown = run("status", settings=environ)
        for text in ("worker-1", "running", "partitions", "2 of 2 workers up", "healthy"):
            assert text in shown.stdout
        silent[1].settimeout(20.0)
        assert silent[1].recv(1) == b"", "a silent client is disconnected"
        for client in silent:
            client.close()

        service.engine.pause()
        sent = run("produce", "--generate", "500", settings=environ)
        assert sent.returncode == 0, sent.stderr
        service.engine.kill()
        wait_until(lambda: run("status", settings=environ).returncode == 1)
        assert "waiting" in run("status", settings=environ).stdout
        service.engine.start()
        wait_until(lambda: run("status", settings=environ).returncode == 0)
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output
    assert run("status", settings=environ).returncode == 69


def test_worker_waiting_for_clickhouse_is_not_replaced(
    service: Service,  # noqa: F811
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    short_timeouts = environ | {"HEARTBEAT_TIMEOUT": "5", "CLICKHOUSE_TIMEOUT": "3"}
    with running(
        tmp_path / "worker.log", "worker", "--procs", "2", settings=short_timeouts
    ) as worker:
        wait_until(lambda: run("status", settings=environ).returncode == 0)
        before = _pids(worker)
        # A connection that was used before waits longer, because it pings first.
        sent = run("produce", "--generate", "500", settings=environ)
        assert sent.returncode == 0, sent.stderr
        wait_until(lambda: service.counts()[0] >= 500)
        service.engine.pause()
        sent = run("produce", "--generate", "2000", "--seed", "2", settings=environ)
        assert sent.returncode == 0, sent.stderr
        time.sleep(9.0)  # a hung worker is killed after 5 to 6 s
        service.engine.resume()
        wait_until(lambda: service.counts()[0] >= 2500)
        assert _pids(worker) == before
        assert "worker hangs" not in worker.output
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output
    assert service.counts() == (2500, 2500)


def test_worker_notifies_systemd(environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "notify.sock"
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(0.01)

        def has_received(text: str) -> bool:
            try:
                while True:
                    messages.append(listening.recv(4096).decode())
            except TimeoutError:
                return any(message.startswith(text) for message in messages)

        settings = environ | {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "4000000"}
        with running(
            tmp_path / "worker.log", "worker", "--procs", "2", settings=settings
        ) as worker:
            wait_until(lambda: has_received("READY=1"))
            assert "WATCHDOG=1" in messages or has_received("WATCHDOG=1")
            wait_until(lambda: has_received("STATUS=running: 2 of 2 workers up, "))
            messages.clear()
            worker.child.send_signal(signal.SIGHUP)
            wait_until(lambda: has_received("RELOADING=1\nMONOTONIC_USEC="))
            wait_until(lambda: has_received("READY=1"))
            wait_until(lambda: has_received("WATCHDOG=1"))
            worker.child.send_signal(signal.SIGTERM)
            assert worker.wait() == 0, worker.output
            assert has_received("STOPPING=1")


def _ready(environ: dict[str, str]) -> str:
    try:
        url = f"http://127.0.0.1:{environ['METRICS_PORT']}/readyz"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_titles_and_readiness_follow_the_process_count(
    environ: dict[str, str], tmp_path: Path
) -> None:
    with running(tmp_path / "worker.log", "worker", "--procs", "2", settings=environ) as worker:
        wait_until(lambda: run("status", settings=environ).returncode == 0)
        pids = [worker.child.pid, *_children(worker.child.pid)]
        titles = {
            Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().strip() for pid in pids
        }
        assert titles == {
            f"octane-analytics: {name}"
            for name in ("supervisor", "metrics", "worker-0", "worker-1")
        }

        # The metrics process has a session of its own, so that it is scheduled apart from the workers.
        assert [os.getsid(pid) for pid in pids].count(worker.child.pid) == len(pids) - 1

        # The expected number of processes is read for each request.
        worker.child.send_signal(signal.SIGTTOU)
        wait_until(lambda: len(_children(worker.child.pid)) == 2)
        wait_until(lambda: _ready(environ) == "ready\n")
        worker.child.send_signal(signal.SIGTTIN)
        wait_until(lambda: len(_children(worker.child.pid)) == 3)
        wait_until(lambda: _ready(environ) == "ready\n")
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output


@pytest.mark.parametrize("delay", [0.0, 0.3, 0.6])
def test_interrupt_at_the_start_leaves_no_traceback(
    environ: dict[str, str], tmp_path: Path, delay: float
) -> None:
    with running(tmp_path / "worker.log", "worker", "--procs", "1", settings=environ) as worker:
        # The interpreter starts with a SIGINT handler, which the command then removes.
        wait_until(lambda: _catches_interrupts(worker.child.pid))
        wait_until(lambda: _has_started(worker.child.pid))
        time.sleep(delay)
        worker.interrupt()
        assert worker.wait() in (0, 130, -signal.SIGINT)
        assert "Traceback" not in worker.output, worker.output


def _has_started(pid: int) -> bool:
    """Return whether the command has started: the SIGINT handler is removed or librdkafka is loaded."""
    return not _catches_interrupts(pid) or "rdkafka" in Path(f"/proc/{pid}/maps").read_text()


def _catches_interrupts(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGINT - 1))
