"""Why children end: for whoever counts it, for the log, and for the end of the whole."""

import signal
from collections.abc import Collection

from octane_analytics.runtime.exit_codes import Exit

CAUSES = ("hang", "signal", "unavailable", "config", "fault")


def cause_of(code: int, *, is_killed: bool) -> str | None:
    """One of CAUSES; None where the child ended as it was to. `is_killed` by us, for its silence."""
    if code == Exit.OK:
        return None
    if code < 0:
        return "hang" if is_killed else "signal"
    return {int(Exit.UNAVAILABLE): "unavailable", int(Exit.CONFIG): "config"}.get(code, "fault")


def format_exit(code: int) -> str | int:
    """An exit code as the log has it: a signal by its name."""
    if code >= 0:
        return code
    try:
        return signal.Signals(-code).name
    except ValueError:  # most of the real-time ones have none
        return f"signal {-code}"


def exit_where_none_starts(last_exits: Collection[int | None]) -> Exit:
    """What the service ends with whose workers have all been given up, by what they ended with.

    NOT_RUNNING and CONFIG take a person. What may pass by itself is UNAVAILABLE: a dependency that is
    away, and the kernel's SIGKILL to whoever holds memory when there is none left.
    """
    codes = set(last_exits)
    if codes == {Exit.CONFIG}:
        return Exit.CONFIG
    return Exit.UNAVAILABLE if codes & {Exit.UNAVAILABLE, -signal.SIGKILL} else Exit.NOT_RUNNING
