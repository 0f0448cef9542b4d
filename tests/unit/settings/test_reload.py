"""Settings that are read again: what follows the file, and what stays."""

from pathlib import Path

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.settings.reload import EnvironmentReload


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "worker.env"
    path.write_text("BATCH_SIZE=2000\nFLUSH_INTERVAL=3\n")
    return path


def test_changed_file_changes_what_systemd_had_put_into_the_environment(file: Path) -> None:
    reread = EnvironmentReload({"BATCH_SIZE": "2000", "FLUSH_INTERVAL": "3"}, {}, [file])
    file.write_text("BATCH_SIZE=3000\n")
    batch = reread.load().settings.batch
    assert (batch.size, batch.flush_seconds) == (3000, 5.0)


def test_environment_that_differed_from_the_file_stays(file: Path) -> None:
    reread = EnvironmentReload({"BATCH_SIZE": "500"}, {}, [file])
    file.write_text("BATCH_SIZE=3000\n")
    assert reread.load().settings.batch.size == 500


def test_option_wins_as_it_did_at_the_start(file: Path) -> None:
    reread = EnvironmentReload({}, {"BATCH_SIZE": "700"}, [file])
    assert reread.load().settings.batch.size == 700


def test_last_of_several_files_wins(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "clips.env"
    other.write_text("BATCH_SIZE=100\n")
    reread = EnvironmentReload({}, {}, [file, other])
    assert reread.load().settings.batch.size == 100
    other.write_text("")
    assert reread.load().settings.batch.size == 2000


def test_secret_in_a_file_of_its_own_is_read_again(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("old\n")
    reread = EnvironmentReload({"CLICKHOUSE_PASSWORD_FILE": str(secret)}, {}, [])
    secret.write_text("new\n")
    assert reread.load().settings.clickhouse.password == "new"


def test_file_that_is_gone_or_wrong_is_an_error(file: Path) -> None:
    reread = EnvironmentReload({}, {}, [file])
    file.write_text("BATCH_SIZE=many\n")
    with pytest.raises(ConfigError, match="BATCH_SIZE is 'many'"):
        reread.load()
    file.unlink()
    with pytest.raises(ConfigError, match="cannot read the environment file"):
        reread.load()


def test_unknown_names_in_the_files_are_warned_about_at_each_reading(tmp_path: Path) -> None:
    file = tmp_path / "service.env"
    file.write_text("BATCH_SIZE=5\n")
    rereading = EnvironmentReload({}, {}, [file])
    assert rereading.warnings() == []
    file.write_text("BATCH_SIZE=5\nFLUSH_INTERVALL=value\n")
    (line,) = rereading.warnings()
    assert "did you mean FLUSH_INTERVAL?" in line
    assert "value" not in line
