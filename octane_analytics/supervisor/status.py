"""What the supervisor says of itself and its slots: values that can be written as JSON, and one line."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from octane_analytics.supervisor.slot_state import SlotPhase, SlotState
from octane_analytics.supervisor.status_board import SlotStatusRecord

_WINDOW_SECONDS = 10.0
_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SlotStatus:
    slot: str
    is_worker: bool
    pid: int | None
    state: str
    uptime_seconds: float | None
    """Of the process; None where there is none."""
    restarts: int
    """Starts that nobody asked for."""
    partitions: int
    events_per_second: float
    lag: int | None
    """Messages that the group has not committed in this worker's partitions, in all partitions where
    this is the metrics process; None while not known."""
    held_back: int
    """Those of `lag` that open transactions keep from every consumer."""
    last_flush_seconds: float | None
    """Since the last insert of this process."""
    is_waiting: bool
    """For a dependency that fails."""
    last_error: str
    last_error_seconds: float | None
    """Since then."""
    last_exit: int | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    pid: int
    state: str
    """starting, running, reloading or stopping."""
    uptime_seconds: float
    slots: Sequence[SlotStatus]
    reloads: int
    last_reload: str
    """What became of the last one, empty where there was none."""

    @property
    def workers(self) -> list[SlotStatus]:
        return [slot for slot in self.slots if slot.is_worker]

    @property
    def events_per_second(self) -> float:
        return sum(slot.events_per_second for slot in self.workers)

    @property
    def lag(self) -> int | None:
        """The group's, as `octane-analytics lag` and the metrics have it, whether or not the workers
        run; None while not known."""
        return next((slot.lag for slot in self.slots if not slot.is_worker), None)

    @property
    def held_back(self) -> int:
        """Those of `lag` that open transactions keep from every consumer."""
        return sum(slot.held_back for slot in self.slots if not slot.is_worker)

    @property
    def is_healthy(self) -> bool:
        """Every slot runs, none waits for what is away, and the service is not on its way down.

        A slot that is being replaced in a reload is no fault."""
        usual = {SlotPhase.RUNNING.value}
        if self.state == "reloading":
            usual |= {SlotPhase.STARTING.value, SlotPhase.STOPPING.value, SlotPhase.EXITED.value}
        return (
            self.state in ("running", "reloading")
            and all(slot.state in usual for slot in self.slots)
            and not any(slot.is_waiting for slot in self.workers)
        )

    def line(self) -> str:
        up = sum(slot.state == SlotPhase.RUNNING.value for slot in self.workers)
        lag = "" if self.lag is None else f", lag {self.lag:,}"
        if self.held_back:
            lag += f" ({self.held_back:,} held back by an open transaction)"
        waiting = sum(slot.is_waiting for slot in self.workers)
        waits = f", {waiting} waiting for a dependency" if waiting else ""
        reload = f"; {self.last_reload}" if self.last_reload else ""
        return (
            f"{self.state}: {up} of {len(self.workers)} workers up, "
            f"{self.events_per_second:,.0f} events/s{lag}{waits}{reload}"
        )


def slot_status(
    slot: SlotState,
    figures: SlotStatusRecord,
    events_per_second: float,
    memory_bytes: int | None,
    now: float,
    *,
    is_worker: bool,
) -> SlotStatus:
    is_up = slot.pid is not None
    return SlotStatus(
        slot=slot.name,
        is_worker=is_worker,
        pid=slot.pid,
        state=slot.state.value,
        uptime_seconds=round(now - slot.started_at, 1) if is_up else None,
        restarts=slot.restarts,
        partitions=figures.partitions if is_up else 0,
        events_per_second=round(events_per_second, 1),
        lag=figures.lag if is_up else None,
        held_back=figures.held_back if is_up else 0,
        last_flush_seconds=_since(figures.flushed_at, now),
        is_waiting=is_up and figures.waits,
        last_error=figures.error,
        last_error_seconds=_since(figures.error_at, now),
        last_exit=slot.last_exit,
        memory_bytes=memory_bytes,
    )


def _since(then: float, now: float) -> float | None:
    return round(now - then, 1) if then else None


@dataclass(slots=True)
class EventRate:
    """Events per second over the last seconds, from a count that begins anew with each process."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def record(self, total: int, now: float) -> None:
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        if not self._seen or now - self._seen[-1][0] >= _SAMPLE_SECONDS:
            self._seen.append((now, total))
        while self._seen[0][0] < now - _WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (begun_at, first), (ended_at, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended_at - begun_at)
