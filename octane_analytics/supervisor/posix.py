"""The operating system as the supervisor needs it; thin, so that a test can stand in for it.

Signals are blocked for the supervisor's life and fetched one by one, so that nothing ever happens
in a handler. They stay blocked across a fork until the child has set its own (`unblock_signals`).
"""

import ctypes
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import setproctitle

from octane_analytics.errors import Unavailable
from octane_analytics.runtime.exit_codes import Exit

_PR_SET_PDEATHSIG = 1
_SFD_CLOEXEC = os.O_CLOEXEC
_SIGSET_BYTES = 128
HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)


class System(Protocol):
    def now(self) -> float: ...

    def pid(self) -> int:
        """Of this process."""
        ...

    def fork(self, name: str, run: Callable[[], int]) -> int:
        """Starts a child that runs this and exits with what it returns; answers its pid.

        `name` is what ps(1) shows of it. Raises Unavailable where the machine has no room for it.
        """
        ...

    def kill(self, pid: int, number: int) -> None:
        """Sends a signal; a process that is gone already is no error."""
        ...

    def reap(self) -> Iterable[tuple[int, int]]:
        """Every child that has ended: pid and exit code, negative for a signal. Does not block."""
        ...

    def wait_signal(
        self, timeout_seconds: float, descriptors: Sequence[tuple[int, int]] = ()
    ) -> int | None:
        """The next pending signal out of HANDLED; None after the timeout, or once a descriptor is
        ready for what it is paired with, as poll(2) has it."""
        ...

    def resident_bytes(self, pid: int) -> int | None:
        """Memory that the process holds; None where it is gone."""
        ...


class PosixSystem:
    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._signals: int | None = None

    def block_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)

    def now(self) -> float:
        return time.monotonic()

    def pid(self) -> int:
        return os.getpid()

    def fork(self, name: str, run: Callable[[], int]) -> int:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            raise Unavailable(
                f"cannot start a process: {error.strerror}; look at the limits on processes and memory "
                "(TasksMax and MemoryMax of a unit, ulimit -u)"
            ) from error
        if pid:
            return pid
        code = int(Exit.INTERNAL)
        try:
            self._die_with(parent)
            title(name)
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

    def wait_signal(
        self, timeout_seconds: float, descriptors: Sequence[tuple[int, int]] = ()
    ) -> int | None:
        seconds = max(0.0, timeout_seconds)
        if descriptors:
            poll = select.poll()
            poll.register(self._signal_descriptor(), select.POLLIN)
            for descriptor, events in descriptors:
                poll.register(descriptor, events)
            poll.poll(seconds * 1000)
            seconds = 0.0
        found = signal.sigtimedwait(HANDLED, seconds)
        # CPython answers what was never filled in where the wait was interrupted (SIGSTOP and SIGCONT,
        # a debugger that looks at the process) and its time was over by then.
        return found.si_signo if found is not None and found.si_signo in HANDLED else None

    def _signal_descriptor(self) -> int:
        """Readable while a signal waits (signalfd(2)); it is never read, sigtimedwait fetches."""
        if self._signals is None:
            handled = ctypes.create_string_buffer(_SIGSET_BYTES)
            for number in HANDLED:
                self._libc.sigaddset(handled, number)
            self._signals = self._libc.signalfd(-1, handled, _SFD_CLOEXEC)
            if self._signals < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return self._signals

    def resident_bytes(self, pid: int) -> int | None:
        try:
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return None
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def title(name: str) -> None:
    """What ps(1) shows of this process: no option, and so no value of a setting."""
    # Else the title would take the environment's place, and with it what /proc shows of that.
    os.environ.setdefault("SPT_NOENV", "1")
    setproctitle.setproctitle(f"octane-analytics: {name}")


def unblock_signals() -> None:
    """For a child, once its own handlers are set."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
