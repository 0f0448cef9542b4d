"""SIGINT and SIGTERM as a fact that a command's loop can look at and wait for."""

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Self

from octane_analytics.runtime.exit_codes import Exit

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """While entered, both signals only ask to stop. For the main thread."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._pipe: tuple[int, int] | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        for number in _NUMBERS:
            self._previous[number] = signal.signal(number, self._record)
        return self

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
        """Whether one of the signals has come."""
        return self._number is not None

    @property
    def exit_code(self) -> Exit:
        """What a command that was asked to stop before it was done exits with."""
        return Exit.TERMINATED if self._number == signal.SIGTERM else Exit.INTERRUPTED

    def wait(self, seconds: float) -> bool:
        """Blocks until a signal comes or the time is over; whether one has come."""
        self._select([], seconds)
        return self.is_set()

    def wait_readable(self, descriptor: int, seconds: float) -> bool:
        """Blocks until the descriptor can be read, a signal comes or the time is over."""
        return descriptor in self._select([descriptor], seconds)

    def _select(self, descriptors: list[int], seconds: float) -> list[int]:
        assert self._pipe is not None, "to be entered first"
        return select.select([self._pipe[0], *descriptors], [], [], seconds)[0]

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self._number is None and self._pipe is not None:
            self._number = number
            os.write(self._pipe[1], b"\0")
