"""Order of a rolling restart: selects the next slot to replace; performs no input or output.

Slots are replaced one at a time: the old process exits before its successor starts, and the successor
has its assignment before the next slot follows. With static membership each slot's partitions wait for
their own successor, and the other members see no rebalance.
"""

from collections.abc import Callable, Sequence
from enum import Enum

from octane_analytics.supervisor.slot_state import SlotPhase, SlotState

SETTLE_SECONDS = 20.0
"""Time in RUNNING after which a successor counts as replaced even without an assignment: the broker may
be unavailable, and waiting longer would not bring it back."""
FAILED_STARTS = 3
"""Consecutive failed starts of one successor that end the restart."""


class RollOutcome(Enum):
    UNDER_WAY = "under way"
    DONE = "done"
    FAILED = "failed"


class RollingRestart:
    def __init__(self, slots: Sequence[SlotState], now: float) -> None:
        self._remaining = list(slots)
        self._current: SlotState | None = None
        self.started_at = now
        self.replaced: list[SlotState] = []
        """Slots whose replacement has begun, the current one last."""

    def advance(
        self, now: float, has_assignment: Callable[[SlotState], bool]
    ) -> tuple[RollOutcome, SlotState | None]:
        """Return the outcome so far and the slot to replace now, if any.

        `has_assignment` reports whether the slot's process has received its assignment.
        """
        if self._current is not None:
            if self._has_failed(self._current):
                return RollOutcome.FAILED, None
            if not self._has_settled(self._current, now, has_assignment):
                return RollOutcome.UNDER_WAY, None
            self._current = None
        if not self._remaining:
            return RollOutcome.DONE, None
        self._current = self._remaining.pop(0)
        self.replaced.append(self._current)
        return RollOutcome.UNDER_WAY, self._current

    def remove(self, slot: SlotState) -> None:
        """Forget a slot that was removed from the plan."""
        self._remaining = [s for s in self._remaining if s is not slot]
        self.replaced = [s for s in self.replaced if s is not slot]
        if self._current is slot:
            self._current = None

    def _has_failed(self, slot: SlotState) -> bool:
        return slot.phase is SlotPhase.FATAL or slot.failed_starts >= FAILED_STARTS

    def _has_settled(
        self, slot: SlotState, now: float, has_assignment: Callable[[SlotState], bool]
    ) -> bool:
        if slot.phase is not SlotPhase.RUNNING:
            return False
        return has_assignment(slot) or now - slot.phase_since >= SETTLE_SECONDS
