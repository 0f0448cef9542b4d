"""Immutable plan of a replay, kept as JSON in its journal so that a resumed replay follows it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from octane_analytics.types import LogIdentity, OffsetRange


class Mode(StrEnum):
    FILL = "fill"
    APPEND = "append"
    REBUILD = "rebuild"


class Compare(StrEnum):
    """Records of the log that fill compares the table with."""

    LOG = "log"
    """Count an event of the range in the whole log: exact."""
    RANGE = "range"
    """Count it in the range only: faster, but misses a lost event with an equal one elsewhere."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    id: str
    mode: Mode
    compare: Compare
    topic: str
    group: str
    log: LogIdentity
    database: str
    table: str
    is_live: bool
    """True if the workers insert into this table."""
    wanted: Mapping[int, OffsetRange]
    """The range, by partition."""
    reading: Mapping[int, OffsetRange]
    """The offsets to read for it, by partition."""
    months: Sequence[int] = ()
    """Months of a rebuild, as 202611."""

    @property
    def events(self) -> int:
        """Number of offsets in the range, an upper bound of its events."""
        return sum(offsets.end - offsets.first for offsets in self.wanted.values())

    @property
    def to_read(self) -> int:
        """Number of offsets to read."""
        return sum(offsets.end - offsets.first for offsets in self.reading.values())

    def as_json(self) -> str:
        """Return the plan as one JSON object, which `from_json` reads."""
        fields = asdict(self) | {
            "mode": self.mode.value,
            "compare": self.compare.value,
            "log": list(self.log),
            "wanted": {p: [offsets.first, offsets.end] for p, offsets in self.wanted.items()},
            "reading": {p: [offsets.first, offsets.end] for p, offsets in self.reading.items()},
            "months": list(self.months),
        }
        return json.dumps(fields)


def from_json(text: str) -> ReplayPlan:
    """Return the plan that `as_json` wrote."""
    fields = json.loads(text)
    return ReplayPlan(
        **fields
        | {
            "mode": Mode(fields["mode"]),
            "compare": Compare(fields["compare"]),
            "log": LogIdentity(*fields["log"]),
            "wanted": {int(p): OffsetRange(*offsets) for p, offsets in fields["wanted"].items()},
            "reading": {int(p): OffsetRange(*offsets) for p, offsets in fields["reading"].items()},
        }
    )
