"""Why children end, for whoever counts it."""

import signal
from collections.abc import Callable, Iterable

from octane_analytics.exits import Exit
from octane_analytics.supervisor.system import PosixSystem

CAUSES = ("hang", "signal", "unavailable", "config", "fault")


class WatchedSystem(PosixSystem):
    """Tells `on_end` why each child ended that was not asked to; does nothing while that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.on_end: Callable[[str], None] | None = None
        self._killed: set[int] = set()

    def kill(self, pid: int, number: int) -> None:
        if number == signal.SIGKILL:
            self._killed.add(pid)
        super().kill(pid, number)

    def reap(self) -> Iterable[tuple[int, int]]:
        for pid, code in super().reap():
            cause = cause_of(code, is_killed=pid in self._killed)
            self._killed.discard(pid)
            if cause is not None and self.on_end is not None:
                self.on_end(cause)
            yield pid, code


def cause_of(code: int, *, is_killed: bool) -> str | None:
    """One of CAUSES; None where the child ended as it was to. `is_killed` by us, for its silence."""
    if code == Exit.OK:
        return None
    if code < 0:
        return "hang" if is_killed else "signal"
    return {int(Exit.UNAVAILABLE): "unavailable", int(Exit.CONFIG): "config"}.get(code, "fault")
