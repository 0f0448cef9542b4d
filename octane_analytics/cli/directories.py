"""Directories that a command writes to: shared, private to one run, or held by one run at a time."""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from octane_analytics.errors import ConfigError
from octane_analytics.settings.sections import MetricsSettings, Settings
from octane_analytics.supervisor.control_socket import FILE_NAME

_PREFIX = "octane-analytics-"
_HELD = "held"


@contextlib.contextmanager
def metrics_directory(settings: MetricsSettings) -> Iterator[Path]:
    """PROMETHEUS_MULTIPROC_DIR, made where it is missing; else a private one, removed at the end.

    Raises ConfigError where the directory cannot be written to.
    """
    if settings.directory is None:
        with private_directory() as directory:
            yield directory
        return
    directory = Path(settings.directory)
    make_writable(directory, "PROMETHEUS_MULTIPROC_DIR")
    yield directory


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A new directory that only this user can read.

    Removed at the end by the process that made it: a fork that leaves the same way does not. Where that
    process is killed the directory stays until this user makes the next one.
    """
    _remove_abandoned()
    owner = os.getpid()
    directory, lock = _make_held()
    try:
        yield directory
    finally:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)


def _make_held() -> tuple[Path, int]:
    """A new directory, and the descriptor of its lock, held until this process and its forks end."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(directory / _HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return directory, lock
        os.close(lock)  # whoever removes what is abandoned came in between


def _remove_abandoned() -> None:
    """Removes this user's private directories whose lock nobody holds. One without a lock stays."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(directory / _HELD, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)


def control_socket(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """Where a supervisor with these settings listens, as CONTROL_SOCKET says; None: nowhere."""
    named = settings.worker.control_socket
    if named is not None:
        return None if named == "none" else Path(named)
    # Of several directories the unit's first.
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    directory = runtime or settings.metrics.directory
    return (Path(directory) if directory else own_directory()) / FILE_NAME


def own_directory() -> Path:
    """This user's below the temporary one."""
    return Path(tempfile.gettempdir()) / f"octane-analytics-{os.geteuid()}"


def make_own(directory: Path) -> None:
    """Makes the directory, for this user alone. Raises ConfigError where it is somebody else's."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(f"cannot make {directory}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(f"{directory} is not this user's alone: set CONTROL_SOCKET")


def make_writable(directory: Path, asked_by: str) -> None:
    """Makes the directory where it is missing. Raises ConfigError that names who asked for it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(
            f"{asked_by}: cannot write to {directory}: {error.strerror}; choose another directory "
            "or give this user the right"
        ) from error


@contextlib.contextmanager
def locked(directory: Path, asked_by: str) -> Iterator[None]:
    """Nobody else has this directory meanwhile. Raises ConfigError where somebody has it."""
    with (directory / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{asked_by}: another process uses {directory}: stop it or choose another directory"
            ) from error
        yield
