"""`bin/bench` on real engines with the smallest load: its measurements, JSON files and pictures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.ports import free_port
from tests.tools.bench import environment, measure
from tests.tools.bench.api import WAYS
from tests.tools.bench.command import main
from tests.tools.cluster import zookeeper
from tests.tools.cluster.fixtures import require_cluster

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_throughput_measures_worker_and_kafka_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "available", lambda: "the mock cluster starts faster")
    monkeypatch.setattr(
        measure, "_POLL_SECONDS", 0.02
    )  # this few events arrive within one or two polls
    # A run fails unless it ends with exactly as many rows as events.
    file, picture = tmp_path / "runs.json", tmp_path / "runs.svg"
    shown = bench(
        *("throughput", "--events", "20000", "--partitions", "2", "--rounds", "1", "--procs", "1"),
        *("--batch-size", "1000", "--contender", "exactly-once", "--contender", "kafka-engine"),
        *("--json", str(file), "--plot", str(picture)),
    )
    assert "exactly-once" in shown
    written = json.loads(file.read_text())
    assert {run["contender"] for run in written["runs"]} == {"exactly-once", "kafka-engine"}
    for run in written["runs"]:
        assert run["events_per_second"] > 0
        assert run["clickhouse_cpu_us"] > 0
        assert run["parts"] > 1
    assert picture.read_text().startswith("<svg")


def layouts(directory: Path, *names: str) -> dict[str, dict[str, float]]:
    """Return the runs on these layouts by contender. Each fails unless it ends with all rows."""
    file = directory / "runs.json"
    bench(
        *("throughput", "--events", "16000", "--partitions", "2", "--rounds", "1", "--procs", "1"),
        *("--batch-size", "1000", *(word for name in names for word in ("--layout", name))),
        *("--json", str(file)),
    )
    return {run["contender"]: run for run in json.loads(file.read_text())["runs"]}


@pytest.fixture
def few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "available", lambda: "the mock cluster starts faster")
    monkeypatch.setattr(measure, "_POLL_SECONDS", 0.02)


@pytest.mark.usefixtures("few_events")
def test_throughput_compares_shards_without_java(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zookeeper, "available", lambda: "not here")
    found = layouts(tmp_path, "plain", "sharded")
    assert found.keys() == {"exactly-once, plain", "exactly-once, sharded"}
    assert all(run["parts"] > 1 for run in found.values())


@pytest.mark.usefixtures("few_events")
def test_throughput_measures_replicas(tmp_path: Path) -> None:
    require_cluster()
    (run,) = layouts(tmp_path, "replicated").values()
    assert run["parts"] > 1
    assert run["clickhouse_cpu_us"] > 0


def test_layouts_are_for_workers() -> None:
    done = CliRunner().invoke(main, ["throughput", "--layout", "sharded", "--contender", "naive"])
    assert done.exit_code == 2
    assert "--layout is for workers: leave out naive" in done.output


def test_steady_measures_cost_and_latency_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "available", lambda: "the mock cluster starts faster")
    monkeypatch.setattr(environment, "_MOCK_PARTITIONS", 4)
    file = tmp_path / "runs.json"
    shown = bench(
        *("steady", "--rate", "200", "--partitions", "4", "--procs", "1", "--seconds", "2"),
        *("--rounds", "1", "--flush-interval", "1", "--json", str(file)),
        *("--contender", "exactly-once", "--contender", "kafka-engine"),
    )
    assert "p99 from produced to readable" in shown
    written = json.loads(file.read_text())
    assert {run["contender"] for run in written["runs"]} == {"exactly-once", "kafka-engine"}
    for run in written["runs"]:
        assert 0 < run["p50_seconds"] <= run["p99_seconds"] < 60
        assert run["parts"] >= 1
        assert run["inserts"] >= 1
    assert len(written["goals"]) == 10


def test_api_measures_every_way_and_client_count(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    bench(
        *(
            "api",
            "--events",
            "2000",
            "--requests",
            "8",
            "--rounds",
            "1",
            "--report",
            "overview_stats",
        ),
        *("--clients", "1", "--clients", "4", "--port", str(free_port()), "--json", str(file)),
    )
    cells = json.loads(file.read_text())["cells"]
    assert [(cell["clients"], cell["way"]) for cell in cells] == [
        (clients, way) for clients in (1, 4) for way in WAYS
    ]
    assert all(cell["requests"] == 8 and 0 < cell["p50_ms"] <= cell["p99_ms"] for cell in cells)


@pytest.mark.parametrize(
    "variant", [["uninstrumented_worker"], ["timed", "times.json"]], ids=lambda names: names[0]
)
def test_command_variant_finds_the_names_it_replaces(variant: list[str]) -> None:
    module, *arguments = variant
    command = [sys.executable, "-m", f"tests.tools.bench.{module}", *arguments, "worker", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--procs" in done.stdout
