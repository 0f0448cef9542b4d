"""Something that is looked at again and again, beside whatever else the process does."""

import threading
from collections.abc import Callable


class Watching:
    """Calls `look` from a thread of its own; each call answers after how many seconds the next comes."""

    def __init__(self, name: str, look: Callable[[], float], close: Callable[[], None]) -> None:
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
        while not self._stop.is_set():
            self._stop.wait(self._look())
        self._close()
