"""The loop that joins the slots' states with the system: starts, reaps, restarts, rolls, stops.

TERM, INT   tell every child to finish; a second one kills what is left
QUIT        kill at once
HUP         read the settings anew and replace the processes, one after the other
TTIN, TTOU  one worker more or fewer
USR1        say in the log how every slot does
CHLD        reap
"""

import json
import logging
import signal
from collections.abc import Callable
from dataclasses import asdict

from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.supervisor.control_socket import ControlSocket
from octane_analytics.supervisor.exit_causes import cause_of, exit_where_none_starts, format_exit
from octane_analytics.supervisor.posix import System
from octane_analytics.supervisor.process_plan import ProcessPlan, Reread, Role
from octane_analytics.supervisor.reload import ReloadProcedure
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.supervisor.slot_state import SlotPhase
from octane_analytics.supervisor.slots import Slot, Slots
from octane_analytics.supervisor.status import ServiceStatus
from octane_analytics.supervisor.status_board import StatusBoard
from octane_analytics.telemetry.logging import fields

_LOG = logging.getLogger(__name__)
_TURN_SECONDS = 1.0
_ROLL_TURN_SECONDS = 0.1
"""That a successor has its assignment comes with no signal."""
_GRACE_SECONDS = 10.0
"""So long after a deadline the supervisor must have acted on it, or systemd acts on the supervisor."""


class Supervisor:
    """Owns the children from `run`'s start to its end. Keeps to one thread and no client."""

    def __init__(
        self,
        system: System,
        plan: ProcessPlan,
        board: StatusBoard,
        *,
        notifier: Notifier,
        control: ControlSocket | None = None,
        reread: Reread | None = None,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        """`on_end` hears the cause, one of `ends.CAUSES`, of every slot's process that ended unasked."""
        self._system = system
        self._notifier = notifier
        self._control = control
        self._on_end = on_end
        self._places = Slots(system, board, plan, control)
        self._reload = ReloadProcedure(
            system, self._places, notifier, plan, reread, lambda: self._is_ready
        )
        self._stopped_by: int | None = None
        self._code = int(Exit.OK)
        self._gave_up = ""
        """Why; `systemctl status` shows it once all is over."""
        self._begun_at = system.now()
        self._is_ready = False
        self._alive_at: float | None = None

    def run(self) -> int:
        """Blocks until every child has ended; answers the exit code for the whole."""
        while True:
            now = self._system.now()
            self._look_after(now)
            self._tell(now)
            if self._stopped_by is not None and self._are_all_gone():
                return self._code
            wanted = self._control.descriptors() if self._control else []
            number = self._system.wait_signal(self._pause_seconds(now), wanted)
            if number is not None:
                self._act(number)
            if self._control is not None:
                self._control.turn(self._system.now(), self._answer)

    def status(self) -> ServiceStatus:
        now = self._system.now()
        return ServiceStatus(
            pid=self._system.pid(),
            state=self._state(),
            uptime_seconds=round(now - self._begun_at, 1),
            slots=[self._places.status(place, now) for place in self._places],
            reloads=self._reload.done,
            last_reload=self._reload.last,
        )

    def _state(self) -> str:
        if self._stopped_by is not None:
            return "stopping"
        if not self._is_ready:
            return "starting"
        return "reloading" if self._reload.is_under_way else "running"

    def _answer(self) -> str:
        status = self.status()
        whole = asdict(status) | {
            "is_healthy": status.is_healthy,
            "events_per_second": round(status.events_per_second, 1),
            "lag": status.lag,
            "held_back": status.held_back,
        }
        return json.dumps(whole)

    def _act(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return  # every turn reaps
        name = signal.Signals(number).name
        if number == signal.SIGUSR1:
            self._dump()
        elif number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            if self._stopped_by is not None:
                _LOG.warning("signal comes too late: stopping", extra=fields(signal=name))
            elif number == signal.SIGHUP:
                self._reload.begin()
            else:
                self._grow() if number == signal.SIGTTIN else self._shrink()
        elif number == signal.SIGQUIT or self._stopped_by is not None:
            _LOG.warning("stopping at once", extra=fields(signal=name))
            self._notifier.stopping()
            self._code = 128 + number
            self._stopped_by = number
            self._kill_all()
        else:
            _LOG.info("stopping: workers finish what they have read", extra=fields(signal=name))
            self._stop(number)

    def _dump(self) -> None:
        status = self.status()
        _LOG.info("status", extra=fields(is_healthy=status.is_healthy, told=status.line()))
        for slot in status.slots:
            _LOG.info("status of a slot", extra=fields(**asdict(slot)))

    # Stopping

    def _stop(self, number: int) -> None:
        self._notifier.stopping()
        self._stopped_by = number
        self._reload.abandon()
        self._stop_role(Role.WORKER)

    def _stop_role(self, role: Role) -> None:
        for place in self._places.of(role):
            if place.slot.state is SlotPhase.STOPPING:
                place.slot.stop(self._system.now())  # no successor any more
            elif place.slot.state is not SlotPhase.EXITED or place.slot.last_exit is None:
                self._places.stop(place)

    def _kill_all(self) -> None:
        self._reload.abandon()
        for place in self._places:
            place.slot.stop(self._system.now())
            self._places.kill(place)

    def _are_all_gone(self) -> bool:
        return all(place.slot.pid is None for place in self._places)

    # More and fewer

    def _grow(self) -> None:
        self._places.grow(self._reload.plan)

    def _shrink(self) -> None:
        place = self._places.shrink()
        if place is not None:
            self._reload.drop(place.slot)

    # Every turn

    def _look_after(self, now: float) -> None:
        self._reap(now)
        if self._stopped_by is None:
            self._reload.turn(now)
        elif all(place.slot.pid is None for place in self._places.of(Role.WORKER)):
            self._stop_role(Role.SERVICE)
        for place in list(self._places):
            if self._stopped_by is None and place.slot.should_start(now):
                self._places.start(place)
            self._places.look_after(place, now)
        if self._stopped_by is None and not self._reload.is_rolling:  # that may yet go back
            self._give_up_if_none_starts()

    def _give_up_if_none_starts(self) -> None:
        slots = [place.slot for place in self._places.of(Role.WORKER)]
        if not all(slot.state is SlotPhase.FATAL for slot in slots):
            return
        self._code = int(exit_where_none_starts([slot.last_exit for slot in slots]))
        ends = ", ".join(
            f"{slot.name} with {format_exit(slot.last_exit)}"
            for slot in slots
            if slot.last_exit is not None
        )
        self._gave_up = f"gave up: no worker can start, the last ends: {ends}"
        _LOG.error("no worker can start: giving up", extra=fields(exit_code=self._code, ends=ends))
        self._stop(signal.SIGTERM)

    def _reap(self, now: float) -> None:
        for pid, code in self._system.reap():
            if self._reload.has_reaped(pid, code):
                continue
            for place in list(self._places):
                if place.slot.pid == pid:
                    cause = cause_of(code, is_killed=place.slot.is_killed)
                    if cause is not None and self._on_end is not None:
                        self._on_end(cause)
                    place.slot.exited(code, now)
                    _log_exit(place, pid, code, now)
                    if place.is_leaving:
                        self._places.drop(place)

    def _tell(self, now: float) -> None:
        workers = [place.slot.state for place in self._places.of(Role.WORKER)]
        if (
            not self._is_ready
            and self._stopped_by is None
            and SlotPhase.RUNNING in workers
            and all(state in (SlotPhase.RUNNING, SlotPhase.FATAL) for state in workers)
        ):
            self._is_ready = True
            self._notifier.ready()
        if self._notifier.is_heard:
            self._notifier.status(self._gave_up or self.status().line())
        watchdog_seconds = self._notifier.watchdog_seconds
        if watchdog_seconds is None:
            return
        is_due = self._alive_at is None or now - self._alive_at >= watchdog_seconds / 4
        if is_due and self._places.all_responsive(now, _GRACE_SECONDS):
            self._alive_at = now
            self._notifier.alive()

    def _pause_seconds(self, now: float) -> float:
        waits = [p.slot.wake_at - now for p in self._places if p.slot.wake_at is not None]
        turn_seconds = _ROLL_TURN_SECONDS if self._reload.is_rolling else _TURN_SECONDS
        return min([turn_seconds, *waits])


def _log_exit(place: Slot, pid: int, code: int, now: float) -> None:
    slot = place.slot
    facts = {"slot": slot.name, "pid": pid, "exit": format_exit(code)}
    if slot.state is SlotPhase.EXITED:
        _LOG.info("process ended", extra=fields(**facts))
    elif slot.state is SlotPhase.FATAL:
        _LOG.error("process ended for good", extra=fields(**facts))
    else:
        seconds = round((slot.wake_at or now) - now, 2)
        _LOG.warning("process ended: replacing it", extra=fields(**facts, in_seconds=seconds))
