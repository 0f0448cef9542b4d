"""The life of one slot, decided from its state, an event and the time; no input or output.

STARTING --first heartbeat--> RUNNING
STARTING, RUNNING --exit--> BACKOFF --time--> STARTING, or FATAL when starts keep failing
any --no process to be had--> BACKOFF
any --stop--> STOPPING --exit--> EXITED
any --replace--> STOPPING --exit--> STARTING
"""

from dataclasses import dataclass, field
from enum import Enum

from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.timing import Backoff


class SlotPhase(Enum):
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    EXITED = "exited"
    FATAL = "fatal"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    first_backoff_seconds: float = 0.5
    cap_backoff_seconds: float = 5.0
    start_attempts: int = 8
    """So many exits in a row before the first heartbeat make a slot FATAL."""
    stable_seconds: float = 10.0
    """A child that has run for this long is replaced without delay."""
    heartbeat_seconds: float = 120.0
    """A child silent for longer is hung."""
    drain_seconds: float = 90.0
    """A child that was told to stop is killed after this."""


@dataclass(slots=True)
class SlotState:
    """One place for a child. The number stays; the process in it changes."""

    name: str
    policy: RestartPolicy
    state: SlotPhase = SlotPhase.EXITED
    pid: int | None = None
    since: float = 0.0
    """When the state began, monotonic."""
    started_at: float = 0.0
    wake_at: float | None = None
    """When the slot wants to be looked at again: to start (BACKOFF) or to be killed (STOPPING)."""
    failed_starts: int = 0
    restarts: int = 0
    """Starts that nobody asked for."""
    last_exit: int | None = None
    is_killed: bool = False
    """SIGKILL has been sent to the process; a second one would not help."""
    starts_again: bool = False
    """STOPPING only to make room for a successor."""
    backoff: Backoff = field(init=False)

    def __post_init__(self) -> None:
        self.backoff = Backoff(self.policy.first_backoff_seconds, self.policy.cap_backoff_seconds)

    def started(self, pid: int, now: float) -> None:
        self.pid, self.started_at, self.is_killed = pid, now, False
        self._enter(SlotPhase.STARTING, now)

    def spawn_failed(self, now: float) -> None:
        """The machine had no room for a process. That passes, so it counts as no failed start."""
        self._enter(SlotPhase.BACKOFF, now)
        self.wake_at = now + self.backoff.next_seconds()

    def heartbeat_seen(self, now: float) -> None:
        """The child's loop has turned."""
        if self.state is SlotPhase.STARTING:
            self.failed_starts = 0
            self._enter(SlotPhase.RUNNING, now)
        if self.state is SlotPhase.RUNNING and now - self.started_at >= self.policy.stable_seconds:
            self.backoff.reset()

    def is_hung(self, last_heard_at: float, now: float) -> bool:
        if self.is_killed or self.state not in (SlotPhase.STARTING, SlotPhase.RUNNING):
            return False
        return now - max(last_heard_at, self.started_at) > self.policy.heartbeat_seconds

    def exited(self, code: int, now: float) -> None:
        """The child is reaped; `code` is negative for the signal that ended it."""
        self.pid, self.last_exit = None, code
        if self.state is SlotPhase.STOPPING:
            self._enter(SlotPhase.EXITED, now)
            if self.starts_again:
                self._reset()
            return
        if self.state is SlotPhase.STARTING:
            self.failed_starts += 1
        if code == Exit.CONFIG or self.failed_starts >= self.policy.start_attempts:
            self._enter(SlotPhase.FATAL, now)
            return
        self._enter(SlotPhase.BACKOFF, now)
        self.wake_at = now + self.backoff.next_seconds()

    def should_start(self, now: float) -> bool:
        if self.state is SlotPhase.BACKOFF:
            return self.wake_at is not None and now >= self.wake_at
        return self.state is SlotPhase.EXITED and self.last_exit is None

    def stop(self, now: float) -> None:
        """The child has been told to finish; with no child there is nothing to wait for."""
        self.starts_again = False
        if self.pid is None:
            self._enter(SlotPhase.EXITED, now)
            self.last_exit = self.last_exit or 0
        elif self.state is not SlotPhase.STOPPING:
            self._enter(SlotPhase.STOPPING, now)
            self.wake_at, self.is_killed = now + self.policy.drain_seconds, False

    def replace(self, now: float) -> None:
        """As `stop`, and a successor is to start once the child has ended; what failed is forgotten."""
        self.stop(now)
        if self.pid is None:
            self._reset()
        else:
            self.starts_again = True

    def _reset(self) -> None:
        self.last_exit, self.failed_starts, self.starts_again = None, 0, False
        self.backoff.reset()

    def is_responsive(self, last_heard_at: float, now: float, grace_seconds: float) -> bool:
        """Whether its child has kept its deadline, or is at most so long past it: by then killing a
        child has helped, or nothing here will."""
        if self.pid is None:
            return True
        if self.state is SlotPhase.STOPPING:
            return now - self.since <= self.policy.drain_seconds + grace_seconds
        silent_seconds = now - max(last_heard_at, self.started_at)
        return silent_seconds <= self.policy.heartbeat_seconds + grace_seconds

    def should_be_killed(self, now: float) -> bool:
        return self.state is SlotPhase.STOPPING and self.wake_at is not None and now >= self.wake_at

    def killed(self) -> None:
        self.is_killed = True
        if self.state is SlotPhase.STOPPING:
            self.wake_at = None

    def _enter(self, state: SlotPhase, now: float) -> None:
        self.state, self.since, self.wake_at = state, now, None
