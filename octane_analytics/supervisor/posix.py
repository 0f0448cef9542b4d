"""System calls of the supervisor as a Protocol, so that tests can replace them.

Signals stay blocked for the supervisor's lifetime and are fetched one at a time, so that no code runs in
a signal handler. They stay blocked across a fork until the child has installed its own handlers
(`unblock_signals`).
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
HANDLED_SIGNALS = (
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
    """System calls that the supervisor uses."""

    def now(self) -> float:
        """Return monotonic seconds."""
        ...

    def pid(self) -> int:
        """Return the process id of this process."""
        ...

    def fork(self, name: str, run: Callable[[], int]) -> int:
        """Start a child that exits with the code that `run` returns; return its pid.

        `name` is the child's title in ps(1). Raise Unavailable if the machine cannot start a process.
        """
        ...

    def kill(self, pid: int, number: int) -> None:
        """Send a signal; do nothing if the process has exited."""
        ...

    def reap(self) -> Iterable[tuple[int, int]]:
        """Yield pid and exit code of every exited child, negative for a signal. Does not block."""
        ...

    def wait_signal(
        self, timeout_seconds: float, descriptors: Sequence[tuple[int, int]] = ()
    ) -> int | None:
        """Block until a signal of HANDLED_SIGNALS is pending, and return it.

        Return None after the timeout, or once a descriptor is ready for its poll(2) event mask.
        """
        ...

    def resident_bytes(self, pid: int) -> int | None:
        """Return the process's resident memory; None if it has exited."""
        ...


class PosixSystem:
    """Implementation of System by the kernel."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._signalfd: int | None = None

    def block_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)

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
                f"cannot start a process: {error.strerror}; raise the limits on processes and memory "
                "(TasksMax and MemoryMax of a unit, ulimit -u)"
            ) from error
        if pid:
            return pid
        code = int(Exit.INTERNAL)
        try:
            self._die_with_parent(parent)
            set_process_title(name)
            code = run()
        except BaseException:  # the boundary of the process
            logging.getLogger(__name__).exception("process failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def _die_with_parent(self, parent: int) -> None:
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it exited before prctl
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
        info = signal.sigtimedwait(HANDLED_SIGNALS, seconds)
        # CPython returns an uninitialized siginfo if the wait was interrupted (SIGSTOP and SIGCONT, a
        # debugger that attaches) and the timeout had passed by then.
        return info.si_signo if info is not None and info.si_signo in HANDLED_SIGNALS else None

    def _signal_descriptor(self) -> int:
        """Return a descriptor that is readable while a signal is pending (signalfd(2)).

        It is never read: sigtimedwait fetches the signal.
        """
        if self._signalfd is None:
            mask = ctypes.create_string_buffer(_SIGSET_BYTES)
            for number in HANDLED_SIGNALS:
                self._libc.sigaddset(mask, number)
            self._signalfd = self._libc.signalfd(-1, mask, _SFD_CLOEXEC)
            if self._signalfd < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return self._signalfd

    def resident_bytes(self, pid: int) -> int | None:
        try:
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return None
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def set_process_title(name: str) -> None:
    """Set the title in ps(1), which hides the options and with them the values of settings."""
    # Without it the title would overwrite the environment, and with it /proc/PID/environ.
    os.environ.setdefault("SPT_NOENV", "1")
    setproctitle.setproctitle(f"octane-analytics: {name}")


def unblock_signals() -> None:
    """Unblock the supervisor's signals in a child that has installed its own handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
