"""Process plan from settings, and its reload, which keeps settings that only a restart changes."""

import functools
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from socket import socket
from typing import Any

from octane_analytics.errors import OctaneError
from octane_analytics.runtime.exit_codes import Exit, exit_for
from octane_analytics.settings.reload import EnvironmentReload
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.posix import unblock_signals
from octane_analytics.supervisor.process_plan import ChildProcess, PlanChange, ProcessPlan, Role
from octane_analytics.supervisor.slot_state import RestartPolicy
from octane_analytics.supervisor.status_board import SlotStatusWriter, StatusBoard
from octane_analytics.telemetry import logging as logs
from octane_analytics.worker.metrics_process import run_metrics
from octane_analytics.worker.preflight import preflight
from octane_analytics.worker.process import ROLE, run_worker

_LOG = logging.getLogger(__name__)
_KILL_MARGIN_SECONDS = 15.0
"""Time after a worker's own drain deadline in which it closes its clients."""

_RESTART_ONLY = {
    # Bound or created before the first fork.
    "metrics": ("host", "port", "directory"),
    "worker": ("control_socket",),
    # During a roll, old and new workers must be members of one group.
    "kafka": ("topic", "group_id", "instance_prefix"),
}
"""Fields by section that a process must share with its predecessor."""


def process_plan(
    settings: Settings, listening: socket, directory: Path, board: StatusBoard
) -> ProcessPlan:
    """Return the metrics process and the workers that the settings describe."""

    def worker(slot: int) -> ChildProcess:
        def run(slot_status: SlotStatusWriter) -> int:
            return run_worker(settings, slot, directory, slot_status, unblock_signals)

        return ChildProcess(f"{ROLE}-{slot}", Role.WORKER, run)

    service = ChildProcess(
        "metrics",
        Role.SERVICE,
        lambda slot_status: run_metrics(
            settings, listening, directory, slot_status, unblock_signals, lambda: board.workers
        ),
    )
    policy = RestartPolicy(
        heartbeat_seconds=settings.worker.heartbeat_seconds,
        drain_seconds=settings.worker.drain_seconds + _KILL_MARGIN_SECONDS,
    )
    return ProcessPlan([service], worker, settings.worker.procs, policy)


class SettingsReload:
    """Reads the settings again on each call, and holds those in force."""

    def __init__(
        self,
        settings: Settings,
        environment: EnvironmentReload,
        make_plan: Callable[[Settings], ProcessPlan],
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._make_plan = make_plan

    def __call__(self) -> PlanChange:
        """See `process_plan.ReadPlanChange`."""
        loaded = self._environment.load().settings
        for line in self._environment.warnings():
            _LOG.warning("unknown setting ignored", extra=logs.fields(detail=line))
        settings, ignored = keep_restart_only(self._settings, loaded)
        if ignored:
            _LOG.warning(
                "changed settings ignored: they need a restart", extra=logs.fields(names=ignored)
            )
        changed = _changed(self._settings, settings)
        _LOG.info("settings reloaded", extra=logs.fields(changed=changed))
        return PlanChange(
            self._make_plan(settings),
            functools.partial(_check, settings),
            functools.partial(self._adopt, settings),
        )

    def _adopt(self, settings: Settings) -> None:
        self._settings = settings
        logs.configure(settings.log.level, settings.log.format, "supervisor")


def keep_restart_only(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """Return the new settings with the old values of restart-only fields, and the names of those that
    differ."""
    sections: dict[str, Any] = {}
    names = []
    for section, field_names in _RESTART_ONLY.items():
        before, after = getattr(old, section), getattr(new, section)
        names += [
            _setting_name(after, field) for field in field_names if _differs(before, after, field)
        ]
        sections[section] = replace(
            after, **{field: getattr(before, field) for field in field_names}
        )
    return replace(new, **sections), names


def _changed(old: Settings, new: Settings) -> list[str]:
    """Return the names of changed settings, without values, because a value may be a secret."""
    names = []
    for section in fields(Settings):
        before, after = getattr(old, section.name), getattr(new, section.name)
        assert is_dataclass(before)
        names += [
            _setting_name(after, field.name)
            for field in fields(before)
            if _differs(before, after, field.name)
        ]
    return names


def _differs(before: object, after: object, field: str) -> bool:
    return bool(getattr(before, field) != getattr(after, field))


def _setting_name(section: Any, field: str) -> str:
    (matching,) = (f for f in fields(section) if f.name == field)
    setting = matching.metadata.get("setting")
    return "KAFKA_RDKAFKA_…" if setting is None else str(setting.name)


def _check(settings: Settings) -> int:
    """Run the preflight of a reload in its own process, because the supervisor creates no client."""
    _ignore_supervisor_signals()
    logs.configure(settings.log.level, settings.log.format, "check")
    try:
        preflight(settings)
    except OctaneError as error:
        _LOG.error("preflight with the new settings failed", extra=logs.fields(error=str(error)))
        return int(exit_for(error))
    return int(Exit.OK)


def check_at_start(settings: Settings) -> int:
    """Run the preflight of the start; print an error as one line on standard error."""
    _ignore_supervisor_signals()
    # librdkafka's log repeats the error that is printed below.
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)
    try:
        preflight(settings)
    except OctaneError as error:
        sys.stderr.write(f"octane-analytics: error: {error}\n")
        sys.stderr.flush()
        return int(exit_for(error))
    return int(Exit.OK)


def _ignore_supervisor_signals() -> None:
    """Leave signals to the supervisor, which kills a check itself, even after a Ctrl-C to the group."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    unblock_signals()
