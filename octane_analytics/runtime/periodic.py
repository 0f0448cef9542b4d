"""Thread that calls a function periodically."""

import threading
from collections.abc import Callable


class PeriodicThread:
    """Calls `run_once` in its own thread, the first time after `first_seconds`.

    `run_once` returns the seconds until the next call. `close` is called after the last call.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], float],
        close: Callable[[], None],
        *,
        first_seconds: float = 0.0,
    ) -> None:
        self._delay_seconds = first_seconds
        self._run_once = run_once
        self._close = close
        self._is_stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Have the next call begin now, or right after one that is under way."""
        self._wake.set()

    def stop(self, seconds: float = 3.0) -> None:
        """Stop; block for at most `seconds` until a call that is under way has returned."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._delay_seconds)
            self._wake.clear()
            if self._is_stopping:
                break
            self._delay_seconds = self._run_once()
        self._close()
