"""Reload of the worker's settings: parses them, keeps those that only a restart changes."""

import functools
import logging
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from octane_analytics.settings.reload import EnvironmentReload
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.process_plan import PlanChange, ProcessPlan
from octane_analytics.telemetry import logging as logs
from octane_analytics.worker.preflight_process import check_at_reload

_LOG = logging.getLogger(__name__)
_RESTART_ONLY = {
    # Bound or created before the first fork.
    "metrics": ("host", "port", "directory"),
    "worker": ("control_socket",),
    # During a roll, old and new workers must be members of one group.
    "kafka": ("topic", "group_id", "instance_prefix"),
}
"""Fields by section that a process must share with its predecessor."""


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
            functools.partial(check_at_reload, settings),
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
