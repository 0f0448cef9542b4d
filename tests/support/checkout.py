"""Modifiable copy of this checkout, and bin/install run from it below a directory."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from types import MappingProxyType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.command import environment

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = (
    "octane_analytics",
    "bin/install",
    "conf",
    "systemd",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
)
# Takes the packages that setup.cfg asks for from this environment instead of an index, so that a release
# is there in a second.
_STAND_IN_FOR_UV = """#!/bin/sh
set -e
case $1 in
    venv)
        shift
        for directory; do :; done
        while [ "$1" != --python ]; do shift; done
        "$2" -m venv --without-pip "$directory"
        ;;
    pip)
        for copy; do :; done
        while [ "$1" != --python ]; do shift; done
        packages=$(echo "${2%/bin/python}"/lib/python3*/site-packages)
        [ -z "$UV_WAITS" ] || { touch "$UV_WAITS"; sleep 60; }
        [ -z "$UV_SAYS" ] || { echo "$UV_SAYS" >&2; exit 1; }
        cp -R "$copy/octane_analytics" "$packages"
        echo "$DEPENDENCIES" >"$packages/dependencies.pth"
        ;;
esac
"""
_NONE: Mapping[str, str] = MappingProxyType({})


class Checkout:
    """Checkout with `target`, the value of --root; if `copied` is given, a copy of its present state."""

    def __init__(self, directory: Path, copied: "Checkout | None" = None) -> None:
        self._directory = directory
        self.path = directory / "checkout"
        self.target = directory / "target"
        self.programs = directory / "programs"
        self.dependencies = directory / "dependencies"
        if copied is not None:
            shutil.copytree(copied._directory, directory, symlinks=True, dirs_exist_ok=True)
            return
        self.programs.mkdir(parents=True)
        _link_dependencies(self.dependencies)
        for name in INSTALLED:
            self._copy(name)
        self.put_program("uv", _STAND_IN_FOR_UV)

    def _copy(self, name: str) -> None:
        source, copy = ROOT / name, self.path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy)

    def put_program(self, name: str, text: str) -> Path:
        """Add a script at the front of the PATH of `install`."""
        program = self.programs / name
        program.write_text(text)
        program.chmod(0o755)
        return program

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.path / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def set_version(self, version: str) -> None:
        (self.path / "octane_analytics" / "__init__.py").write_text(
            f'"""Another."""\n\n__version__ = "{version}"\n'
        )

    def environment(self, given: Mapping[str, str] = _NONE) -> dict[str, str]:
        path = f"{self.programs}:{os.environ['PATH']}"
        ours = {"DEPENDENCIES": str(self.dependencies), "SETTLE_SECONDS": "0"}
        return environment({"PATH": path, "PYTHON": sys.executable} | ours | dict(given))

    def install(
        self, *arguments: str, given: Mapping[str, str] = _NONE, timeout_seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end and accept any exit code."""
        return subprocess.run(
            [self.path / "bin" / "install", *self._root, *arguments],
            env=self.environment(given),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def begin(self, *arguments: str, given: Mapping[str, str] = _NONE) -> subprocess.Popen[str]:
        """Start it as the leader of a new session."""
        return subprocess.Popen(
            [self.path / "bin" / "install", *self._root, *arguments],
            env=self.environment(given),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Children of a shell without job control ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    @property
    def _root(self) -> list[str]:
        # The interpreter of these tests may be in a home directory, and nothing here is a service.
        return ["--root", str(self.target), "--any-python"]

    @property
    def settings(self) -> Path:
        return self.target / "etc/octane-analytics/octane-analytics.env"

    @property
    def units(self) -> Path:
        return self.target / "etc/systemd/system"

    @property
    def base(self) -> Path:
        return self.target / "opt/octane-analytics"

    @property
    def current(self) -> str:
        return (self.base / "current").resolve().name

    def releases(self) -> set[str]:
        return {path.name for path in (self.base / "releases").iterdir()}

    def run(
        self, *arguments: str, given: Mapping[str, str] = _NONE
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed command as an operator does."""
        return subprocess.run(
            [self.target / "usr/local/bin/octane-analytics", *arguments],
            env=environment(given),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60.0,
            check=False,
        )


def _link_dependencies(directory: Path) -> None:
    """Return the wheels that a release takes from an index: setup.cfg's requirements and theirs."""
    directory.mkdir()
    wanted, seen = ["octane-analytics"], set[str]()
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        asked = map(Requirement, found.requires or ())
        wanted += [r.name for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
        if len(seen) == 1:
            continue
        for entry in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (directory / entry).exists():
                (directory / entry).symlink_to(str(found.locate_file(entry)))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
