"""What the supervisor is to run, as a value that a reload puts another in the place of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from octane_analytics.supervisor.slot_state import RestartPolicy
from octane_analytics.supervisor.status_board import SlotStatusWriter


class Role(Enum):
    WORKER = "worker"
    SERVICE = "service"
    """Outlives the workers on the way down, and does not decide whether the whole has failed."""


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """What runs in a slot. `run` is called in the forked process, with where to tell how it does."""

    name: str
    role: Role
    run: Callable[[SlotStatusWriter], int]


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    services: Sequence[ChildProcess]
    worker: Callable[[int], ChildProcess]
    """By the number of its slot."""
    procs: int
    policy: RestartPolicy


@dataclass(frozen=True, slots=True)
class PlanChange:
    """Settings that were read anew and are in themselves right."""

    plan: ProcessPlan
    check: Callable[[], int]
    """Whether the service could work with them; run in a process of its own, answers its exit code."""
    adopt: Callable[[], None]
    """They are the settings from now on."""


Reread = Callable[[], PlanChange]
"""Raises ConfigError for a setting that is wrong."""
