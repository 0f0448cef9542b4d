"""Main loop of the supervisor: starts, reaps, restarts, rolls and stops the processes of the slots.

TERM, INT   stop: every child drains; a second one kills the remaining children
QUIT        kill all children at once
HUP         read the settings again and replace the processes one after the other
TTIN, TTOU  add or remove one worker
USR1        write the status of every slot to the log
CHLD        reap
"""

import json
import logging
import signal
from collections.abc import Callable
from dataclasses import asdict

from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.supervisor.control_socket import ControlSocket
from octane_analytics.supervisor.exit_causes import (
    exit_cause,
    exit_code_without_workers,
    format_exit,
)
from octane_analytics.supervisor.posix import System
from octane_analytics.supervisor.process_plan import ProcessPlan, ReadPlanChange, Role
from octane_analytics.supervisor.reload import ReloadProcedure
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.supervisor.slot_state import SlotPhase
from octane_analytics.supervisor.slots import Slot, Slots
from octane_analytics.supervisor.status import ServiceStatus
from octane_analytics.supervisor.status_board import StatusBoard
from octane_analytics.telemetry.logging import fields

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
_ROLL_POLL_SECONDS = 0.1
"""Poll interval during a roll: no signal announces that a successor has its assignment."""
_GRACE_SECONDS = 10.0
"""Time after a deadline in which the supervisor must have acted; later it stops its watchdog pings and
systemd kills it."""


class Supervisor:
    """Owns the children for the duration of `run`. Has one thread and no client."""

    def __init__(
        self,
        system: System,
        plan: ProcessPlan,
        board: StatusBoard,
        *,
        notifier: Notifier,
        control: ControlSocket | None = None,
        read_plan_change: ReadPlanChange | None = None,
        on_unexpected_exit: Callable[[str], None] | None = None,
    ) -> None:
        """`on_unexpected_exit` receives the cause, one of `exit_causes.CAUSES`."""
        self._system = system
        self._notifier = notifier
        self._control = control
        self._on_unexpected_exit = on_unexpected_exit
        self._slots = Slots(system, board, plan, control)
        self._reload = ReloadProcedure(
            system, self._slots, notifier, plan, read_plan_change, lambda: self._is_ready
        )
        self._stop_signal: int | None = None
        self._exit_code = int(Exit.OK)
        self._give_up_reason = ""
        """Last line for `systemctl status` if no worker could be started."""
        self._started_at = system.now()
        self._is_ready = False
        self._last_ping_at: float | None = None

    def run(self) -> int:
        """Block until every child has exited; return the exit code of the service."""
        while True:
            now = self._system.now()
            self._update_slots(now)
            self._notify_systemd(now)
            if self._stop_signal is not None and self._have_all_exited():
                return self._exit_code
            descriptors = self._control.descriptors() if self._control else []
            number = self._system.wait_signal(self._wait_seconds(now), descriptors)
            if number is not None:
                self._handle_signal(number)
            if self._control is not None:
                self._control.serve_clients(self._system.now(), self._status_json)

    def status(self) -> ServiceStatus:
        now = self._system.now()
        return ServiceStatus(
            pid=self._system.pid(),
            state=self._service_state(),
            uptime_seconds=round(now - self._started_at, 1),
            slots=[self._slots.status(slot, now) for slot in self._slots],
            reloads=self._reload.completed,
            last_reload=self._reload.last_failure,
            note=self._reload.plan.note,
        )

    def _service_state(self) -> str:
        if self._stop_signal is not None:
            return "stopping"
        if not self._is_ready:
            return "starting"
        return "reloading" if self._reload.is_under_way else "running"

    def _status_json(self) -> str:
        status = self.status()
        payload = asdict(status) | {
            "is_healthy": status.is_healthy,
            "problems": [asdict(each) for each in status.problems()],
            "events_per_second": round(status.events_per_second, 1),
            "lag": status.lag,
            "held_back": status.held_back,
        }
        return json.dumps(payload)

    def _handle_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return  # every iteration reaps
        name = signal.Signals(number).name
        if number == signal.SIGUSR1:
            self._log_status()
        elif number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            if self._stop_signal is not None:
                _LOG.warning("signal ignored: the service is stopping", extra=fields(signal=name))
            elif number == signal.SIGHUP:
                self._reload.start()
            elif number == signal.SIGTTIN:
                self._slots.add_worker(self._reload.plan)
            else:
                self._retire_worker()
        elif number == signal.SIGQUIT or self._stop_signal is not None:
            _LOG.warning("stopping at once", extra=fields(signal=name))
            self._notifier.stopping()
            self._exit_code = 128 + number
            self._stop_signal = number
            self._kill_all()
        else:
            _LOG.info("stopping: workers finish what they have read", extra=fields(signal=name))
            self._stop(number)

    def _log_status(self) -> None:
        status = self.status()
        _LOG.info("status", extra=fields(is_healthy=status.is_healthy, summary=status.summary()))
        for slot_status in status.slots:
            _LOG.info("status of a slot", extra=fields(**asdict(slot_status)))

    def _retire_worker(self) -> None:
        slot = self._slots.retire_worker()
        if slot is not None:
            self._reload.remove_slot(slot.state)

    # Stopping

    def _stop(self, number: int) -> None:
        self._notifier.stopping()
        self._stop_signal = number
        self._reload.cancel()
        self._stop_role(Role.WORKER)

    def _stop_role(self, role: Role) -> None:
        for slot in self._slots.with_role(role):
            if slot.state.phase is SlotPhase.STOPPING:
                slot.state.stop(self._system.now())  # cancels the start of a successor
            elif slot.state.phase is not SlotPhase.EXITED or slot.state.last_exit is None:
                self._slots.stop(slot)

    def _kill_all(self) -> None:
        self._reload.cancel()
        for slot in self._slots:
            slot.state.stop(self._system.now())
            self._slots.kill(slot)

    def _have_all_exited(self) -> bool:
        return all(slot.state.pid is None for slot in self._slots)

    # Every iteration

    def _update_slots(self, now: float) -> None:
        self._reap(now)
        if self._stop_signal is None:
            self._reload.advance(now)
        elif all(slot.state.pid is None for slot in self._slots.with_role(Role.WORKER)):
            self._stop_role(Role.SERVICE)
        for slot in list(self._slots):
            if self._stop_signal is None and slot.state.should_start(now):
                self._slots.start(slot)
            self._slots.check(slot, now)
        if self._stop_signal is None and not self._reload.is_rolling:  # a roll may be rolled back
            self._give_up_without_workers()

    def _give_up_without_workers(self) -> None:
        states = [slot.state for slot in self._slots.with_role(Role.WORKER)]
        if not all(state.phase is SlotPhase.FATAL for state in states):
            return
        self._exit_code = int(exit_code_without_workers([state.last_exit for state in states]))
        ends = ", ".join(
            f"{state.name} with {format_exit(state.last_exit)}"
            for state in states
            if state.last_exit is not None
        )
        self._give_up_reason = f"gave up: no worker can start, last exits: {ends}"
        _LOG.error(
            "no worker can start: giving up", extra=fields(exit_code=self._exit_code, ends=ends)
        )
        self._stop(signal.SIGTERM)

    def _reap(self, now: float) -> None:
        for pid, code in self._system.reap():
            if self._reload.handle_exit(pid, code):
                continue
            for slot in list(self._slots):
                if slot.state.pid == pid:
                    cause = exit_cause(code, is_killed=slot.state.is_killed)
                    if cause is not None and self._on_unexpected_exit is not None:
                        self._on_unexpected_exit(cause)
                    slot.state.exited(code, now)
                    _log_exit(slot, pid, code, now)
                    if slot.is_retiring:
                        self._slots.remove(slot)

    def _notify_systemd(self, now: float) -> None:
        phases = [slot.state.phase for slot in self._slots.with_role(Role.WORKER)]
        if (
            not self._is_ready
            and self._stop_signal is None
            and SlotPhase.RUNNING in phases
            and all(phase in (SlotPhase.RUNNING, SlotPhase.FATAL) for phase in phases)
        ):
            self._is_ready = True
            self._notifier.ready()
        if self._notifier.is_enabled:
            self._notifier.status(self._give_up_reason or self.status().summary())
        watchdog_seconds = self._notifier.watchdog_seconds
        if watchdog_seconds is None:
            return
        is_due = self._last_ping_at is None or now - self._last_ping_at >= watchdog_seconds / 4
        if is_due and self._slots.all_responsive(now, _GRACE_SECONDS):
            self._last_ping_at = now
            self._notifier.ping_watchdog()

    def _wait_seconds(self, now: float) -> float:
        deadlines = [s.state.wake_at - now for s in self._slots if s.state.wake_at is not None]
        poll_seconds = _ROLL_POLL_SECONDS if self._reload.is_rolling else _POLL_SECONDS
        return min([poll_seconds, *deadlines])


def _log_exit(slot: Slot, pid: int, code: int, now: float) -> None:
    state = slot.state
    facts = {"slot": state.name, "pid": pid, "exit": format_exit(code)}
    if state.phase is SlotPhase.EXITED:
        _LOG.info("process ended", extra=fields(**facts))
    elif state.phase is SlotPhase.FATAL:
        _LOG.error("process ended: not replaced", extra=fields(**facts))
    else:
        seconds = round((state.wake_at or now) - now, 2)
        _LOG.warning("process ended: replacing it", extra=fields(**facts, in_seconds=seconds))
