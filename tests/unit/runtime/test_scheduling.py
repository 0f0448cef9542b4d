"""Priority of the metrics process as the kernel reports it; each test forks a process."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from octane_analytics.runtime import scheduling

_NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")


def _schedule_in_child(prepare: Callable[[], None]) -> tuple[bool, int, str]:
    """Return whether the child leads a session, its nice value and its session's nice value."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        report = "failed"
        try:
            prepare()
            scheduling.schedule_first()
            autogroup = Path("/proc/self/autogroup")
            session_nice = autogroup.read_text().split()[-1] if autogroup.exists() else ""
            report = f"{os.getsid(0) == os.getpid()} {os.nice(0)} {session_nice}"
        finally:
            os.write(writing, report.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        is_leader, nice, session_nice = pipe.read().split(" ")
    os.waitpid(pid, 0)
    return is_leader == "True", int(nice), session_nice


@needs_root
def test_privileged_process_lowers_nice_value_by_ten() -> None:
    nice = os.nice(0) - 10
    is_leader, own_nice, session_nice = _schedule_in_child(lambda: None)
    assert is_leader
    assert own_nice == nice
    assert session_nice in (str(nice), "")


@needs_root
def test_unprivileged_process_leads_its_own_session() -> None:
    is_leader, own_nice, session_nice = _schedule_in_child(lambda: os.setuid(_NOBODY))
    assert is_leader
    assert own_nice == os.nice(0)
    assert session_nice in ("0", "")
