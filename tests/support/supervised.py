"""Supervisor with simple children: `python -m tests.support.supervised KIND [FILE]`.

restless   eight workers that exit at once and are replaced at once, so that the supervisor always forks
orphan     one worker whose supervisor is killed between fork and prctl; creates FILE if it runs on
failing    two workers that exit before their first heartbeat
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

_QUICK_POLICY = RestartPolicy(
    first_backoff_seconds=0.01, cap_backoff_seconds=0.02, start_attempts=3
)
_CHILD_SECONDS = 60.0


class OrphaningSystem(PosixSystem):
    """Kills the parent after the fork; the child continues only once its parent is gone."""

    def fork(self, name: str, run: Callable[[], int]) -> int:
        pid = super().fork(name, run)
        os.kill(os.getpid(), signal.SIGKILL)
        return pid

    def _die_with_parent(self, parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.001)
        super()._die_with_parent(parent)


def _restless(slot_status: SlotStatusWriter) -> int:
    slot_status.heartbeat(time.monotonic())
    return 1


def _failing(_: SlotStatusWriter) -> int:
    return 70


def _lasting(_: SlotStatusWriter) -> int:
    unblock_signals()
    time.sleep(_CHILD_SECONDS)
    return 0


def main(kind: str, file: str = "") -> int:
    def _write_file(_: SlotStatusWriter) -> int:
        Path(file).touch()
        return 0

    runs = {"restless": _restless, "orphan": _write_file, "failing": _failing}
    service = [ChildProcess("service", Role.SERVICE, _lasting)] if kind != "orphan" else []
    procs = {"restless": 8, "orphan": 1, "failing": 2}[kind]
    plan = ProcessPlan(
        service,
        lambda slot: ChildProcess(f"worker-{slot}", Role.WORKER, runs[kind]),
        procs,
        _QUICK_POLICY,
    )
    system = OrphaningSystem() if kind == "orphan" else PosixSystem()
    system.block_signals()
    return Supervisor(
        system, plan, StatusBoard(16), notifier=Notifier(os.environ, os.getpid())
    ).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
