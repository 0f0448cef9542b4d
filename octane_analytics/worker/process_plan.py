"""Process plan of `octane-analytics worker`: the metrics process and the workers."""

from pathlib import Path
from socket import socket

from octane_analytics.operations import insert_rate
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.posix import unblock_signals
from octane_analytics.supervisor.process_plan import ChildProcess, ProcessPlan, Role
from octane_analytics.supervisor.slot_state import RestartPolicy
from octane_analytics.supervisor.status_board import SlotStatusWriter, StatusBoard
from octane_analytics.worker.metrics_process import run_metrics
from octane_analytics.worker.process import ROLE, run_worker

_KILL_MARGIN_SECONDS = 15.0
"""Time after a worker's own drain deadline in which it closes its clients."""


def process_plan(
    settings: Settings, listening: socket, directory: Path, board: StatusBoard
) -> ProcessPlan:
    """Return the metrics process and the workers that the settings describe."""

    def worker(slot: int) -> ChildProcess:
        def run(slot_status: SlotStatusWriter) -> int:
            return run_worker(
                settings,
                slot,
                directory,
                slot_status,
                unblock_signals,
                lambda: board.target_workers,
                board.log_confirmation,
            )

        return ChildProcess(f"{ROLE}-{slot}", Role.WORKER, run)

    service = ChildProcess(
        "metrics",
        Role.SERVICE,
        lambda slot_status: run_metrics(
            settings,
            listening,
            directory,
            slot_status,
            unblock_signals,
            lambda: board.target_workers,
        ),
    )
    policy = RestartPolicy(
        heartbeat_seconds=settings.worker.heartbeat_seconds,
        drain_seconds=settings.worker.drain_seconds + _KILL_MARGIN_SECONDS,
    )
    batch = settings.batch
    note = insert_rate.describe(
        batch.inserts_per_second, settings.worker.procs, batch.flush_seconds
    )
    return ProcessPlan([service], worker, settings.worker.procs, policy, note)
