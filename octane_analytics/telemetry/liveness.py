"""Liveness of the processes that share the metrics directory, by file locks that the kernel releases.

Gauges of a process that has exited are stale, and a killed process cannot remove them. A process id in a
file may belong to another process by now; a lock is released with its process.
"""

import contextlib
import fcntl
import os
from pathlib import Path

_SUFFIX = ".alive"


def lock(directory: Path, name: str) -> int:
    """Mark the process called `name` as alive until the returned descriptor is closed.

    Call it after the fork: a child that inherits the descriptor would hold the lock too.
    """
    descriptor = os.open(
        directory / f"{name}{_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
    )
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # `alive` holds it for microseconds
    return descriptor


def alive(directory: Path) -> frozenset[str]:
    """Return the names of the processes that are alive."""
    return frozenset(
        path.name.removesuffix(_SUFFIX)
        for path in directory.glob(f"*{_SUFFIX}")
        if _is_locked(path)
    )


def _is_locked(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False
