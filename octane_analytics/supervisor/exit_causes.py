"""Exit codes of children: cause for metrics, text for logs, and the service's own exit code."""

import signal
from collections.abc import Collection

from octane_analytics.runtime.exit_codes import Exit

CAUSES = ("hang", "signal", "unavailable", "config", "fault")


def exit_cause(code: int, *, is_killed: bool) -> str | None:
    """Return one of CAUSES, or None for a regular exit.

    `is_killed` states that the supervisor sent SIGKILL because heartbeats were missing.
    """
    if code == Exit.OK:
        return None
    if code < 0:
        return "hang" if is_killed else "signal"
    return {int(Exit.UNAVAILABLE): "unavailable", int(Exit.CONFIG): "config"}.get(code, "fault")


def format_exit(code: int) -> str | int:
    """Return the exit code, or the name of the signal for a negative one."""
    if code >= 0:
        return code
    try:
        return signal.Signals(-code).name
    except ValueError:  # most real-time signals have no name
        return f"signal {-code}"


def exit_code_without_workers(last_exits: Collection[int | None]) -> Exit:
    """Return the service's exit code once every worker slot is FATAL, from their last exit codes.

    NOT_RUNNING and CONFIG need an operator. UNAVAILABLE stands for causes that may pass: a dependency
    that does not answer, and the kernel's SIGKILL when memory runs out.
    """
    codes = set(last_exits)
    if codes == {Exit.CONFIG}:
        return Exit.CONFIG
    return Exit.UNAVAILABLE if codes & {Exit.UNAVAILABLE, -signal.SIGKILL} else Exit.NOT_RUNNING
