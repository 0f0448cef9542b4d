"""State machine of one supervised slot; performs no input or output and gets the time as an argument.

STARTING --first heartbeat--> RUNNING
STARTING, RUNNING --exit--> BACKOFF --delay--> STARTING, or FATAL after repeated failed starts
any --spawn failed--> BACKOFF
any --stop--> STOPPING --exit--> EXITED
any --replace--> STOPPING --exit--> STARTING
"""

from dataclasses import dataclass, field
from enum import Enum

from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.timing import Backoff


class SlotPhase(Enum):
    """Node of the state machine: one of six names; `SlotState` holds the current one and its data."""

    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    EXITED = "exited"
    FATAL = "fatal"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Deadlines and backoff that the supervisor applies to every slot."""

    first_backoff_seconds: float = 0.5
    cap_backoff_seconds: float = 5.0
    start_attempts: int = 8
    """Consecutive exits before the first heartbeat that make a slot FATAL."""
    stable_seconds: float = 10.0
    """Uptime after which the backoff is reset."""
    heartbeat_seconds: float = 120.0
    """Time without a heartbeat after which a child counts as hung."""
    drain_seconds: float = 90.0
    """Time from SIGTERM to SIGKILL."""


@dataclass(slots=True)
class SlotState:
    """Mutable state of one slot: its `SlotPhase`, its process and its counters.

    The name is fixed; the process changes with every restart. All times are monotonic seconds.
    """

    name: str
    policy: RestartPolicy
    phase: SlotPhase = SlotPhase.EXITED
    pid: int | None = None
    phase_since: float = 0.0
    """Time at which the current phase was entered."""
    started_at: float = 0.0
    wake_at: float | None = None
    """Next deadline: the start of a process in BACKOFF, SIGKILL in STOPPING."""
    failed_starts: int = 0
    restarts: int = 0
    """Starts after an unexpected exit."""
    last_exit: int | None = None
    is_killed: bool = False
    """SIGKILL was sent to the process; a second one would have no effect."""
    should_restart: bool = False
    """STOPPING is followed by the start of a successor."""
    backoff: Backoff = field(init=False)

    def __post_init__(self) -> None:
        self.backoff = Backoff(self.policy.first_backoff_seconds, self.policy.cap_backoff_seconds)

    def started(self, pid: int, now: float) -> None:
        """Record that a process was forked."""
        self.pid, self.started_at, self.is_killed = pid, now, False
        self._enter(SlotPhase.STARTING, now)

    def spawn_failed(self, now: float) -> None:
        """Record that fork failed. The cause is temporary, so it does not count as a failed start."""
        self._enter(SlotPhase.BACKOFF, now)
        self.wake_at = now + self.backoff.next_seconds()

    def heartbeat_seen(self, now: float) -> None:
        """Record that the child's loop has run since its start."""
        if self.phase is SlotPhase.STARTING:
            self.failed_starts = 0
            self._enter(SlotPhase.RUNNING, now)
        if self.phase is SlotPhase.RUNNING and now - self.started_at >= self.policy.stable_seconds:
            self.backoff.reset()

    def is_hung(self, last_heartbeat_at: float, now: float) -> bool:
        if self.is_killed or self.phase not in (SlotPhase.STARTING, SlotPhase.RUNNING):
            return False
        return now - max(last_heartbeat_at, self.started_at) > self.policy.heartbeat_seconds

    def exited(self, code: int, now: float) -> None:
        """Record that the child was reaped; `code` is the negative signal number if one ended it."""
        self.pid, self.last_exit = None, code
        if self.phase is SlotPhase.STOPPING:
            self._enter(SlotPhase.EXITED, now)
            if self.should_restart:
                self._reset()
            return
        if self.phase is SlotPhase.STARTING:
            self.failed_starts += 1
        if code == Exit.CONFIG or self.failed_starts >= self.policy.start_attempts:
            self._enter(SlotPhase.FATAL, now)
            return
        self._enter(SlotPhase.BACKOFF, now)
        self.wake_at = now + self.backoff.next_seconds()

    def should_start(self, now: float) -> bool:
        if self.phase is SlotPhase.BACKOFF:
            return self.wake_at is not None and now >= self.wake_at
        return self.phase is SlotPhase.EXITED and self.last_exit is None

    def stop(self, now: float) -> None:
        """Enter STOPPING, or EXITED if the slot has no process. The caller sends SIGTERM."""
        self.should_restart = False
        if self.pid is None:
            self._enter(SlotPhase.EXITED, now)
            self.last_exit = self.last_exit or 0
        elif self.phase is not SlotPhase.STOPPING:
            self._enter(SlotPhase.STOPPING, now)
            self.wake_at, self.is_killed = now + self.policy.drain_seconds, False

    def replace(self, now: float) -> None:
        """Stop the child and start a successor after its exit; reset failed starts and backoff."""
        self.stop(now)
        if self.pid is None:
            self._reset()
        else:
            self.should_restart = True

    def _reset(self) -> None:
        self.last_exit, self.failed_starts, self.should_restart = None, 0, False
        self.backoff.reset()

    def is_responsive(self, last_heartbeat_at: float, now: float, grace_seconds: float) -> bool:
        """Return whether the child has met its deadline or exceeds it by at most `grace_seconds`.

        By the end of the grace period SIGKILL has worked, or the supervisor itself does not.
        """
        if self.pid is None:
            return True
        if self.phase is SlotPhase.STOPPING:
            return now - self.phase_since <= self.policy.drain_seconds + grace_seconds
        silent_seconds = now - max(last_heartbeat_at, self.started_at)
        return silent_seconds <= self.policy.heartbeat_seconds + grace_seconds

    def should_be_killed(self, now: float) -> bool:
        return self.phase is SlotPhase.STOPPING and self.wake_at is not None and now >= self.wake_at

    def killed(self) -> None:
        """Record that SIGKILL was sent."""
        self.is_killed = True
        if self.phase is SlotPhase.STOPPING:
            self.wake_at = None

    def _enter(self, phase: SlotPhase, now: float) -> None:
        self.phase, self.phase_since, self.wake_at = phase, now, None
