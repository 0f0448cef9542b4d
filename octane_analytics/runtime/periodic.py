"""Something that is looked at again and again, beside whatever else the process does."""

import threading
from collections.abc import Callable


class PeriodicThread:
    """Calls `look` from a thread of its own, the first time after `first_seconds`.

    Each call answers after how many seconds the next comes.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], float],
        close: Callable[[], None],
        *,
        first_seconds: float = 0.0,
    ) -> None:
        self._pause_seconds = first_seconds
        self._look = look
        self._close = close
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 3.0) -> None:
        """Waits so long for the look under way; a later end of it is not waited for."""
        self._stop.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.wait(self._pause_seconds):
            self._pause_seconds = self._look()
        self._close()
