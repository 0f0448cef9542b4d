"""Status of the service and its slots: values that can be written as JSON, and a one-line summary."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from octane_analytics.supervisor.slot_state import SlotPhase, SlotState
from octane_analytics.supervisor.status_board import SlotStatusRecord
from octane_analytics.telemetry.conditions import Condition

_WINDOW_SECONDS = 10.0
_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SlotStatus:
    slot: str
    is_worker: bool
    pid: int | None
    state: str
    uptime_seconds: float | None
    """Uptime of the process; None without a process."""
    restarts: int
    """Starts after an unexpected exit."""
    partitions: int
    events_per_second: float
    lag: int | None
    """Messages that the group has not committed in this worker's partitions, in all partitions for the
    metrics process; None while unknown."""
    held_back: int
    """Part of `lag` that open transactions keep from every consumer."""
    last_flush_seconds: float | None
    """Time since the last insert of this process."""
    is_waiting: bool
    """The process is retrying a dependency that fails."""
    last_error: str
    last_error_seconds: float | None
    """Time since the last error."""
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
    """Failure of the last reload; empty after a successful one or without any."""
    note: str = ""
    """The plan's note."""

    @property
    def workers(self) -> list[SlotStatus]:
        return [slot for slot in self.slots if slot.is_worker]

    @property
    def events_per_second(self) -> float:
        return sum(slot.events_per_second for slot in self.workers)

    @property
    def lag(self) -> int | None:
        """Lag of the group, as in `octane-analytics lag` and the metrics, whether or not the workers
        run; None while unknown."""
        return next((slot.lag for slot in self.slots if not slot.is_worker), None)

    @property
    def held_back(self) -> int:
        """Part of `lag` that open transactions keep from every consumer."""
        return sum(slot.held_back for slot in self.slots if not slot.is_worker)

    @property
    def is_healthy(self) -> bool:
        """Return whether every slot runs, no worker waits for a dependency and the service is not
        stopping. A slot that a reload is replacing counts as healthy."""
        return not self.problems()

    def problems(self) -> list[Condition]:
        """Return why the service is not healthy; empty if it is."""
        found = []
        usual = {SlotPhase.RUNNING.value}
        if self.state == "reloading":
            usual |= {SlotPhase.STARTING.value, SlotPhase.STOPPING.value, SlotPhase.EXITED.value}
        others = [slot for slot in self.slots if slot.state not in usual]
        if self.state not in ("running", "reloading"):
            running = len(self.slots) - len(others)
            text = f"the service is {self.state}: {running} of {len(self.slots)} processes run"
            found.append(Condition(text, "AnalyticsDown"))
        found += [
            Condition(
                f"{slot.slot} is in the state {slot.state} (healthy: running), restarts: "
                f"{slot.restarts:,}, last exit code: "
                f"{'none' if slot.last_exit is None else slot.last_exit}",
                "AnalyticsCrashLooping",
            )
            for slot in others
        ]
        if waiting := [slot.slot for slot in self.workers if slot.is_waiting]:
            count = f"{len(waiting):,} (limit 0): {', '.join(waiting)}"
            text = f"workers that wait for a dependency: {count}"
            found.append(Condition(text, "AnalyticsIngestionStalled"))
        return found

    def summary(self) -> str:
        """Return the summary that `systemctl status` shows."""
        up = sum(slot.state == SlotPhase.RUNNING.value for slot in self.workers)
        lag = "" if self.lag is None else f", lag {self.lag:,}"
        if self.held_back:
            lag += f" ({self.held_back:,} held back by an open transaction)"
        waiting = sum(slot.is_waiting for slot in self.workers)
        waiting_part = f", {waiting} waiting for a dependency" if waiting else ""
        reload = f"; {self.last_reload}" if self.last_reload else ""
        return (
            f"{self.state}: {up} of {len(self.workers)} workers up, "
            f"{self.events_per_second:,.0f} events/s{lag}{waiting_part}{reload}"
        )


def build_slot_status(
    state: SlotState,
    record: SlotStatusRecord,
    events_per_second: float,
    memory_bytes: int | None,
    now: float,
    *,
    is_worker: bool,
) -> SlotStatus:
    """Combine the supervisor's view of a slot with the record that its process wrote."""
    is_up = state.pid is not None
    return SlotStatus(
        slot=state.name,
        is_worker=is_worker,
        pid=state.pid,
        state=state.phase.value,
        uptime_seconds=round(now - state.started_at, 1) if is_up else None,
        restarts=state.restarts,
        partitions=record.partitions if is_up else 0,
        events_per_second=round(events_per_second, 1),
        lag=record.lag if is_up else None,
        held_back=record.held_back if is_up else 0,
        last_flush_seconds=_seconds_since(record.flushed_at, now),
        is_waiting=is_up and record.is_waiting,
        last_error=record.error,
        last_error_seconds=_seconds_since(record.error_at, now),
        last_exit=state.last_exit,
        memory_bytes=memory_bytes,
    )


def _seconds_since(moment: float, now: float) -> float | None:
    return round(now - moment, 1) if moment else None


@dataclass(slots=True)
class EventRate:
    """Events per second over the last ten seconds, from a counter that restarts with each process."""

    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def record(self, total: int, now: float) -> None:
        if self._samples and total < self._samples[-1][1]:
            self._samples.clear()
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE_SECONDS:
            self._samples.append((now, total))
        while self._samples[0][0] < now - _WINDOW_SECONDS:
            self._samples.popleft()

    @property
    def per_second(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_at - first_at)
