"""Heartbeat at regular intervals, also during a long statement."""

import contextlib
from collections.abc import Callable, Iterator

from octane_analytics.errors import OctaneError
from octane_analytics.runtime.periodic import PeriodicThread

_JOIN_SECONDS = 5.0


@contextlib.contextmanager
def heartbeat(beat: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `beat` every `seconds` from a thread while entered; do not fork meanwhile.

    Ignores errors: the main thread reports an outage, and the journal may have been dropped.
    """

    def beat_once() -> float:
        with contextlib.suppress(OctaneError):
            beat()
        return seconds

    thread = PeriodicThread("heartbeat", beat_once, lambda: None, first_seconds=seconds)
    thread.start()
    try:
        yield
    finally:
        thread.stop(_JOIN_SECONDS)
