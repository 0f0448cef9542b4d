import os
from pathlib import Path

import pytest

from octane_analytics.cli.directories import make_writable, metrics_directory, private_directory
from octane_analytics.errors import ConfigError
from octane_analytics.settings.sections import MetricsSettings


def test_private_directory_is_removed_with_what_is_in_it() -> None:
    with private_directory() as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "x").write_text("x")
    assert not directory.exists()


def test_private_directory_is_not_removed_by_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with private_directory() as directory:
        monkeypatch.setattr(os, "getpid", lambda: -1)
    monkeypatch.undo()
    assert directory.exists()
    directory.rmdir()


def test_metrics_directory_is_made_and_kept(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    with metrics_directory(MetricsSettings(directory=str(wanted))) as directory:
        assert directory == wanted
    assert wanted.is_dir()


def test_metrics_directory_is_private_unless_named() -> None:
    with metrics_directory(MetricsSettings(directory=None)) as directory:
        assert directory.is_dir()
    assert not directory.exists()


def test_directory_that_cannot_be_made_names_who_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data-dir: cannot write to"):
        make_writable(tmp_path / "file" / "below", "--data-dir")
