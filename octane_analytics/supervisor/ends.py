"""Why children end, for whoever counts it."""

from octane_analytics.exits import Exit

CAUSES = ("hang", "signal", "unavailable", "config", "fault")


def cause_of(code: int, *, is_killed: bool) -> str | None:
    """One of CAUSES; None where the child ended as it was to. `is_killed` by us, for its silence."""
    if code == Exit.OK:
        return None
    if code < 0:
        return "hang" if is_killed else "signal"
    return {int(Exit.UNAVAILABLE): "unavailable", int(Exit.CONFIG): "config"}.get(code, "fault")
