"""SIGINT and SIGTERM as a flag that a loop can check and wait for."""

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Self

from octane_analytics.runtime.exit_codes import Exit

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SUPERVISOR_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU)


class StopSignal:
    """Flag that the first SIGINT or SIGTERM sets. For the main thread.

    A command uses it as a context manager, which restores the previous handlers; a forked child calls
    `install` and keeps the handlers until it exits.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._pipe: tuple[int, int] | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def install(self) -> Self:
        """Install the handlers of both signals."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        for number in _STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._record)
        return self

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        for descriptor in self._pipe or ():
            os.close(descriptor)
        self._pipe = None

    def is_set(self) -> bool:
        return self._number is not None

    @property
    def exit_code(self) -> Exit:
        """Exit code of a command that a signal stopped before it was done."""
        return Exit.TERMINATED if self._number == signal.SIGTERM else Exit.INTERRUPTED

    def wait(self, seconds: float) -> bool:
        """Block until a signal or the timeout; return whether a signal has arrived."""
        self._select([], seconds)
        return self.is_set()

    def wait_readable(self, descriptor: int, seconds: float) -> bool:
        """Block until the descriptor is readable, a signal or the timeout; return if it is readable."""
        return descriptor in self._select([descriptor], seconds)

    def _select(self, descriptors: list[int], seconds: float) -> list[int]:
        assert self._pipe is not None, "install first"
        return select.select([self._pipe[0], *descriptors], [], [], seconds)[0]

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self._number is None and self._pipe is not None:
            self._number = number
            # The handler alone would not end `select`: Python restarts it (PEP 475).
            os.write(self._pipe[1], b"\0")


def drop_supervisor_handlers() -> None:
    """Reset the supervisor's signal handlers in a forked child.

    Signals that only the supervisor handles are ignored, because they may reach the whole process group.
    """
    for number in (signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    for number in _SUPERVISOR_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The supervisor's descriptor must not be written to from here.
    signal.set_wakeup_fd(-1)
