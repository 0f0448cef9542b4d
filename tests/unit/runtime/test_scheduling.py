"""The priority of who answers scrapes, as the kernel has it; each in a process of its own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from octane_analytics.runtime import scheduling

_NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def _after(prepare: Callable[[], None]) -> tuple[bool, int, str]:
    """Whether it leads a session, its nice value and its session's, where the kernel has such."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = "nothing"
        try:
            prepare()
            scheduling.schedule_first()
            autogroup = Path("/proc/self/autogroup")
            of_session = autogroup.read_text().split()[-1] if autogroup.exists() else ""
            told = f"{os.getsid(0) == os.getpid()} {os.nice(0)} {of_session}"
        finally:
            os.write(writing, told.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        is_leader, nice, of_session = answer.read().split(" ")
    os.waitpid(pid, 0)
    return is_leader == "True", int(nice), of_session


@needs_root
def test_who_may_comes_ten_before_the_others() -> None:
    nice = os.nice(0) - 10
    is_leader, own, of_session = _after(lambda: None)
    assert is_leader
    assert own == nice
    assert of_session in (str(nice), "")


@needs_root
def test_who_may_not_has_a_session_of_its_own_all_the_same() -> None:
    is_leader, own, of_session = _after(lambda: os.setuid(_NOBODY))
    assert is_leader
    assert own == os.nice(0)
    assert of_session in ("0", "")
