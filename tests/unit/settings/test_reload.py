"""Reload of settings: which values follow the file and which stay."""

from pathlib import Path

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.settings.reload import EnvironmentReload


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "worker.env"
    path.write_text("BATCH_SIZE=2000\nFLUSH_INTERVAL=3\n")
    return path


def test_changed_file_overrides_variables_set_by_systemd(file: Path) -> None:
    environment = EnvironmentReload({"BATCH_SIZE": "2000", "FLUSH_INTERVAL": "3"}, {}, [file])
    file.write_text("BATCH_SIZE=3000\n")
    batch = environment.load().settings.batch
    assert (batch.size, batch.flush_seconds) == (3000, 5.0)


def test_variable_that_differed_from_the_file_stays(file: Path) -> None:
    environment = EnvironmentReload({"BATCH_SIZE": "500"}, {}, [file])
    file.write_text("BATCH_SIZE=3000\n")
    assert environment.load().settings.batch.size == 500


def test_option_overrides_the_file_after_reload(file: Path) -> None:
    environment = EnvironmentReload({}, {"BATCH_SIZE": "700"}, [file])
    assert environment.load().settings.batch.size == 700


def test_last_of_several_files_wins(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "clips.env"
    other.write_text("BATCH_SIZE=100\n")
    environment = EnvironmentReload({}, {}, [file, other])
    assert environment.load().settings.batch.size == 100
    other.write_text("")
    assert environment.load().settings.batch.size == 2000


def test_secret_file_is_read_again(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("old\n")
    environment = EnvironmentReload({"CLICKHOUSE_PASSWORD_FILE": str(secret)}, {}, [])
    secret.write_text("new\n")
    assert environment.load().settings.clickhouse.password == "new"


def test_missing_or_invalid_file_is_an_error(file: Path) -> None:
    environment = EnvironmentReload({}, {}, [file])
    file.write_text("BATCH_SIZE=many\n")
    with pytest.raises(ConfigError, match="BATCH_SIZE is 'many'"):
        environment.load()
    file.unlink()
    with pytest.raises(ConfigError, match="cannot read the environment file"):
        environment.load()


def test_unknown_names_are_reported_at_each_reload(tmp_path: Path) -> None:
    file = tmp_path / "service.env"
    file.write_text("BATCH_SIZE=5\n")
    environment = EnvironmentReload({}, {}, [file])
    assert environment.warnings() == []
    file.write_text("BATCH_SIZE=5\nFLUSH_INTERVALL=value\n")
    (line,) = environment.warnings()
    assert "did you mean FLUSH_INTERVAL?" in line
    assert "value" not in line
