"""Immutable process plan: the child processes that the supervisor runs. A reload replaces it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from octane_analytics.supervisor.slot_state import RestartPolicy
from octane_analytics.supervisor.status_board import SlotStatusWriter


class Role(Enum):
    WORKER = "worker"
    SERVICE = "service"
    """Stopped after the workers; its failure does not end the supervisor."""


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """Program of one slot. `run` is called in the forked process and returns its exit code."""

    name: str
    role: Role
    run: Callable[[SlotStatusWriter], int]


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    services: Sequence[ChildProcess]
    worker: Callable[[int], ChildProcess]
    """Factory of worker processes by slot number."""
    procs: int
    policy: RestartPolicy
    note: str = ""
    """Line for `octane-analytics status` about how the processes work together."""


@dataclass(frozen=True, slots=True)
class PlanChange:
    """Parsed settings of a reload, not yet checked against Kafka and ClickHouse."""

    plan: ProcessPlan
    check: Callable[[], int]
    """Preflight with the new settings, run in its own process; returns its exit code."""
    adopt: Callable[[], None]
    """Callback that puts the settings into force once every process runs with them."""


ReadPlanChange = Callable[[], PlanChange]
"""Reads the settings again. Raises ConfigError for an invalid setting."""
