"""Who answers a scrape comes before those who make the load: out of CPU is when somebody looks.

Linux shares the CPUs out among groups of threads first, and only then within each by nice value. A
group is a control group or, where a service has none with shares of its own, a session (sched(7), "The
autogroup feature"). In the workers' session a scrape of two milliseconds has to wait until they have
had their share, which has been seen to take fifty.
"""

import contextlib
import os
from pathlib import Path

_ADVANTAGE = 10
_AUTOGROUP = Path("/proc/self/autogroup")


def schedule_first() -> None:
    """Has this process scheduled before those it was forked from, as far as the machine allows it.

    Makes it the leader of a session of its own, which needs no right; a terminal's signals do not reach
    it any more. Then raises its nice value, and its session's, by ten, which root may, who has
    CAP_SYS_NICE, and who has the RLIMIT_NICE (LimitNICE= of a unit). To be called right after the fork:
    nice values are a thread's own, and the threads that it starts from then on have them too.
    """
    os.setsid()
    # Not allowed; or there are no autogroups in this kernel.
    with contextlib.suppress(OSError):
        nice = os.nice(-_ADVANTAGE)
        _AUTOGROUP.write_text(f"{nice}")
