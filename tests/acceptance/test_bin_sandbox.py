"""bin/sandbox on a small ClickHouse cluster."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.command import Running, environment, processes_with, wait_until
from tests.tools.cluster import sandbox
from tests.tools.cluster.fixtures import require_cluster

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-P", "-m", sandbox.__name__]
STOP_SECONDS = 60.0


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield a variable of all processes of a sandbox; finally wait until all have exited."""
    name = f"OCTANE_TEST_MARK_{os.getpid()}_{tmp_path.name}"
    # Without SPT_NOENV, process titles would overwrite the environment in /proc.
    yield {name: "1", "SPT_NOENV": "1"}
    wait_until(lambda: not processes_with(name), STOP_SECONDS)


def without_java(settings: Mapping[str, str], directory: Path) -> dict[str, str]:
    empty = directory / "path"
    empty.mkdir()
    return {**settings, "PATH": str(empty), "JAVA_HOME": ""}


def run(*arguments: str, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=environment({**settings, "PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=240.0,
        check=False,
    )


@contextmanager
def served(output: Path, *arguments: str, settings: Mapping[str, str]) -> Iterator[Running]:
    with output.open("wb") as sink:
        child = subprocess.Popen(
            [*PROGRAM, *arguments],
            env=environment({**settings, "PYTHONPATH": str(ROOT)}),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        command = Running(child, output)
        command.wait_for("Ctrl-C stops the sandbox.", 240.0)
        yield command
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def pid_of(command: Running, server: str) -> int:
    match = re.search(rf"{server}, pid (\d+):", command.output)
    assert match, command.output
    return int(match[1])


def test_every_replica_has_its_shards_rows(mark: dict[str, str]) -> None:
    require_cluster()
    arguments = ("--shards", "2", "--replicas", "2", "--procs", "1", "--partitions", "2")
    # Several batches of FLUSH_INTERVAL, which take turns among the shards.
    load = ("--once", "--generate", "2000", "--rate", "1000")
    done = run(*arguments, *load, settings=mark)
    assert done.returncode == 0, done.stderr
    assert "2,000 of 2,000 events in ClickHouse" in done.stdout
    shards = re.findall(r"^shard (\d): ([\d,]+) rows on each of 2 replicas$", done.stdout, re.M)
    rows = [int(count.replace(",", "")) for _, count in shards]
    assert len(rows) == 2
    assert sum(rows) == 2000
    assert all(rows)


def test_sandbox_outlives_a_replica(mark: dict[str, str], tmp_path: Path) -> None:
    require_cluster()
    arguments = ("--replicas", "2", "--procs", "1", "--partitions", "2", "--generate", "500")
    with served(tmp_path / "output", *arguments, settings=mark) as command:
        command.wait_for("500 delivered, 0 failed")
        os.kill(pid_of(command, "s1a"), signal.SIGKILL)
        command.wait_for("s1a exited; shard 1 goes on without it")
        api = re.search(r"^API +(\S+)", command.output, re.MULTILINE)
        assert api

        def has_all_rows() -> bool:
            sql = "SELECT count() AS events FROM ai_analytics_events"
            answer = httpx.post(f"{api[1]}/query", json={"sql": sql}, timeout=20.0)
            return answer.status_code == 200 and answer.json()["rows"] == [{"events": 500}]

        wait_until(has_all_rows)
        command.interrupt()
        assert command.wait(STOP_SECONDS) == 0


def test_shards_need_no_java(mark: dict[str, str], tmp_path: Path) -> None:
    settings = without_java(mark, tmp_path)
    arguments = ("--shards", "2", "--procs", "1", "--partitions", "2")
    with served(tmp_path / "output", *arguments, settings=settings) as command:
        os.kill(pid_of(command, "s2a"), signal.SIGKILL)
        assert command.wait(STOP_SECONDS) == 69
        assert "bin/sandbox: error: every server of shard 2 exited: s2a" in command.output


def test_replicas_without_java_are_refused(mark: dict[str, str], tmp_path: Path) -> None:
    done = run("--replicas", "2", settings=without_java(mark, tmp_path))
    assert done.returncode == 78
    (*_, line) = done.stderr.splitlines()
    assert line.startswith("bin/sandbox: error: --replicas needs Java and Maven")
    assert "install Java 17 or newer" in line


def test_port_of_several_servers_is_refused(mark: dict[str, str]) -> None:
    done = run("--shards", "2", "--clickhouse-port", "9000", settings=mark)
    assert done.returncode == 2
    assert done.stderr.startswith("bin/sandbox: error: --clickhouse-port is for one server")
