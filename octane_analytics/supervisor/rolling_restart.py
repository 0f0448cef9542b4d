"""Which slot is to be given a new process next while all of them are; no input or output.

One slot at a time: its predecessor has ended before its successor starts, and that one works before
the next slot's turn comes. So with static membership each slot's partitions wait for their own
successor, and no other slot hears of it.
"""

from collections.abc import Callable, Sequence
from enum import Enum

from octane_analytics.supervisor.slot_state import SlotPhase, SlotState

SETTLE_SECONDS = 20.0
"""A successor whose loop turns is taken to work after this, assignment or not: there may be no broker
just now, and waiting longer would not bring it back."""
FAILED_STARTS = 3
"""So many starts in a row that come to nothing end the roll."""


class RollOutcome(Enum):
    UNDER_WAY = "under way"
    DONE = "done"
    FAILED = "failed"


class RollingRestart:
    def __init__(self, slots: Sequence[SlotState], now: float) -> None:
        self._left = list(slots)
        self._current: SlotState | None = None
        self.begun_at = now
        self.replaced: list[SlotState] = []
        """Every slot whose turn has come, the current one last."""

    def turn(
        self, now: float, has_work: Callable[[SlotState], bool]
    ) -> tuple[RollOutcome, SlotState | None]:
        """How it stands, and the slot to replace now, if one is.

        `has_work` tells whether the slot's process has been given its assignment.
        """
        if self._current is not None:
            if self._has_failed(self._current):
                return RollOutcome.FAILED, None
            if not self._has_settled(self._current, now, has_work):
                return RollOutcome.UNDER_WAY, None
            self._current = None
        if not self._left:
            return RollOutcome.DONE, None
        self._current = self._left.pop(0)
        self.replaced.append(self._current)
        return RollOutcome.UNDER_WAY, self._current

    def drop(self, slot: SlotState) -> None:
        """The slot is done away with."""
        self._left = [s for s in self._left if s is not slot]
        self.replaced = [s for s in self.replaced if s is not slot]
        if self._current is slot:
            self._current = None

    def _has_failed(self, slot: SlotState) -> bool:
        return slot.state is SlotPhase.FATAL or slot.failed_starts >= FAILED_STARTS

    def _has_settled(
        self, slot: SlotState, now: float, has_work: Callable[[SlotState], bool]
    ) -> bool:
        if slot.state is not SlotPhase.RUNNING:
            return False
        return has_work(slot) or now - slot.since >= SETTLE_SECONDS
