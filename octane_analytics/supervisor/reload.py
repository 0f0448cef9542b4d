"""SIGHUP: settings read anew, looked at in a process of their own, and given to slot after slot.

What does not work is taken back: wrong settings before anything has changed, those with which a process
does not start by rolling again, with the ones from before.
"""

import logging
import signal
from collections.abc import Callable, Sequence

from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.supervisor.posix import System
from octane_analytics.supervisor.process_plan import PlanChange, ProcessPlan, Reread
from octane_analytics.supervisor.rolling_restart import RollingRestart, RollOutcome
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.supervisor.slot_state import SlotState
from octane_analytics.supervisor.slots import Slots
from octane_analytics.telemetry.logging import fields

_LOG = logging.getLogger(__name__)
_CHECK_SECONDS = 60.0


class ReloadProcedure:
    """Owns the plan in force. Nothing blocks: what is under way goes on with each `turn`.

    `is_ready` tells whether systemd has been told so before: only then does the end of a reload say it.
    """

    def __init__(
        self,
        system: System,
        places: Slots,
        notifier: Notifier,
        plan: ProcessPlan,
        reread: Reread | None,
        is_ready: Callable[[], bool],
    ) -> None:
        self._system = system
        self._places = places
        self._notifier = notifier
        self._reread = reread
        self._is_ready = is_ready
        self.plan = plan
        self.done = 0
        """Reloads that came to their end."""
        self.last = ""
        """What became of the last one, empty where all is well."""
        self._checking: tuple[PlanChange, int, float] | None = None
        """What a reload would change to, the process that looks at it, and its deadline."""
        self._change: PlanChange | None = None
        self._roll: RollingRestart | None = None
        self._former: ProcessPlan | None = None
        """What a roll that fails goes back to; None while it is just that."""

    @property
    def is_under_way(self) -> bool:
        return self._checking is not None or self._roll is not None

    @property
    def is_rolling(self) -> bool:
        return self._roll is not None

    def begin(self) -> None:
        """Reads the settings; one that is being looked at is forgotten."""
        if self._reread is None:
            return
        self._end_check()
        self._notifier.reloading(self._system.now())
        try:
            change = self._reread()
            pid = self._system.fork("check", lambda: self._places.in_child(change.check))
        except (ConfigError, Unavailable) as error:
            self._refuse(str(error))
            return
        self._checking = (change, pid, self._system.now() + _CHECK_SECONDS)

    def abandon(self) -> None:
        """The service stops: nothing is replaced any more."""
        self._roll = None
        self._end_check()

    def drop(self, slot: SlotState) -> None:
        """The slot is done away with."""
        if self._roll is not None:
            self._roll.drop(slot)

    def has_reaped(self, pid: int, code: int) -> bool:
        """Whether this was the process that looks at new settings; what it found is then acted on."""
        if self._checking is None or pid != self._checking[1]:
            return False
        change, self._checking = self._checking[0], None
        if code == Exit.OK:
            self._take_over(change)
        else:
            self._refuse(f"they do not work, see above (exit code {code})")
        return True

    def turn(self, now: float) -> None:
        """Ends a look that takes too long, and replaces the next process where its turn has come."""
        if self._checking is not None and now >= self._checking[2]:
            self._end_check()
            self._refuse("looking at what they lead to took too long")
        if self._roll is None:
            return
        outcome, slot = self._roll.turn(now, self._places.has_work)
        if slot is not None:
            self._places.stop(self._places.at(slot), then_start=True)
        elif outcome is RollOutcome.DONE:
            seconds, self._roll = now - self._roll.begun_at, None
            if self._change is not None:
                self.done += 1
                self._change.adopt()
            self._former = self._change = None
            _LOG.info("every process is replaced", extra=fields(seconds=round(seconds, 1)))
            self._notifier.ready()
        elif outcome is RollOutcome.FAILED:
            self._fall_back()

    def _end_check(self) -> None:
        if self._checking is not None:
            self._system.kill(self._checking[1], signal.SIGKILL)
            self._checking = None

    def _refuse(self, reason: str) -> None:
        self.last = "last reload refused, see the log"
        _LOG.error("new settings refused: the old ones stay", extra=fields(error=reason))
        if not self.is_under_way and self._is_ready():
            self._notifier.ready()

    def _take_over(self, change: PlanChange) -> None:
        former, self.plan, self._change = self.plan, change.plan, change
        # One that was under way has not shown that its settings work.
        self._former = self._former or former
        self._roll = None
        self._places.replan(self.plan)
        known = [place.slot for place in self._places.in_rolling_order()]
        if former.procs != self.plan.procs:  # else as many stay as TTIN and TTOU have left
            self._places.resize(self.plan)
        staying = [place.slot for place in self._places.in_rolling_order()]
        self._begin_roll([slot for slot in known if any(slot is other for other in staying)])

    def _begin_roll(self, slots: Sequence[SlotState]) -> None:
        self._roll = RollingRestart(slots, self._system.now())
        self.last = ""
        _LOG.info("replacing processes one after the other", extra=fields(slots=len(slots)))

    def _fall_back(self) -> None:
        """A process does not start with the new settings: give the old ones back to all that changed."""
        assert self._roll is not None
        replaced, self._roll = self._roll.replaced, None
        self.last = "last reload failed, see the log"
        if self._former is None:
            _LOG.error("a process does not start with the old settings any more")
            self._notifier.ready()
            return
        _LOG.error("a process does not start with the new settings: back to the old ones")
        self.plan, self._former, self._change = self._former, None, None
        self._places.replan(self.plan)
        self._roll = RollingRestart(replaced[::-1], self._system.now())
