"""The loop that joins the slots' states with the system: starts, reaps, restarts, stops.

TERM, INT   tell every child to finish; a second one kills what is left
QUIT        kill at once
CHLD        reap
"""

import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from octane_analytics.exits import Exit
from octane_analytics.supervisor.states import Policy, Slot, State
from octane_analytics.supervisor.system import Heartbeats, System
from octane_analytics.telemetry.logging import fields

_LOG = logging.getLogger(__name__)
_TURN_SECONDS = 1.0


class Role(Enum):
    WORKER = "worker"
    SERVICE = "service"
    """Outlives the workers on the way down, and does not decide whether the whole has failed."""


@dataclass(frozen=True, slots=True)
class Child:
    """What runs in a slot. `run` is called in the forked process with its heartbeat."""

    name: str
    role: Role
    run: Callable[[Callable[[], None]], int]


class Arbiter:
    """Owns the children from `run`'s start to its end."""

    def __init__(self, system: System, children: Sequence[Child], policy: Policy) -> None:
        self._system = system
        self._children = list(children)
        self._slots = [Slot(child.name, policy) for child in children]
        self._heartbeats = Heartbeats(len(self._children))
        self._stopped_by: int | None = None
        self._code = int(Exit.OK)

    def run(self) -> int:
        """Blocks until every child has ended; answers the exit code for the whole."""
        while True:
            now = self._system.now()
            self._look_after(now)
            if all(slot.pid is None for slot in self._slots) and self._stopped_by is not None:
                return self._code
            number = self._system.wait_signal(self._pause_seconds(now))
            if number is not None:
                self._act(number)

    def _act(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return  # every turn reaps
        name = signal.Signals(number).name
        if number == signal.SIGQUIT or self._stopped_by is not None:
            _LOG.warning("stopping at once", extra=fields(signal=name))
            self._code = 128 + number
            self._stopped_by = number
            self._kill_all()
            return
        _LOG.info("stopping: workers finish what they have read", extra=fields(signal=name))
        self._stop(number)

    def _stop(self, number: int) -> None:
        self._stopped_by = number
        self._stop_role(Role.WORKER)

    def _stop_role(self, role: Role) -> None:
        now = self._system.now()
        for child, slot in zip(self._children, self._slots, strict=True):
            if child.role is role and slot.state not in (State.STOPPING, State.EXITED):
                if slot.pid is not None:
                    self._system.kill(slot.pid, signal.SIGTERM)
                slot.stop(now)

    def _kill_all(self) -> None:
        now = self._system.now()
        for slot in self._slots:
            if slot.pid is not None:
                self._system.kill(slot.pid, signal.SIGKILL)
            slot.stop(now)

    def _look_after(self, now: float) -> None:
        self._reap(now)
        if self._stopped_by is not None and self._are_workers_gone():
            self._stop_role(Role.SERVICE)
        for index, slot in enumerate(self._slots):
            self._look_after_slot(index, slot, now)
        workers = [
            s for c, s in zip(self._children, self._slots, strict=True) if c.role is Role.WORKER
        ]
        if self._stopped_by is None and all(s.state is State.FATAL for s in workers):
            codes = {slot.last_exit for slot in workers}
            self._code = int(Exit.CONFIG if codes == {Exit.CONFIG} else Exit.UNAVAILABLE)
            _LOG.error("no worker can start: giving up", extra=fields(exit_code=self._code))
            self._stop(signal.SIGTERM)

    def _look_after_slot(self, index: int, slot: Slot, now: float) -> None:
        if self._stopped_by is None and slot.should_start(now):
            self._start(index, slot, now)
        if slot.pid is None:
            return
        last_heard_at = self._heartbeats.last(index)
        if last_heard_at > slot.started_at:
            slot.heard(now)
        if slot.is_hung(last_heard_at, now):
            _LOG.error(
                "worker hangs: killing it",
                extra=fields(
                    slot=slot.name, pid=slot.pid, silent_seconds=round(now - last_heard_at)
                ),
            )
            self._system.kill(slot.pid, signal.SIGKILL)
        elif slot.should_be_killed(now):
            _LOG.warning("worker did not finish in time: killing it", extra=fields(slot=slot.name))
            self._system.kill(slot.pid, signal.SIGKILL)
            slot.wake_at = None

    def _start(self, index: int, slot: Slot, now: float) -> None:
        child, heartbeats, system = self._children[index], self._heartbeats, self._system
        if slot.last_exit is not None:
            slot.restarts += 1
        pid = system.fork(lambda: child.run(lambda: heartbeats.beat(index, system.now())))
        slot.started(pid, now)
        _LOG.info("process started", extra=fields(slot=slot.name, pid=pid, restarts=slot.restarts))

    def _reap(self, now: float) -> None:
        for pid, code in self._system.reap():
            for slot in self._slots:
                if slot.pid == pid:
                    slot.exited(code, now)
                    self._log_exit(slot, pid, code, now)

    def _log_exit(self, slot: Slot, pid: int, code: int, now: float) -> None:
        told = signal.Signals(-code).name if code < 0 else code
        if slot.state is State.EXITED:
            _LOG.info("process ended", extra=fields(slot=slot.name, pid=pid, exit=told))
        elif slot.state is State.FATAL:
            _LOG.error("process ended for good", extra=fields(slot=slot.name, pid=pid, exit=told))
        else:
            seconds = round((slot.wake_at or now) - now, 2)
            _LOG.warning(
                "process ended: replacing it",
                extra=fields(slot=slot.name, pid=pid, exit=told, in_seconds=seconds),
            )

    def _are_workers_gone(self) -> bool:
        return all(
            slot.pid is None
            for child, slot in zip(self._children, self._slots, strict=True)
            if child.role is Role.WORKER
        )

    def _pause_seconds(self, now: float) -> float:
        waits = [slot.wake_at - now for slot in self._slots if slot.wake_at is not None]
        return min([_TURN_SECONDS, *waits])
