"""Which processes of the shared directory are alive, told by a lock that the kernel lets go.

A gauge of a process that has ended says nothing any more, and a process that is killed cannot take its
gauges away. A process id in a file may be somebody else's by now; a lock never is.
"""

import contextlib
import fcntl
import os
from pathlib import Path

_SUFFIX = ".alive"


def lock(directory: Path, name: str) -> int:
    """Says that the process called `name` is alive, until the returned descriptor is closed.

    To be called after the fork: a child that inherits the descriptor would hold it too.
    """
    descriptor = os.open(
        directory / f"{name}{_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
    )
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # a look at it takes microseconds
    return descriptor


def alive(directory: Path) -> frozenset[str]:
    """The names of those alive."""
    return frozenset(
        path.name.removesuffix(_SUFFIX) for path in directory.glob(f"*{_SUFFIX}") if _is_held(path)
    )


def _is_held(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False
