"""`bin/bench` on real engines, as small as it goes: it measures what it says, and writes it down."""

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

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_throughput_of_a_worker_and_of_the_kafka_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "available", lambda: "the mock cluster starts sooner")
    monkeypatch.setattr(measure, "_POLL_SECONDS", 0.02)  # so few events are in within a look or two
    # A run that does not end with exactly as many rows as events is an error.
    file, picture = tmp_path / "runs.json", tmp_path / "runs.svg"
    shown = bench(
        *("throughput", "--events", "20000", "--partitions", "2", "--rounds", "1", "--procs", "1"),
        *("--batch-size", "1000", "--contender", "exactly-once", "--contender", "kafka-engine"),
        *("--json", str(file), "--plot", str(picture)),
    )
    assert "exactly-once" in shown
    told = json.loads(file.read_text())
    assert {run["contender"] for run in told["runs"]} == {"exactly-once", "kafka-engine"}
    for run in told["runs"]:
        assert run["events_per_second"] > 0
        assert run["clickhouse_cpu_us"] > 0
        assert run["parts"] > 1
    assert picture.read_text().startswith("<svg")


def test_reports_in_every_way(tmp_path: Path) -> None:
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
def test_a_variant_of_the_command_finds_what_it_replaces(variant: list[str]) -> None:
    module, *arguments = variant
    command = [sys.executable, "-m", f"tests.tools.bench.{module}", *arguments, "worker", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--procs" in done.stdout
