"""A sign of life at even intervals, also while the statement that is waited for takes long."""

import contextlib
from collections.abc import Callable, Iterator

from octane_analytics.errors import OctaneError
from octane_analytics.runtime.periodic import PeriodicThread

_JOIN_SECONDS = 5.0


@contextlib.contextmanager
def heartbeat(beat: Callable[[], None], seconds: float) -> Iterator[None]:
    """While entered, calls `beat` every `seconds` from a thread of its own; not to be forked in.

    Errors are passed over: an outage shows elsewhere, and whom it tells may be gone already.
    """

    def look() -> float:
        with contextlib.suppress(OctaneError):
            beat()
        return seconds

    watching = PeriodicThread("pulse", look, lambda: None, first_seconds=seconds)
    watching.start()
    try:
        yield
    finally:
        watching.stop(_JOIN_SECONDS)
