"""Example of the README, word for word, on Apache Kafka and real ClickHouse."""

import json
import re
import subprocess
import uuid
from pathlib import Path

import pytest

from octane_analytics.cli.main import COMMANDS
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.engine import free_port
from tests.support.command import environment
from tests.tools.kafka.apache import ApacheKafka

ROOT = Path(__file__).resolve().parents[2]
SECTION = "## With servers of your own"


def example() -> str:
    section = (ROOT / "README.md").read_text().partition(SECTION)[2]
    found = re.search(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.skipif("topic" not in COMMANDS, reason="this version does not have `topic apply`")
def test_readme_example_runs_word_for_word(kafka: ApacheKafka, tmp_path: Path) -> None:
    api_port, metrics_port = free_port(), free_port()
    name = f"readme-{uuid.uuid4().hex[:8]}"
    with EmbeddedClickHouse(tmp_path) as clickhouse:
        script = example()
        # Only the three addresses are replaced.
        for stated, actual in (
            ("kafka1:9092", kafka.bootstrap_servers),
            ("=ch1", f"={clickhouse.host}:{clickhouse.tcp_port}"),
            ("localhost:8001", f"localhost:{api_port}"),
        ):
            assert stated in script
            script = script.replace(stated, actual)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=ROOT,
            env=environment(
                {
                    "KAFKA_TOPIC": name,
                    "KAFKA_GROUP_ID": name,
                    "KAFKA_INSTANCE_PREFIX": name,
                    "API_PORT": str(api_port),
                    "METRICS_PORT": str(metrics_port),
                    "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
                }
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 delivered" in done.stdout, done.stdout
    assert "nothing behind" in done.stdout
    assert re.search(r"^c1,30\.0,", done.stdout, re.MULTILINE), done.stdout
    (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert (row["content_id"], row["watch_time"]) == ("c1", 30)
