"""Reload procedure of SIGHUP: read the settings, check them in their own process, roll the slots.

A reload that fails leaves the previous settings in force: invalid settings are rejected before anything
changes; settings with which a process does not start are rolled back slot by slot.
"""

import logging
import signal
from collections.abc import Callable, Sequence

from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.supervisor.posix import System
from octane_analytics.supervisor.process_plan import PlanChange, ProcessPlan, ReadPlanChange
from octane_analytics.supervisor.rolling_restart import RollingRestart, RollOutcome
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.supervisor.slot_state import SlotState
from octane_analytics.supervisor.slots import Slots
from octane_analytics.telemetry.logging import fields

_LOG = logging.getLogger(__name__)
_CHECK_SECONDS = 60.0


class ReloadProcedure:
    """Owns the plan in force. Does not block: each `advance` continues a reload that is under way.

    `is_ready` reports whether systemd has received READY=1 for the start; only then does the end of a
    reload send it again.
    """

    def __init__(
        self,
        system: System,
        slots: Slots,
        notifier: Notifier,
        plan: ProcessPlan,
        read_plan_change: ReadPlanChange | None,
        is_ready: Callable[[], bool],
    ) -> None:
        self._system = system
        self._slots = slots
        self._notifier = notifier
        self._read_plan_change = read_plan_change
        self._is_ready = is_ready
        self.plan = plan
        self.completed = 0
        """Number of successful reloads."""
        self.last_failure = ""
        """Failure of the last reload; empty after a successful one."""
        self._checking: tuple[PlanChange, int, float] | None = None
        """Change under check, pid of the checking process, and its deadline."""
        self._change: PlanChange | None = None
        self._roll: RollingRestart | None = None
        self._previous_plan: ProcessPlan | None = None
        """Plan to which a failed roll returns; None during that return."""

    @property
    def is_under_way(self) -> bool:
        return self._checking is not None or self._roll is not None

    @property
    def is_rolling(self) -> bool:
        return self._roll is not None

    def start(self) -> None:
        """Read the settings and fork their check; a check that is under way is cancelled."""
        if self._read_plan_change is None:
            return
        self._cancel_check()
        self._notifier.reloading(self._system.now())
        try:
            change = self._read_plan_change()
            pid = self._system.fork("check", lambda: self._slots.run_in_child(change.check))
        except (ConfigError, Unavailable) as error:
            self._reject(str(error))
            return
        self._checking = (change, pid, self._system.now() + _CHECK_SECONDS)

    def cancel(self) -> None:
        """Stop replacing processes, because the service stops."""
        self._roll = None
        self._cancel_check()

    def remove_slot(self, state: SlotState) -> None:
        """Forget a slot that was removed."""
        if self._roll is not None:
            self._roll.remove(state)

    def handle_exit(self, pid: int, code: int) -> bool:
        """Act on the exit code of the checking process; return whether the pid was that process."""
        if self._checking is None or pid != self._checking[1]:
            return False
        change, self._checking = self._checking[0], None
        if code == Exit.OK:
            self._start_roll(change)
        else:
            self._reject(f"the preflight failed, see above (exit code {code})")
        return True

    def advance(self, now: float) -> None:
        """Cancel a check that exceeds its deadline, and replace the next process of a roll."""
        if self._checking is not None and now >= self._checking[2]:
            self._cancel_check()
            self._reject("the preflight took too long")
        if self._roll is None:
            return
        outcome, state = self._roll.advance(now, self._slots.has_assignment)
        if state is not None:
            self._slots.stop(self._slots.with_state(state), should_restart=True)
        elif outcome is RollOutcome.DONE:
            seconds, self._roll = now - self._roll.started_at, None
            if self._change is not None:
                self.completed += 1
                self._change.adopt()
            self._previous_plan = self._change = None
            _LOG.info("every process is replaced", extra=fields(seconds=round(seconds, 1)))
            self._notifier.ready()
        elif outcome is RollOutcome.FAILED:
            self._roll_back()

    def _cancel_check(self) -> None:
        if self._checking is not None:
            self._system.kill(self._checking[1], signal.SIGKILL)
            self._checking = None

    def _reject(self, reason: str) -> None:
        self.last_failure = "last reload refused, see the log"
        _LOG.error("new settings refused: the old ones stay", extra=fields(error=reason))
        if not self.is_under_way and self._is_ready():
            self._notifier.ready()

    def _start_roll(self, change: PlanChange) -> None:
        previous, self.plan, self._change = self.plan, change.plan, change
        # A roll that was under way has not proven its settings, so its previous plan is kept.
        self._previous_plan = self._previous_plan or previous
        self._roll = None
        self._slots.apply_plan(self.plan)
        existing = [slot.state for slot in self._slots.in_rolling_order()]
        if previous.procs != self.plan.procs:  # otherwise the number that TTIN and TTOU set stays
            self._slots.resize(self.plan)
        staying = [slot.state for slot in self._slots.in_rolling_order()]
        self._roll_slots([state for state in existing if any(state is other for other in staying)])

    def _roll_slots(self, states: Sequence[SlotState]) -> None:
        self._roll = RollingRestart(states, self._system.now())
        self.last_failure = ""
        _LOG.info("replacing processes one after the other", extra=fields(slots=len(states)))

    def _roll_back(self) -> None:
        """Return every replaced slot to the previous plan, because a process did not start."""
        assert self._roll is not None
        replaced, self._roll = self._roll.replaced, None
        self.last_failure = "last reload failed, see the log"
        if self._previous_plan is None:
            _LOG.error("process did not start with the old settings: rollback stopped")
            self._notifier.ready()
            return
        _LOG.error("process did not start with the new settings: returning to the old ones")
        self.plan, self._previous_plan, self._change = self._previous_plan, None, None
        self._slots.apply_plan(self.plan)
        self._roll = RollingRestart(replaced[::-1], self._system.now())
