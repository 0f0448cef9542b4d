"""Supervisor with test children: `python -m tests.support.supervised KIND [FILE]`.

restless   eight workers that end by themselves at once and are replaced as soon, so that it always forks
orphan     one whose supervisor dies between the fork and the child's first act; FILE: the child went on
failing    two workers that end before they have said anything
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from octane_analytics.supervisor.arbiter import Supervisor
from octane_analytics.supervisor.posix import PosixSystem, unblock_signals
from octane_analytics.supervisor.process_plan import ChildProcess, ProcessPlan, Role
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.supervisor.slot_state import RestartPolicy
from octane_analytics.supervisor.status_board import SlotStatusWriter, StatusBoard

_QUICK = RestartPolicy(first_backoff_seconds=0.01, cap_backoff_seconds=0.02, start_attempts=3)
_LIFE_SECONDS = 60.0


class Slow(PosixSystem):
    """System calls whose child only continues after its parent has ended."""

    def fork(self, name: str, run: Callable[[], int]) -> int:
        pid = super().fork(name, run)
        os.kill(os.getpid(), signal.SIGKILL)
        return pid

    def _die_with(self, parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.001)
        super()._die_with(parent)


def _restless(figures: SlotStatusWriter) -> int:
    figures.heartbeat(time.monotonic())
    return 1


def _failing(_: SlotStatusWriter) -> int:
    return 70


def _lasting(_: SlotStatusWriter) -> int:
    unblock_signals()
    time.sleep(_LIFE_SECONDS)
    return 0


def main(kind: str, file: str = "") -> int:
    def writing(_: SlotStatusWriter) -> int:
        Path(file).touch()
        return 0

    runs = {"restless": _restless, "orphan": writing, "failing": _failing}
    service = [ChildProcess("service", Role.SERVICE, _lasting)] if kind != "orphan" else []
    procs = {"restless": 8, "orphan": 1, "failing": 2}[kind]
    plan = ProcessPlan(
        service, lambda slot: ChildProcess(f"worker-{slot}", Role.WORKER, runs[kind]), procs, _QUICK
    )
    system = Slow() if kind == "orphan" else PosixSystem()
    system.block_signals()
    return Supervisor(
        system, plan, StatusBoard(16), notifier=Notifier(os.environ, os.getpid())
    ).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
