"""The operating system as the supervisor needs it; thin, so that a test can stand in for it.

Signals are blocked for the supervisor's life and fetched one by one, so that nothing ever happens
in a handler. They stay blocked across a fork until the child has set its own (`unblock_signals`).
"""

import ctypes
import logging
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from octane_analytics.exits import Exit

_PR_SET_PDEATHSIG = 1
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)


class Heartbeats:
    """One monotonic time for each slot in memory that is shared with the children.

    The monotonic clock is the machine's (clock_gettime(2)), so parent and child may compare it.
    """

    _FORMAT = struct.Struct("d")

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, slots * self._FORMAT.size)

    def beat(self, slot: int, now: float) -> None:
        self._FORMAT.pack_into(self._memory, slot * self._FORMAT.size, now)

    def last(self, slot: int) -> float:
        """Zero where there was none."""
        return float(self._FORMAT.unpack_from(self._memory, slot * self._FORMAT.size)[0])


class System(Protocol):
    def now(self) -> float: ...

    def fork(self, run: Callable[[], int]) -> int:
        """Starts a child that runs this and exits with what it returns; answers its pid."""
        ...

    def kill(self, pid: int, number: int) -> None:
        """Sends a signal; a process that is gone already is no error."""
        ...

    def reap(self) -> Iterable[tuple[int, int]]:
        """Every child that has ended: pid and exit code, negative for a signal. Does not block."""
        ...

    def wait_signal(self, timeout_seconds: float) -> int | None:
        """The next pending signal out of HANDLED, or None after the timeout."""
        ...


class PosixSystem:
    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def block_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)

    def now(self) -> float:
        return time.monotonic()

    def fork(self, run: Callable[[], int]) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = int(Exit.INTERNAL)
        try:
            self._die_with(parent)
            code = run()
        except BaseException:  # the boundary of the process
            logging.getLogger(__name__).exception("process failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def _die_with(self, parent: int) -> None:
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked to be told
            os._exit(Exit.INTERNAL)

    def kill(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    def reap(self) -> Iterable[tuple[int, int]]:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            yield pid, os.waitstatus_to_exitcode(status)

    def wait_signal(self, timeout_seconds: float) -> int | None:
        found = signal.sigtimedwait(HANDLED, max(0.0, timeout_seconds))
        return None if found is None else found.si_signo


def unblock_signals() -> None:
    """For a child, once its own handlers are set."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
