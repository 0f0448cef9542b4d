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
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 3.0) -> None:
        """Stop; block for at most `seconds` until a call that is under way has returned."""
        self._stop.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.wait(self._delay_seconds):
            self._delay_seconds = self._run_once()
        self._close()
