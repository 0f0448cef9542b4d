"""Counts of a replay, for its output and for the last entry of its journal."""

import json
from dataclasses import asdict, dataclass, field
from typing import Self

from octane_analytics.replay.interfaces import Counts
from octane_analytics.replay.plan import Mode, ReplayPlan


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Counts of a replay."""

    plan: ReplayPlan
    is_dry: bool
    counts: Counts = field(default_factory=Counts)
    inserted: int = 0
    refused: int = 0
    refusal: str = ""
    undecided: int = 0
    read_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def already_present(self) -> int:
        """Number of valid events that were in the table before; 0 unless the mode is fill."""
        if self.plan.mode is not Mode.FILL:
            return 0
        present = self.counts.valid - self.counts.expired - self.inserted - self.refused
        return max(0, present)

    def as_json(self) -> str:
        """Return everything except the plan, for the journal."""
        fields = asdict(self)
        del fields["plan"]
        return json.dumps(fields)

    @classmethod
    def from_json(cls, plan: ReplayPlan, body: str) -> Self:
        """Return the report of a journal entry."""
        fields = json.loads(body)
        return cls(plan, **fields | {"counts": Counts(**fields["counts"])})
