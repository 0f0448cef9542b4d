"""bin/setup: a failed build never loses an existing .venv."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.support.checkout import ROOT
from tests.support.command import wait_until

_STAND_IN_FOR_UV = """#!/bin/sh
set -e
[ "$UV_FAILS" != "$1" ] || { echo "no $1 today" >&2; exit 1; }
case $1 in
    venv)
        for directory; do :; done
        while [ "$1" != --python ]; do shift; done
        "$2" -m venv --without-pip "$directory"
        ;;
    pip)
        [ -z "$UV_WAITS" ] || { : >"$UV_WAITS"; exec sleep 60; }
        while [ "$1" != --python ]; do shift; done
        printf '#!/bin/sh\\n' >"${2%python}octane-analytics"
        chmod +x "${2%python}octane-analytics"
        ;;
esac
"""
_NONE: Mapping[str, str] = MappingProxyType({})


class Site:
    """Checkout with a finished .venv that contains a file `mine`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "checkout"
        (self.path / "bin").mkdir(parents=True)
        for name in ("bin/setup", "setup.cfg", "pyproject.toml"):
            shutil.copy2(ROOT / name, self.path / name)
        self._programs = directory / "programs"
        self._programs.mkdir()
        uv = self._programs / "uv"
        uv.write_text(_STAND_IN_FOR_UV)
        uv.chmod(0o755)
        self.venv = self.path / ".venv"
        assert self.run().returncode == 0
        (self.venv / "mine").touch()

    def environment(self, given: Mapping[str, str] = _NONE) -> dict[str, str]:
        base = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        path = f"{self._programs}:{os.environ['PATH']}"
        return base | {"PATH": path, "PYTHON": sys.executable} | dict(given)

    def run(
        self, *arguments: str, given: Mapping[str, str] = _NONE
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path / "bin/setup", *arguments],
            env=self.environment(given),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60.0,
            check=False,
        )

    def end_while_installing(self, number: int, directory: Path) -> None:
        """Send the signal to a --fresh run and its children while .venv is incomplete."""
        waits = directory / "waits"
        process = subprocess.Popen(
            [self.path / "bin/setup", "--fresh"],
            env=self.environment({"UV_WAITS": str(waits)}),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            wait_until(waits.exists, 30.0)
        finally:
            os.killpg(process.pid, number)
        assert process.wait(20.0) != 0

    def is_the_former(self) -> bool:
        return (self.venv / "mine").exists()

    def is_ready(self) -> bool:
        done = self.run(given={"UV_FAILS": "pip"})
        return done.returncode == 0 and "up to date" in done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_failed_build_brings_the_former_environment_back(site: Site, step: str) -> None:
    done = site.run("--fresh", given={"UV_FAILS": step})
    assert done.returncode == 1
    assert f"no {step} today" in done.stderr
    assert done.stderr.endswith("setup: the former .venv is restored\n")
    assert site.is_the_former()
    assert site.is_ready()
    assert [path.name for path in site.path.glob(".venv*")] == [".venv"]


@pytest.mark.parametrize("python", ["/bin/false", "/nowhere/python"])
def test_missing_interpreter_leaves_the_environment_alone(site: Site, python: str) -> None:
    done = site.run("--fresh", given={"PYTHON": python})
    assert done.returncode == 1
    assert "does not run" in done.stderr
    assert site.is_the_former()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_brings_the_former_environment_back(
    site: Site, number: int, tmp_path: Path
) -> None:
    site.end_while_installing(number, tmp_path)
    assert site.is_the_former()
    assert site.is_ready()


def test_killed_build_keeps_the_former_environment(site: Site, tmp_path: Path) -> None:
    site.end_while_installing(signal.SIGKILL, tmp_path)
    assert (site.path / ".venv-former/mine").exists()
    assert site.run(given={"UV_FAILS": "pip"}).returncode == 1
    assert site.is_the_former()

    (tmp_path / "waits").unlink()
    site.end_while_installing(signal.SIGKILL, tmp_path)
    assert site.run().returncode == 0
    assert not site.is_the_former()
    assert site.is_ready()
    assert not (site.path / ".venv-former").exists()


def test_activated_environment_can_be_built_again(site: Site) -> None:
    given = {"PYTHON": "", "PATH": f"{site.venv}/bin:{site.environment()['PATH']}"}
    done = site.run("--fresh", given=given)
    assert done.returncode == 0, done.stderr
    assert not site.is_the_former()
    assert site.is_ready()


def test_changed_c_source_is_built_again(site: Site) -> None:
    events = site.path / "octane_analytics" / "events"
    events.mkdir(parents=True)
    (events / "_part.c").write_text("int one;")
    assert "installing the project" in site.run().stderr
    assert site.run("--quiet").stderr == ""
    (events / "_part.c").write_text("int two;")
    # The former build is removed, so that a failed one leaves none of another source.
    (events / "_part.cpython.so").touch()
    assert "installing the project" in site.run().stderr
    assert not (events / "_part.cpython.so").exists()
    assert (site.venv / "mine").exists()
