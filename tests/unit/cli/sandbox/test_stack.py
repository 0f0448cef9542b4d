import sys
from pathlib import Path

import pytest

from octane_analytics.cli.sandbox.servers import SingleServer
from octane_analytics.cli.sandbox.stack import Ports, Stack, environment
from octane_analytics.errors import ConfigError
from octane_analytics.settings.loading import load

PORTS = Ports(api=1, metrics=2)
SERVERS = {"CLICKHOUSE_HOST": "127.0.0.1", "CLICKHOUSE_PORT": "3"}


def _environment(base: dict[str, str]) -> dict[str, str]:
    return environment(
        base, Path("/data"), PORTS, bootstrap_servers="127.0.0.1:4", clickhouse=SERVERS
    )


def test_environment_ignores_variables_of_other_servers() -> None:
    found = _environment(
        {
            "CLICKHOUSE_PASSWORD": "secret",
            "CLICKHOUSE_DATABASE": "production",
            "KAFKA_RDKAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_TOPIC": "production",
            "KAFKA_BOOTSTRAP_SERVERS": "production:9092",
            "PROMETHEUS_MULTIPROC_DIR": "/var/lib/production",
        }
    )
    settings = load(found).settings
    assert settings.clickhouse.password == ""
    assert settings.clickhouse.database == "default"
    assert "security.protocol" not in settings.kafka.rdkafka
    assert settings.kafka.topic == "octane.events"
    assert settings.kafka.bootstrap_servers == "127.0.0.1:4"
    assert (settings.api.port, settings.metrics.port, settings.clickhouse.port) == (1, 2, 3)
    assert settings.metrics.directory == "/data/metrics"


def test_environment_keeps_batch_and_log_variables() -> None:
    found = _environment(
        {"BATCH_SIZE": "7", "FLUSH_INTERVAL": "2", "LOG_LEVEL": "debug", "PATH": "x"}
    )
    assert found["BATCH_SIZE"] == "7"
    assert found["FLUSH_INTERVAL"] == "2"
    assert found["LOG_LEVEL"] == "debug"
    assert found["PATH"] == "x"


def test_flush_interval_defaults_to_half_a_second() -> None:
    assert load(_environment({})).settings.batch.flush_seconds == 0.5


def test_log_epoch_differs_for_each_start() -> None:
    assert _environment({})["KAFKA_LOG_EPOCH"] != _environment({})["KAFKA_LOG_EPOCH"]


def test_missing_engine_is_reported_before_files_are_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "chdb", None)
    stack = Stack(
        tmp_path / "data",
        SingleServer(tmp_path / "data"),
        procs=1,
        partitions=1,
        ports=Ports(),
        is_verbose=False,
        environ={},
        is_stopping=lambda: False,
    )
    with pytest.raises(ConfigError, match=r"octane-analytics\[embedded\]"), stack:
        pass
    assert not (tmp_path / "data").exists()
