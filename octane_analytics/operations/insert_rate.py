"""Rate of inserts that the settings allow, and what it means for latency and deduplication."""


def highest_rate(inserts_per_second: float, processes: int, flush_seconds: float) -> float | None:
    """Return the inserts per second of this host at a steady load; None without a limit.

    The limit does not hold for a batch at its maximum size (a backlog), nor for one that is as old as
    `flush_seconds`.
    """
    if not inserts_per_second:
        return None
    return max(inserts_per_second, processes / flush_seconds)


def describe(inserts_per_second: float, processes: int, flush_seconds: float) -> str:
    """Return one line about the times at which batches are inserted."""
    latest = f"{flush_seconds:g} s after its first event at the latest"
    if not inserts_per_second:
        return f"no limit of inserts: a batch is inserted at BATCH_SIZE, {latest}"
    interval = min(processes / inserts_per_second, flush_seconds)
    return (
        f"at most {inserts_per_second:g} inserts/s by {processes} workers: each inserts every "
        f"{interval:g} s at most, a batch {latest}"
    )


def window_span(
    window: int, inserts_per_second: float, processes: int, flush_seconds: float
) -> tuple[float | None, str]:
    """Return the minutes for which a window of that many inserts lasts (None without a limit), and a
    phrase that says so. Other hosts of the group insert into the same window."""
    rate = highest_rate(inserts_per_second, processes, flush_seconds)
    if rate is None:
        return None, "INSERTS_PER_SECOND=0, no limit"
    minutes = window / rate / 60.0
    return minutes, f"{minutes:,.0f} minutes of this host's {rate:g} inserts/s"
