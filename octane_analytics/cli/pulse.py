"""A sign of life at even intervals, also while the statement that is waited for takes long."""

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from octane_analytics.errors import OctaneError

_JOIN_SECONDS = 5.0


class Pulse:
    """While entered, calls `beat` every `seconds` from a thread of its own; not to be forked in.

    Errors are passed over: an outage shows elsewhere, and whom it tells may be gone already.
    """

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            with contextlib.suppress(OctaneError):
                self._beat()
