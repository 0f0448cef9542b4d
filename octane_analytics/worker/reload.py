"""What a running `worker` makes of settings that are read again: what changes, and what cannot."""

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
"""A worker gets this much beyond its own drain deadline to close its clients."""

_FIXED = {
    # Bound and made before the first fork.
    "metrics": ("host", "port", "directory"),
    "worker": ("control_socket",),
    # Half of the workers with one name and half with the other would be two groups of members.
    "kafka": ("topic", "group_id", "instance_prefix"),
}
"""By section: what a process that takes over from another has to have in common with it."""


def plan(settings: Settings, listening: socket, directory: Path, board: StatusBoard) -> ProcessPlan:
    def worker(slot: int) -> ChildProcess:
        def run(figures: SlotStatusWriter) -> int:
            return run_worker(settings, slot, directory, figures, unblock_signals)

        return ChildProcess(f"{ROLE}-{slot}", Role.WORKER, run)

    service = ChildProcess(
        "metrics",
        Role.SERVICE,
        lambda figures: run_metrics(
            settings, listening, directory, figures, unblock_signals, lambda: board.workers
        ),
    )
    policy = RestartPolicy(
        heartbeat_seconds=settings.worker.heartbeat_seconds,
        drain_seconds=settings.worker.drain_seconds + _KILL_MARGIN_SECONDS,
    )
    return ProcessPlan([service], worker, settings.worker.procs, policy)


class SettingsReload:
    """Reads the settings again, each time they are asked for; keeps those that are in force."""

    def __init__(
        self,
        settings: Settings,
        reread: EnvironmentReload,
        make_plan: Callable[[Settings], ProcessPlan],
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._make_plan = make_plan

    def __call__(self) -> PlanChange:
        """See `supervisor.plan.Reread`."""
        wanted = self._reread.load().settings
        for line in self._reread.warnings():
            _LOG.warning("unknown setting ignored", extra=logs.fields(detail=line))
        settings, fixed = keep_fixed(self._settings, wanted)
        if fixed:
            _LOG.warning("settings that only a restart changes", extra=logs.fields(names=fixed))
        changed = _changed(self._settings, settings)
        _LOG.info("settings read anew", extra=logs.fields(changed=changed))
        return PlanChange(
            self._make_plan(settings),
            functools.partial(_check, settings),
            functools.partial(self._adopt, settings),
        )

    def _adopt(self, settings: Settings) -> None:
        self._settings = settings
        logs.configure(settings.log.level, settings.log.format, "supervisor")


def keep_fixed(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """The new settings, with the old values where only a restart changes them, and the names of those
    that differ."""
    sections: dict[str, Any] = {}
    names = []
    for section, kept in _FIXED.items():
        before, after = getattr(old, section), getattr(new, section)
        names += [_name(after, field) for field in kept if _differs(before, after, field)]
        sections[section] = replace(after, **{field: getattr(before, field) for field in kept})
    return replace(new, **sections), names


def _changed(old: Settings, new: Settings) -> list[str]:
    """Names only: one of them may be a secret's."""
    names = []
    for section in fields(Settings):
        before, after = getattr(old, section.name), getattr(new, section.name)
        assert is_dataclass(before)
        names += [
            _name(after, field.name)
            for field in fields(before)
            if _differs(before, after, field.name)
        ]
    return names


def _differs(before: object, after: object, field: str) -> bool:
    return bool(getattr(before, field) != getattr(after, field))


def _name(section: Any, field: str) -> str:
    (found,) = (f for f in fields(section) if f.name == field)
    setting = found.metadata.get("setting")
    return "KAFKA_RDKAFKA_…" if setting is None else str(setting.name)


def _check(settings: Settings) -> int:
    """In a process of its own: the supervisor makes no client."""
    _prepare()
    logs.configure(settings.log.level, settings.log.format, "check")
    try:
        preflight(settings)
    except OctaneError as error:
        _LOG.error("the new settings do not work", extra=logs.fields(error=str(error)))
        return int(exit_for(error))
    return int(Exit.OK)


def check_at_start(settings: Settings) -> int:
    """As a reload's, with one line on standard error for what is wrong."""
    _prepare()
    # It repeats what the one line at the end says.
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)
    try:
        preflight(settings)
    except OctaneError as error:
        sys.stderr.write(f"octane-analytics: error: {error}\n")
        sys.stderr.flush()
        return int(exit_for(error))
    return int(Exit.OK)


def _prepare() -> None:
    """The supervisor ends a check by itself, also where Ctrl-C tells the whole group."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    unblock_signals()
