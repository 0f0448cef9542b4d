"""Directories that commands write to: shared, private to one run, or locked by one run at a time."""

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
_LOCK_FILE = "held"


@contextlib.contextmanager
def metrics_directory(settings: MetricsSettings) -> Iterator[Path]:
    """Yield PROMETHEUS_MULTIPROC_DIR, created if missing, or a private directory if it is not set.

    The private directory is removed at the end. Raises ConfigError if the directory is not writable.
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
    """Yield a new directory that only this user can read.

    The process that created it removes it at the end; a fork that exits the same way does not. If that
    process is killed, the directory stays until this user creates the next one.
    """
    _remove_abandoned()
    owner = os.getpid()
    directory, lock = _make_locked()
    try:
        yield directory
    finally:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)


def _make_locked() -> tuple[Path, int]:
    """Return a new directory and its lock's descriptor, held until this process and its forks exit."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return directory, lock
        os.close(lock)  # another process removed it as abandoned before it was locked


def _remove_abandoned() -> None:
    """Remove this user's private directories whose lock is free; one without a lock file stays."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = directory.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            lock = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)


def control_socket(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """Return the path of the supervisor's control socket with these settings; None if it has none."""
    given = settings.worker.control_socket
    if given is not None:
        return None if given == "none" else Path(given)
    # systemd joins the unit's directories with colons; the first one holds the socket.
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    directory = runtime or settings.metrics.directory
    return (Path(directory) if directory else user_directory()) / FILE_NAME


def user_directory() -> Path:
    """Return the path of this user's directory below the temporary one."""
    return Path(tempfile.gettempdir()) / f"octane-analytics-{os.geteuid()}"


def make_user_directory(directory: Path) -> None:
    """Create the directory with mode 0700.

    Raises ConfigError if another user owns it or has rights on it.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise ConfigError(f"cannot create {directory}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"{directory} belongs to another user or other users have rights on it: set CONTROL_SOCKET"
        )


def make_writable(directory: Path, option: str) -> None:
    """Create the directory if it is missing. Raises ConfigError, with the option, if not writable."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option}: cannot write to {directory}: {error.strerror}; choose another directory "
            "or grant this user write access"
        ) from error


@contextlib.contextmanager
def exclusive_lock(directory: Path, option: str) -> Iterator[None]:
    """Hold the directory's lock while entered. Raises ConfigError if another process holds it."""
    with (directory / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{option}: another process uses {directory}: stop it or choose another directory"
            ) from error
        yield
