"""Schedules the metrics process ahead of the workers, so that scrapes succeed when the CPU is saturated.

Linux distributes CPU time among groups of threads first, and within a group by nice value. A group is a
control group or, if a service has none with its own shares, a session (sched(7), "The autogroup
feature"). In the workers' session a scrape of two milliseconds waits until the workers have used their
time slices; fifty milliseconds were measured.
"""

import contextlib
import os
from pathlib import Path

_NICE_STEP = 10
_AUTOGROUP = Path("/proc/self/autogroup")


def schedule_first() -> None:
    """Schedule this process ahead of the process group it was forked from, as far as permitted.

    Makes it the leader of its own session, which needs no privilege; signals of a terminal no longer
    reach it. Then lowers its nice value and its session's by ten, which needs root, CAP_SYS_NICE or
    RLIMIT_NICE (LimitNICE= of a unit). Call it right after the fork: a nice value belongs to a thread,
    and threads that are started later inherit it.
    """
    os.setsid()
    # Not permitted, or the kernel has no autogroups.
    with contextlib.suppress(OSError):
        nice = os.nice(-_NICE_STEP)
        _AUTOGROUP.write_text(f"{nice}")
