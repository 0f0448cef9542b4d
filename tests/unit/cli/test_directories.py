import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from octane_analytics.cli.directories import make_writable, metrics_directory, private_directory
from octane_analytics.errors import ConfigError
from octane_analytics.settings.sections import MetricsSettings


def test_private_directory_is_removed_with_its_files() -> None:
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
    shutil.rmtree(directory)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _holder(temporary: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a process that holds a private directory together with a fork of its own."""
    body = (
        "import os, sys\n"
        "from octane_analytics.cli.directories import private_directory\n"
        "with private_directory() as directory:\n"
        "    if os.fork():\n"
        "        print(directory, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", body],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    return holder, Path(holder.stdout.readline().decode().strip())


def test_next_private_directory_removes_that_of_killed_process(temporary: Path) -> None:
    holder, held = _holder(temporary)
    with holder:
        (held / "counter.db").write_text("1")
        with private_directory() as directory:
            assert held.is_dir(), "the directory is in use"
            assert directory != held
        holder.kill()
        holder.wait()
        with private_directory():
            assert held.is_dir(), "a fork still holds the lock"
        assert holder.stdin is not None
        holder.stdin.close()  # the fork exits
        holder.stdin = None
        assert holder.stdout is not None
        holder.stdout.read()
    with private_directory() as directory:
        assert list(temporary.iterdir()) == [directory]


def test_other_files_and_directories_are_not_removed(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "held").touch()
    (temporary / "octane-analytics-link").symlink_to(elsewhere)
    (temporary / "octane-analytics-0").mkdir()
    (temporary / "octane-analytics-file").touch()
    locked_by_name = temporary / "octane-analytics-tricky"
    locked_by_name.mkdir()
    (locked_by_name / "held").symlink_to(elsewhere / "held")
    before = set(temporary.rglob("*"))
    if os.geteuid() == 0:
        others = temporary / "octane-analytics-others"
        others.mkdir()
        (others / "held").touch()
        os.chown(others, 12345, 12345)
        before |= {others, others / "held"}
    with private_directory():
        pass
    assert set(temporary.rglob("*")) == before


def test_metrics_directory_is_created_and_kept(tmp_path: Path) -> None:
    expected = tmp_path / "a" / "b"
    with metrics_directory(MetricsSettings(directory=str(expected))) as directory:
        assert directory == expected
    assert expected.is_dir()


def test_metrics_directory_is_private_by_default() -> None:
    with metrics_directory(MetricsSettings(directory=None)) as directory:
        assert directory.is_dir()
    assert not directory.exists()


def test_directory_that_cannot_be_created_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data-dir: cannot write to"):
        make_writable(tmp_path / "file" / "below", "--data-dir")
