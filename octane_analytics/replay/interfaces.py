"""Protocols of Kafka and ClickHouse for a replay, and the values that pass through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from octane_analytics.events.event import Columns
from octane_analytics.events.packed_columns import new_columns
from octane_analytics.types import Committed, OffsetRange, Polled


class ReplayLog(Protocol):
    """Read-only access to the topic. All methods block and raise Unavailable."""

    @property
    def topic(self) -> str: ...
    def partitions(self) -> list[int]: ...
    def retained_ranges(self, partitions: Sequence[int]) -> Mapping[int, OffsetRange]: ...
    def committed(self, partitions: Sequence[int]) -> Mapping[int, Committed]: ...
    def start_reading(self, ranges: Mapping[int, OffsetRange]) -> None: ...
    def poll(self, max_records: int, timeout_seconds: float) -> Polled: ...
    @property
    def is_done(self) -> bool: ...


@dataclass(slots=True)
class Staged:
    """Records for the staging table: the columns of Row, and the source of each record."""

    columns: Columns = field(default_factory=new_columns)
    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    is_wanted: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    """Reasons of invalid records, by their index in the columns."""
    payload_bytes: int = 0

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the records of the range; each record is counted once."""

    read: int = 0
    valid: int = 0
    expired: int = 0
    """Valid events that the target's TTL would remove at once; they are not inserted."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Number of invalid records, by reason."""
    first_epoch: int | None = None
    """Earliest timestamp of an event in epoch seconds; None without events."""
    last_epoch: int | None = None


class StagedSlice(NamedTuple):
    """Event times `[first, end)`, epoch seconds, with a bounded number of staged rows."""

    number: int
    first: int
    end: int


class StagedChunk(NamedTuple):
    """Rows `[first, last]` of those that a pass found missing in a slice."""

    number: int
    """Number of the pass."""
    slice: int
    first: int
    last: int


class JournalEntry(NamedTuple):
    age_seconds: float
    kind: str
    body: str


class StagingStore(Protocol):
    """The staging tables of one replay, and the target beside them.

    All methods block, raise Unavailable, and raise StatementRejected if the server rejects a statement.
    Staging is a set of (partition, offset): staging a record twice changes nothing.
    """

    def journal(self, kind: str, body: str) -> None: ...
    def journal_entries(self) -> Sequence[JournalEntry]: ...
    def stage(self, staged: Staged) -> None: ...
    def positions(self) -> Mapping[int, int]:
        """Return the offset after the last staged one, by partition."""
        ...

    def sync(self) -> None:
        """Block until this server has the rows of the target's other replicas."""
        ...

    def counts(self) -> Counts: ...
    def slices(self) -> Sequence[StagedSlice]: ...
    def find_missing(
        self, number: int, part: StagedSlice, limits: Mapping[int, int] | None, after: int | None
    ) -> None:
        """Write the rows that the target is missing in the slice, as pass `number`.

        Staged events before `limits` (by partition) are counted, only those of the range if it is None.
        The pass covers the events of the range, or only those that pass `after` left undecided.
        """
        ...

    def select_all(self, number: int, part: StagedSlice) -> None:
        """Write every event of the range in the slice once, as pass `number`."""
        ...

    def mark_undecided(
        self,
        number: int,
        after: int | None,
        limits: Mapping[int, int],
        ends: Mapping[int, int],
    ) -> int:
        """Mark the covered events that also occur between limits and ends; return their number."""
        ...

    def chunks(self, number: int) -> Sequence[StagedChunk]: ...
    def rows(self, chunk: StagedChunk) -> Sequence[Sequence[object]]:
        """Return the columns of Row."""
        ...

    def missing_rows(self, number: int) -> int:
        """Return the number of rows that pass `number` found missing."""
        ...

    def place(self, chunk: str) -> None:
        """Insert into the shard of the chunk with this name from now on. Chosen once, also for a resumed
        replay."""
        ...

    def insert(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> None:
        """Insert into the target; see `interfaces.BlockSink.insert_block`."""
        ...
