"""Slots of the supervisor with the processes in them, and the operations on one process."""

import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from octane_analytics.errors import Unavailable
from octane_analytics.supervisor.control_socket import ControlSocket
from octane_analytics.supervisor.posix import System
from octane_analytics.supervisor.process_plan import ChildProcess, ProcessPlan, Role
from octane_analytics.supervisor.slot_state import SlotPhase, SlotState
from octane_analytics.supervisor.status import EventRate, SlotStatus, build_slot_status
from octane_analytics.supervisor.status_board import StatusBoard
from octane_analytics.telemetry.logging import fields

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Slot:
    """Numbered place of a process: its program, its state and its record on the status board."""

    child: ChildProcess
    state: SlotState
    index: int
    """Index of the record on the status board."""
    is_retiring: bool = False
    """The slot is removed once its process has exited."""
    rate: EventRate = field(default_factory=EventRate)


class Slots:
    """All slots in the order of the plan: services first, then workers by number."""

    def __init__(
        self, system: System, board: StatusBoard, plan: ProcessPlan, control: ControlSocket | None
    ) -> None:
        self._system = system
        self._board = board
        self._services = len(plan.services)
        self._slots = [
            Slot(child, SlotState(child.name, plan.policy), index)
            for index, child in enumerate([*plan.services, *map(plan.worker, range(plan.procs))])
        ]
        self._control = control
        self._publish_target()

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def with_role(self, role: Role) -> list[Slot]:
        return [slot for slot in self._slots if slot.child.role is role]

    def with_state(self, state: SlotState) -> Slot:
        (slot,) = (slot for slot in self._slots if slot.state is state)
        return slot

    def in_rolling_order(self) -> list[Slot]:
        """Return the slots that are not retiring, workers first."""
        ordered = [*self.with_role(Role.WORKER), *self.with_role(Role.SERVICE)]
        return [slot for slot in ordered if not slot.is_retiring]

    def target_workers(self) -> int:
        """Return the number of workers that are not retiring."""
        return sum(not slot.is_retiring for slot in self.with_role(Role.WORKER))

    def _publish_target(self) -> None:
        # Remaining workers have the lowest numbers: the highest retires, the lowest free one is added.
        self._board.target_workers = self.target_workers()

    def apply_plan(self, plan: ProcessPlan) -> None:
        """Use the plan for every process that starts from now on."""
        for slot in self._slots:
            slot.state.policy = plan.policy
            slot.child = (
                plan.services[slot.index]
                if slot.child.role is Role.SERVICE
                else plan.worker(slot.index - self._services)
            )

    def add_worker(self, plan: ProcessPlan) -> Slot | None:
        """Add the worker with the next number, or keep one that was retiring.

        Returns None if the status board has no free record.
        """
        slot = self._add_worker(plan)
        if slot is None:
            _LOG.warning("no worker added: all slots are in use")
        else:
            self._publish_target()
            _LOG.info("one worker more", extra=fields(slot=slot.state.name))
        return slot

    def _add_worker(self, plan: ProcessPlan) -> Slot | None:
        by_index = {slot.index: slot for slot in self._slots}
        index = self._services
        while index in by_index and not by_index[index].is_retiring:
            index += 1
        if index in by_index:
            slot = by_index[index]
            slot.is_retiring = False
            slot.state.replace(self._system.now())
            return slot
        if index >= self._board.capacity:
            return None
        child = plan.worker(index - self._services)
        slot = Slot(child, SlotState(child.name, plan.policy), index)
        self._slots.append(slot)
        self._slots.sort(key=lambda other: other.index)
        return slot

    def retire_worker(self) -> Slot | None:
        """Stop the worker with the highest number. Returns None if it is the only one."""
        staying = [slot for slot in self.with_role(Role.WORKER) if not slot.is_retiring]
        if len(staying) <= 1:
            _LOG.warning("no worker stopped: only one is left")
            return None
        slot = staying[-1]
        slot.is_retiring = True
        if slot.state.phase is SlotPhase.STOPPING:
            slot.state.stop(self._system.now())
        else:
            self.stop(slot)
        if slot.state.pid is None:
            self.remove(slot)
        self._publish_target()
        _LOG.info("one worker fewer", extra=fields(slot=slot.state.name))
        return slot

    def resize(self, plan: ProcessPlan) -> None:
        """Add or retire workers up to the plan's number, or up to the status board's capacity."""
        while self.target_workers() < plan.procs and self.add_worker(plan) is not None:
            pass
        while self.target_workers() > plan.procs and self.retire_worker() is not None:
            pass

    def remove(self, slot: Slot) -> None:
        self._slots.remove(slot)

    def start(self, slot: Slot) -> None:
        """Fork the slot's process. A failed fork is retried after the backoff."""
        state, child = slot.state, slot.child
        self._board.clear(slot.index)
        slot_status = self._board.writer(slot.index)
        now = self._system.now()
        try:
            pid = self._system.fork(
                state.name, lambda: self.run_in_child(lambda: child.run(slot_status))
            )
        except Unavailable as error:
            state.spawn_failed(now)
            _LOG.error("process not started", extra=fields(slot=state.name, error=str(error)))
            return
        if state.last_exit is not None:
            state.restarts += 1
        state.started(pid, now)
        _LOG.info(
            "process started", extra=fields(slot=state.name, pid=pid, restarts=state.restarts)
        )

    def run_in_child(self, run: Callable[[], int]) -> int:
        """Close the inherited control socket, then run."""
        if self._control is not None:
            self._control.close()
        return run()

    def stop(self, slot: Slot, *, should_restart: bool = False) -> None:
        """Send SIGTERM, upon which the process drains and exits."""
        state = slot.state
        if state.pid is not None and state.phase is not SlotPhase.STOPPING:
            self._system.kill(state.pid, signal.SIGTERM)
        (state.replace if should_restart else state.stop)(self._system.now())

    def kill(self, slot: Slot) -> None:
        if slot.state.pid is not None:
            self._system.kill(slot.state.pid, signal.SIGKILL)
            slot.state.killed()

    def check(self, slot: Slot, now: float) -> None:
        """Read the slot's heartbeat; kill a process that hangs or has exceeded its drain deadline."""
        state, record = slot.state, self._board.read(slot.index)
        if state.pid is None:
            return
        slot.rate.record(record.events, now)
        if record.heartbeat_at > state.started_at:
            state.heartbeat_seen(now)
        if state.is_hung(record.heartbeat_at, now):
            silent_seconds = round(now - max(record.heartbeat_at, state.started_at))
            _LOG.error(
                "worker hangs: killing it",
                extra=fields(slot=state.name, pid=state.pid, silent_seconds=silent_seconds),
            )
            self.kill(slot)
        elif state.should_be_killed(now):
            _LOG.warning(
                "worker exceeded its drain deadline: killing it", extra=fields(slot=state.name)
            )
            self.kill(slot)

    def has_assignment(self, state: SlotState) -> bool:
        """Return whether the slot's process has received its assignment, or is a service."""
        slot = self.with_state(state)
        if slot.child.role is Role.SERVICE:
            return True
        return self._board.read(slot.index).assigned_at > state.started_at

    def all_responsive(self, now: float, grace_seconds: float) -> bool:
        return all(
            slot.state.is_responsive(self._board.read(slot.index).heartbeat_at, now, grace_seconds)
            for slot in self._slots
        )

    def status(self, slot: Slot, now: float) -> SlotStatus:
        pid = slot.state.pid
        return build_slot_status(
            slot.state,
            self._board.read(slot.index),
            slot.rate.per_second if pid is not None else 0.0,
            None if pid is None else self._system.resident_bytes(pid),
            now,
            is_worker=slot.child.role is Role.WORKER,
        )
