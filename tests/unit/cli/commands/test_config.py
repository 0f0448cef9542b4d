import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from octane_analytics.cli.main import main
from octane_analytics.settings.loading import catalogue


def _run(*arguments: str, **environment: str) -> str:
    result = CliRunner(env=environment).invoke(main, ["config", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_config_lists_every_setting() -> None:
    names = [line.split("\t")[0] for line in _run().splitlines()]
    assert names == [setting.name for setting in catalogue()]


def test_config_shows_the_source_of_values(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    output = _run(
        "--batch-size",
        "12",
        FLUSH_INTERVAL="3",
        CLICKHOUSE_PASSWORD_FILE=str(secret),
        KAFKA_RDKAFKA_SASL_PASSWORD="hunter3",
    )
    assert "BATCH_SIZE\t12\toption --batch-size" in output
    assert "FLUSH_INTERVAL\t3\tenvironment" in output
    assert f"CLICKHOUSE_PASSWORD\t********\tfile {secret}" in output
    assert "KAFKA_RDKAFKA_SASL_PASSWORD\t********\tenvironment" in output
    assert "KAFKA_TOPIC\tocta" in output
    assert "hunter" not in output


def test_config_as_json_has_all_fields() -> None:
    objects = {
        item["name"]: item
        for item in json.loads(_run("--json", "--batch-size", "12", KAFKA_RDKAFKA_LINGER_MS="7"))
    }
    assert objects["BATCH_SIZE"] == {
        "name": "BATCH_SIZE",
        "value": "12",
        "given": "12",
        "source": "option",
        "detail": "--batch-size",
        "default": "1000",
        "unit": "events",
        "help": objects["BATCH_SIZE"]["help"],
    }
    assert objects["KAFKA_RDKAFKA_LINGER_MS"]["value"] == "7"


def test_config_shows_effective_values() -> None:
    given = {
        "KAFKA_TOPIC": "mine",
        "WORKER_PROCS": "auto",
        "KAFKA_INSTANCE_PREFIX": "none",
        "CLICKHOUSE_HOST": "127.0.0.1",
        "CLICKHOUSE_USER": "somebody",
        "PROMETHEUS_MULTIPROC_DIR": "/srv/metrics",
    }
    values = {line.split("\t")[0]: line.split("\t")[1:] for line in _run(**given).splitlines()}
    processes = str(len(os.sched_getaffinity(0)))
    for name, expected in {
        "KAFKA_DLQ_TOPIC": ["mine.dlq", "default"],
        "WORKER_PROCS": [processes, "environment", "auto"],
        "KAFKA_INSTANCE_PREFIX": ["none", "environment"],
        "CLICKHOUSE_COMPRESSION": ["none", "default", "auto"],
        "CLICKHOUSE_QUERY_USER": ["somebody", "default"],
        "CONTROL_SOCKET": ["/srv/metrics/worker.sock", "default"],
    }.items():
        assert values[name] == expected, name
    objects = {item["name"]: item for item in json.loads(_run("--json", **given))}
    assert (objects["WORKER_PROCS"]["value"], objects["WORKER_PROCS"]["given"]) == (
        processes,
        "auto",
    )
    assert (objects["KAFKA_DLQ_TOPIC"]["value"], objects["KAFKA_DLQ_TOPIC"]["given"]) == (
        "mine.dlq",
        None,
    )


def test_config_with_invalid_setting_exits_with_78() -> None:
    result = CliRunner(env={"CLICKHOUSE_PORT": "8123"}).invoke(main, ["config"])
    assert result.exit_code == 78
    assert "use 9000" in result.stderr


@pytest.mark.parametrize("name", [s.name for s in catalogue() if s.is_secret])
def test_secret_has_no_option(name: str) -> None:
    result = CliRunner().invoke(main, ["config", f"--{name.lower().replace('_', '-')}", "x"])
    assert result.exit_code == 2


def test_config_warns_of_contradicting_worker_limits() -> None:
    result = CliRunner(env={"CLICKHOUSE_TIMEOUT": "600"}).invoke(main, ["config"])
    assert result.exit_code == 0
    assert "warning: a worker would not start: CLICKHOUSE_TIMEOUT (600 s)" in result.stderr
    assert "CLICKHOUSE_TIMEOUT\t600\tenvironment" in result.stdout
