"""What a replay is to do, as a value that can be kept: whoever resumes it does exactly that."""

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
    """With what fill compares the table."""

    LOG = "log"
    """An event of the range is counted in all that Kafka holds: exact."""
    RANGE = "range"
    """It is counted in the range only: quicker, and blind for a lost one with an equal elsewhere."""


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
    """Whether the workers insert into this table themselves."""
    wanted: Mapping[int, OffsetRange]
    """The range, by partition."""
    reading: Mapping[int, OffsetRange]
    """What has to be read for it."""
    months: Sequence[int] = ()
    """Of a rebuild: as 202611."""

    @property
    def events(self) -> int:
        """Offsets in the range: as many events at most."""
        return sum(span.end - span.first for span in self.wanted.values())

    @property
    def to_read(self) -> int:
        return sum(span.end - span.first for span in self.reading.values())

    def as_json(self) -> str:
        fields = asdict(self) | {
            "mode": self.mode.value,
            "compare": self.compare.value,
            "log": list(self.log),
            "wanted": {p: [span.first, span.end] for p, span in self.wanted.items()},
            "reading": {p: [span.first, span.end] for p, span in self.reading.items()},
            "months": list(self.months),
        }
        return json.dumps(fields)


def from_json(text: str) -> ReplayPlan:
    fields = json.loads(text)
    return ReplayPlan(
        **fields
        | {
            "mode": Mode(fields["mode"]),
            "compare": Compare(fields["compare"]),
            "log": LogIdentity(*fields["log"]),
            "wanted": {int(p): OffsetRange(*span) for p, span in fields["wanted"].items()},
            "reading": {int(p): OffsetRange(*span) for p, span in fields["reading"].items()},
        }
    )
