"""Start of a process, which distinguishes it from a later one with the same id."""

from pathlib import Path


def start_ticks(pid: int) -> int | None:
    """Return the process's start in clock ticks since boot, as in proc(5); None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may contain parentheses; the fields continue after the last one.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
