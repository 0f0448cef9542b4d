from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from octane_analytics.cli.options import option_name, setting_options
from octane_analytics.settings.loading import Loaded


@pytest.fixture
def loaded_settings() -> list[Loaded]:
    return []


@pytest.fixture
def run(loaded_settings: list[Loaded], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    for name in ("BATCH_SIZE", "FLUSH_INTERVAL", "CLICKHOUSE_SECURE", "WORKER_PROCS"):
        monkeypatch.delenv(name, raising=False)

    @click.command()
    @setting_options(
        "BATCH_SIZE",
        "FLUSH_INTERVAL",
        "CLICKHOUSE_SECURE",
        "WORKER_PROCS",
    )
    @click.option("--other", default=3)
    def command(loaded: Loaded, other: int) -> None:
        assert other == 3
        loaded_settings.append(loaded)

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_option_overrides_the_environment(
    run: Callable[..., str], loaded_settings: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_SIZE", "5")
    monkeypatch.setenv("FLUSH_INTERVAL", "7")
    run("--batch-size", "6", "--procs", "3")
    settings = loaded_settings[0].settings
    assert (settings.batch.size, settings.batch.flush_seconds) == (6, 7.0)
    assert settings.worker.procs == 3
    sources = {origin.name: origin.source for origin in loaded_settings[0].origins}
    assert sources["BATCH_SIZE"] == "option"
    assert sources["FLUSH_INTERVAL"] == "environment"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--clickhouse-secure"], True), (["--no-clickhouse-secure"], False), ([], True)],
)
def test_flag_can_be_given_either_way(
    arguments: list[str],
    expected: bool,
    run: Callable[..., str],
    loaded_settings: list[Loaded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLICKHOUSE_SECURE", "1")
    run(*arguments)
    assert loaded_settings[0].settings.clickhouse.is_secure is expected


def test_invalid_option_value_is_a_usage_error(run: Callable[..., str]) -> None:
    output = run("--batch-size", "many", code=2)
    assert "--batch-size" in output
    assert "must be a whole number" in output


def test_help_shows_default_unit_and_variable(run: Callable[..., str]) -> None:
    output = " ".join(run("--help").split())
    assert "--flush-interval SECONDS" in output
    assert "[env: FLUSH_INTERVAL; default: 5]" in output
    assert "--procs, --worker-procs PROCESSES" in output


def test_option_for_a_secret_raises_value_error() -> None:
    with pytest.raises(ValueError, match="CLICKHOUSE_PASSWORD"):
        setting_options("CLICKHOUSE_PASSWORD")(lambda loaded: None)


def test_option_is_named_after_its_setting() -> None:
    assert option_name("KAFKA_BOOTSTRAP_SERVERS") == "--kafka-bootstrap-servers"
