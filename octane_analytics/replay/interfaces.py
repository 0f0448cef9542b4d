"""What a replay needs of Kafka and ClickHouse, as Protocols, and the values that pass through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from octane_analytics.events.event import Columns
from octane_analytics.events.packed_columns import new_columns
from octane_analytics.types import Committed, OffsetRange, Polled


class ReplayLog(Protocol):
    """The topic from outside. All block, and raise Unavailable."""

    def partitions(self) -> list[int]: ...
    def held(self, partitions: Sequence[int]) -> Mapping[int, OffsetRange]: ...
    def committed(self, partitions: Sequence[int]) -> Mapping[int, Committed]: ...
    def begin(self, spans: Mapping[int, OffsetRange]) -> None: ...
    def poll(self, max_records: int, timeout_seconds: float) -> Polled: ...
    @property
    def is_done(self) -> bool: ...


@dataclass(slots=True)
class Staged:
    """Records on their way into the staging table: the columns of Row, and whence each came."""

    columns: Columns = field(default_factory=new_columns)
    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    is_wanted: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    """Why records are no events, by their place in the columns; the others are events."""
    payload_bytes: int = 0

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the range, each record counted once."""

    read: int = 0
    valid: int = 0
    expired: int = 0
    """Valid ones that the target's TTL would remove at once: they are left alone."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Records that are no events, by reason."""
    first_epoch: int | None = None
    """Of the events' own timestamps; None where there is no event."""
    last_epoch: int | None = None


class StagedSlice(NamedTuple):
    """Event times `[first, end)`, epoch seconds, with a bounded number of staged rows."""

    number: int
    first: int
    end: int


class StagedChunk(NamedTuple):
    """Rows `[first, last]` of what a pass found lacking in a slice."""

    number: int
    """Of the pass."""
    slice: int
    first: int
    last: int


class JournalEntry(NamedTuple):
    age_seconds: float
    kind: str
    body: str


class StagingStore(Protocol):
    """The staging tables of one replay, and the target beside them.

    All block; they raise Unavailable, and StatementRejected for what the server says of a statement.
    Staging is a set of (partition, offset): staging a record twice changes nothing.
    """

    def journal(self, kind: str, body: str) -> None: ...
    def journal_entries(self) -> Sequence[JournalEntry]: ...
    def stage(self, staged: Staged) -> None: ...
    def positions(self) -> Mapping[int, int]:
        """The offset behind the last one staged, by partition."""
        ...

    def sync(self) -> None:
        """Waits until this server has what the target's other replicas have."""
        ...

    def counts(self) -> Counts: ...
    def slices(self) -> Sequence[StagedSlice]: ...
    def find_missing(
        self, number: int, part: StagedSlice, limits: Mapping[int, int] | None, after: int | None
    ) -> None:
        """Notes as pass `number` what the target lacks of the slice.

        Counted are staged events before `limits`, by partition; those of the range alone where that
        is None. Only those in question are looked at: of the range, or those that pass `after` left
        undecided.
        """
        ...

    def take_all(self, number: int, part: StagedSlice) -> None:
        """Notes as pass `number` every event of the range in the slice, once."""
        ...

    def mark_undecided(
        self,
        number: int,
        after: int | None,
        limits: Mapping[int, int],
        ends: Mapping[int, int],
    ) -> int:
        """Notes which of the events in question also stand between limits and ends; how many."""
        ...

    def chunks(self, number: int) -> Sequence[StagedChunk]: ...
    def rows(self, chunk: StagedChunk) -> Sequence[Sequence[object]]:
        """The columns of Row."""
        ...

    def missing_rows(self, number: int) -> int:
        """How many rows pass `number` found lacking."""
        ...

    def insert(self, columns: Sequence[Sequence[object]], token: str) -> None:
        """Into the target; as `types.Sink`."""
        ...
