"""The slots with what runs in them: one place for each, and what is done to one process."""

import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from octane_analytics.errors import Unavailable
from octane_analytics.supervisor.control_socket import ControlSocket
from octane_analytics.supervisor.posix import System
from octane_analytics.supervisor.process_plan import ChildProcess, ProcessPlan, Role
from octane_analytics.supervisor.slot_state import SlotPhase, SlotState
from octane_analytics.supervisor.status import EventRate, SlotStatus, slot_status
from octane_analytics.supervisor.status_board import StatusBoard
from octane_analytics.telemetry.logging import fields

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Slot:
    child: ChildProcess
    slot: SlotState
    index: int
    """Of its record on the board."""
    is_leaving: bool = False
    """There is to be no process in it any more once this one has ended."""
    rate: EventRate = field(default_factory=EventRate)


class Slots:
    """In the order of the plan: services first, then workers by number."""

    def __init__(
        self, system: System, board: StatusBoard, plan: ProcessPlan, control: ControlSocket | None
    ) -> None:
        self._system = system
        self._board = board
        self._services = len(plan.services)
        self._places = [
            Slot(child, SlotState(child.name, plan.policy), index)
            for index, child in enumerate([*plan.services, *map(plan.worker, range(plan.procs))])
        ]
        self._control = control
        self._publish_wanted()

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._places)

    def of(self, role: Role) -> list[Slot]:
        return [place for place in self._places if place.child.role is role]

    def at(self, slot: SlotState) -> Slot:
        (place,) = (place for place in self._places if place.slot is slot)
        return place

    def in_rolling_order(self) -> list[Slot]:
        """Those that stay, the workers first."""
        return [p for p in [*self.of(Role.WORKER), *self.of(Role.SERVICE)] if not p.is_leaving]

    def wanted(self) -> int:
        """Workers that stay."""
        return sum(not place.is_leaving for place in self.of(Role.WORKER))

    def _publish_wanted(self) -> None:
        # Those that stay have the lowest numbers: the highest leaves, and the lowest free is taken.
        self._board.workers = self.wanted()

    def replan(self, plan: ProcessPlan) -> None:
        """For the processes that start from now on."""
        for place in self._places:
            place.slot.policy = plan.policy
            place.child = (
                plan.services[place.index]
                if place.child.role is Role.SERVICE
                else plan.worker(place.index - self._services)
            )

    def grow(self, plan: ProcessPlan) -> Slot | None:
        """One worker more: the next one up, or one that was about to leave. None: there is no room."""
        place = self._grow(plan)
        if place is None:
            _LOG.warning("no more workers: all slots there are have one")
        else:
            self._publish_wanted()
            _LOG.info("one worker more", extra=fields(slot=place.slot.name))
        return place

    def _grow(self, plan: ProcessPlan) -> Slot | None:
        there = {place.index: place for place in self._places}
        index = self._services
        while index in there and not there[index].is_leaving:
            index += 1
        if index in there:
            place = there[index]
            place.is_leaving = False
            place.slot.replace(self._system.now())
            return place
        if index >= self._board.capacity:
            return None
        child = plan.worker(index - self._services)
        place = Slot(child, SlotState(child.name, plan.policy), index)
        self._places.append(place)
        self._places.sort(key=lambda p: p.index)
        return place

    def shrink(self) -> Slot | None:
        """The worker with the highest number leaves. None: it is the only one."""
        staying = [place for place in self.of(Role.WORKER) if not place.is_leaving]
        if len(staying) <= 1:
            _LOG.warning("no fewer workers: this is the last one")
            return None
        place = staying[-1]
        place.is_leaving = True
        if place.slot.state is SlotPhase.STOPPING:
            place.slot.stop(self._system.now())
        else:
            self.stop(place)
        if place.slot.pid is None:
            self.drop(place)
        self._publish_wanted()
        _LOG.info("one worker fewer", extra=fields(slot=place.slot.name))
        return place

    def resize(self, plan: ProcessPlan) -> None:
        """As many workers as the plan has, or as there is room for."""
        while self.wanted() < plan.procs and self.grow(plan) is not None:
            pass
        while self.wanted() > plan.procs and self.shrink() is not None:
            pass

    def drop(self, place: Slot) -> None:
        self._places.remove(place)

    def start(self, place: Slot) -> None:
        """Tries again later where the machine has no room for a process."""
        slot, child = place.slot, place.child
        self._board.clear(place.index)
        figures = self._board.writer(place.index)
        now = self._system.now()
        try:
            pid = self._system.fork(slot.name, lambda: self.in_child(lambda: child.run(figures)))
        except Unavailable as error:
            slot.spawn_failed(now)
            _LOG.error("process not started", extra=fields(slot=slot.name, error=str(error)))
            return
        if slot.last_exit is not None:
            slot.restarts += 1
        slot.started(pid, now)
        _LOG.info("process started", extra=fields(slot=slot.name, pid=pid, restarts=slot.restarts))

    def in_child(self, run: Callable[[], int]) -> int:
        """A child has no business with the supervisor's socket."""
        if self._control is not None:
            self._control.close()
        return run()

    def stop(self, place: Slot, *, then_start: bool = False) -> None:
        """Has the process finish what it does."""
        if place.slot.pid is not None and place.slot.state is not SlotPhase.STOPPING:
            self._system.kill(place.slot.pid, signal.SIGTERM)
        (place.slot.replace if then_start else place.slot.stop)(self._system.now())

    def kill(self, place: Slot) -> None:
        if place.slot.pid is not None:
            self._system.kill(place.slot.pid, signal.SIGKILL)
            place.slot.killed()

    def look_after(self, place: Slot, now: float) -> None:
        """Notes that the process lives, and kills one that hangs or is past its deadline."""
        slot, figures = place.slot, self._board.read(place.index)
        if slot.pid is None:
            return
        place.rate.record(figures.events, now)
        if figures.beat_at > slot.started_at:
            slot.heartbeat_seen(now)
        if slot.is_hung(figures.beat_at, now):
            silent_seconds = round(now - max(figures.beat_at, slot.started_at))
            _LOG.error(
                "worker hangs: killing it",
                extra=fields(slot=slot.name, pid=slot.pid, silent_seconds=silent_seconds),
            )
            self.kill(place)
        elif slot.should_be_killed(now):
            _LOG.warning("worker did not finish in time: killing it", extra=fields(slot=slot.name))
            self.kill(place)

    def has_work(self, slot: SlotState) -> bool:
        """Whether the slot's process has been given its assignment, or needs none."""
        place = self.at(slot)
        if place.child.role is Role.SERVICE:
            return True
        return self._board.read(place.index).assigned_at > slot.started_at

    def all_responsive(self, now: float, grace_seconds: float) -> bool:
        return all(
            place.slot.is_responsive(self._board.read(place.index).beat_at, now, grace_seconds)
            for place in self._places
        )

    def status(self, place: Slot, now: float) -> SlotStatus:
        pid = place.slot.pid
        return slot_status(
            place.slot,
            self._board.read(place.index),
            place.rate.per_second if pid is not None else 0.0,
            None if pid is None else self._system.resident_bytes(pid),
            now,
            is_worker=place.child.role is Role.WORKER,
        )
