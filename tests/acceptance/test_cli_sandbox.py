import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.command import (
    COMMAND,
    Running,
    environment,
    processes_with,
    run,
    running,
    wait_until,
)

EVENTS = 5000
STOP_SECONDS = 40.0
OTHER_SERVERS = {
    "KAFKA_BOOTSTRAP_SERVERS": "production:9092",
    "CLICKHOUSE_HOST": "production",
    "CLICKHOUSE_PASSWORD": "secret",
    "KAFKA_RDKAFKA_SECURITY_PROTOCOL": "SASL_SSL",
}


@contextmanager
def marked(directory: Path) -> Iterator[dict[str, str]]:
    """Yield a variable that all processes of a sandbox inherit; finally wait until all have exited."""
    name = f"OCTANE_TEST_MARK_{os.getpid()}_{directory.name}"
    # Without SPT_NOENV, process titles would overwrite the environment in /proc.
    yield {name: "1", "SPT_NOENV": "1"}
    wait_until(lambda: not processes_with(name), 5.0)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[dict[str, str]]:
    with marked(tmp_path) as variables:
        yield variables


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> list[subprocess.CompletedProcess[str]]:
    """Results of two runs in one data directory, with an environment of other servers."""
    directory = tmp_path_factory.mktemp("finished")
    with marked(directory) as mark:
        settings = mark | OTHER_SERVERS
        arguments = ("--generate", str(EVENTS), "--data-dir", str(directory / "data"))
        return [_run_once(*arguments, settings=settings) for _ in range(2)]


@dataclass(frozen=True)
class Served:
    command: Running
    mark: dict[str, str]
    port: str
    data: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a sandbox in the foreground with a given port and directory; stop it by SIGTERM."""
    directory = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = str(first.getsockname()[1])
    data = str(directory / "data")
    arguments = [
        *("sandbox", "--procs", "1", "--partitions", "3", "--generate", "700"),
        *("--api-port", port, "--data-dir", data),
    ]
    with (
        marked(directory) as mark,
        running(directory / "output", *arguments, settings=mark) as command,
    ):
        command.wait_for("Ctrl-C stops the sandbox.")
        yield Served(command, mark, port, data)
        command.child.terminate()
        assert command.wait(STOP_SECONDS) == 0
        assert Path(data).is_dir()


def _run_once(*arguments: str, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run(
        "sandbox",
        "--procs",
        "2",
        "--once",
        *arguments,
        timeout_seconds=110.0,
        settings=settings,
    )


def _address(command: Running, name: str) -> str:
    match = re.search(rf"^{name} +(\S+?),?(?: |$)", command.output, re.MULTILINE)
    assert match, command.output
    return match[1]


def test_sandbox_ingests_once_and_reports(
    finished: list[subprocess.CompletedProcess[str]],
) -> None:
    for done in finished:
        assert done.returncode == 0, done.stderr
        assert "5,000 of 5,000 events in ClickHouse" in done.stdout
        assert re.search(r"^[\d,]+ events/s from the first send", done.stdout, re.MULTILINE)
        for report in ("overview_stats", "search_analytics", "top_content"):
            assert report in done.stdout


def test_data_directory_keeps_the_events_of_both_runs(
    finished: list[subprocess.CompletedProcess[str]],
) -> None:
    for done, total in zip(finished, ("5,000", "10,000"), strict=True):
        assert re.search(rf"total_events *│ *{total}", done.stdout)


def test_two_sandboxes_run_side_by_side(mark: dict[str, str]) -> None:
    results: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(_run_once("--generate", str(EVENTS), settings=mark))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.returncode for done in results] == [0, 0], [done.stderr for done in results]
    assert all("5,000 of 5,000 events in ClickHouse" in done.stdout for done in results)


def test_invalid_lines_become_dead_letter_messages(mark: dict[str, str], tmp_path: Path) -> None:
    event = {
        "app_id": "openstream",
        "event_name": "video_buffering",
        "user_id": "user_550e8400",
        "timestamp": "2026-02-02T12:00:00.000Z",
        "properties": {"stream_id": "st-998877"},
    }
    lines = [json.dumps(event | {"user_id": f"user_{n}"}) for n in range(300)]
    lines += ["{broken", json.dumps(event | {"timestamp": "yesterday"}), "", "[]"]
    path = tmp_path / "events"
    path.write_text("\n".join(lines))
    done = _run_once("--load", str(path), settings=mark)
    assert done.returncode == 0, done.stderr
    assert "300 of 300 events in ClickHouse" in done.stdout
    assert "3 lines are invalid events: dead-letter messages" in done.stdout
    assert re.search(r"total_events *│ *300", done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the printed commands call curl")
def test_sandbox_serves_until_interrupted(mark: dict[str, str], tmp_path: Path) -> None:
    with running(tmp_path / "output", "sandbox", "--procs", "2", settings=mark) as command:
        command.wait_for("Ctrl-C stops the sandbox.")
        produce, report, query = re.findall(r"^  (.+)$", command.output, re.MULTILINE)
        assert _shell(produce).startswith("10,000 delivered, 0 failed")
        wait_until(lambda: _count(_address(command, "API")) == 10_000)
        # Rows are visible shortly before the worker receives the result of the insert.
        metrics, counted = _address(command, "Metrics"), "analytics_events_inserted_total 10000.0"
        wait_until(lambda: counted in httpx.get(metrics, timeout=10.0).text)
        assert json.loads(_shell(report))["rows"][0]["total_events"] == 10_000
        assert sum(row["count()"] for row in json.loads(_shell(query))["rows"]) == 10_000
        dashboard = _address(command, "Dashboard")
        assert command.output.index("Dashboard ") < command.output.index("ClickHouse ")
        assert httpx.get(dashboard).headers["content-type"].startswith("text/html")
        state = httpx.get(f"{_address(command, 'API')}/status/data").json()
        assert state["has_lag"]
        assert [slot["slot"] for slot in state["supervisor"]["slots"]] == [
            *("metrics", "worker-0", "worker-1")
        ]
        data = Path(_address(command, "Data"))
        assert data.is_dir()
        command.interrupt()
        assert command.wait(STOP_SECONDS) == 0
        assert not data.exists()


def _shell(line: str) -> str:
    """Return the output of the line in a shell."""
    path = os.pathsep.join((str(Path(COMMAND).parent), os.environ["PATH"]))
    variables = environment({"PATH": path})
    return subprocess.run(
        ["sh", "-c", line], env=variables, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_sandbox_generates_events_and_serves_afterwards(served: Served) -> None:
    served.command.wait_for("700 delivered, 0 failed")
    wait_until(lambda: _count(_address(served.command, "API")) == 700)
    older = "timestamp < now() - INTERVAL 7 DAY AND timestamp > now() - INTERVAL 60 DAY"
    assert 100 < _count(_address(served.command, "API"), older) < 600


def test_ports_can_be_chosen(served: Served) -> None:
    assert _address(served.command, "API") == f"http://127.0.0.1:{served.port}"


def test_directory_in_use_is_an_error(served: Served) -> None:
    done = run("sandbox", "--procs", "1", "--data-dir", served.data, settings=served.mark)
    assert done.returncode == 78
    assert "another process uses" in done.stderr


def _count(api: str, condition: str = "1 = 1") -> int:
    sql = f"SELECT count() AS events FROM ai_analytics_events WHERE {condition}"
    answer = httpx.post(f"{api}/query", json={"sql": sql}, timeout=10.0).raise_for_status()
    return int(answer.json()["rows"][0]["events"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_exits_with_signal_code(
    mark: dict[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = ("sandbox", "--procs", "1", "--once", "--generate", "100000", "--rate", "100")
    with running(tmp_path / "output", *arguments, settings=mark) as command:
        command.wait_for("to Kafka", 60.0)
        command.child.send_signal(number)
        assert command.wait(STOP_SECONDS) == code


def test_signal_during_the_start_ends_it(mark: dict[str, str], tmp_path: Path) -> None:
    with running(tmp_path / "output", "sandbox", settings=mark) as command:
        command.wait_for("starting")
        command.child.terminate()
        assert command.wait(STOP_SECONDS) == 0


def test_killed_sandbox_leaves_no_process(mark: dict[str, str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ("sandbox", "--procs", "2", "--data-dir", str(data))
    with running(tmp_path / "output", *arguments, settings=mark) as command:
        command.wait_for("Ctrl-C stops the sandbox.")
        assert len(processes_with(next(iter(mark)))) >= 7
        command.child.kill()
        command.wait()
        wait_until(lambda: not processes_with(next(iter(mark))), STOP_SECONDS)


@pytest.mark.parametrize(("name", "title"), [("worker", "supervisor"), ("api", "master")])
def test_process_exit_ends_the_sandbox_with_log(
    mark: dict[str, str], tmp_path: Path, name: str, title: str
) -> None:
    with running(tmp_path / "output", "sandbox", "--procs", "1", settings=mark) as command:
        command.wait_for("Ctrl-C stops the sandbox.")
        processes = processes_with(next(iter(mark)))
        os.kill(next(pid for pid, line in processes.items() if f": {title}" in line), 9)
        assert command.wait(STOP_SECONDS) == 69
        assert f"octane-analytics: error: {name} exited with code -9" in command.output
        assert "its last lines:" in command.output


@pytest.mark.parametrize("option", ["--api-port", "--metrics-port", "--clickhouse-port"])
def test_port_in_use_is_reported(mark: dict[str, str], option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("sandbox", option, port, settings=mark)
    assert done.returncode in (69, 78)
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--once"], ["--generate", "5", "--load", __file__], ["--load", "/nonexistent"]],
)
def test_wrong_arguments_are_one_line(arguments: list[str]) -> None:
    done = run("sandbox", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("octane-analytics: error: ")
    assert done.stderr.count("\n") == 1
