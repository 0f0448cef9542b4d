"""Values shared by all packages.

Does not depend on any client library.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from octane_analytics.errors import Unavailable


class LogIdentity(NamedTuple):
    """Identity of a topic's log, as distinct from another log of the same name and offsets."""

    cluster_id: str
    topic_id: str
    """Topic id; empty if the broker does not report one."""
    epoch: str
    """Mark set by the operator (KAFKA_LOG_EPOCH)."""


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Offsets `[first, end)` of one partition; may have gaps."""

    first: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.end:
            raise ValueError(f"invalid offset range: [{self.first}, {self.end})")

    def __str__(self) -> str:
        return f"{self.first}-{self.end}"


class PartitionRange(NamedTuple):
    """The offsets `[first, end)` of one partition; there may be gaps between them."""

    partition: int
    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.first}-{self.end}"


class Record(Protocol):
    """Message returned by the consumer; satisfied by confluent_kafka's Message."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """Invalid record and its reason, for the dead-letter topic."""

    record: Record
    reason: str
    """Short code out of a bounded set, used as a metric label."""
    detail: str
    """Explanation for people."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Offset and metadata to commit for a partition."""

    partition: TopicPartition
    offset: int
    """Next offset to read."""
    metadata: str


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """Result of a commit, partition by partition."""

    accepted: frozenset[int] = frozenset()
    """Partitions whose offset is stored; the others were refused, unless `is_unknown`."""
    is_unknown: bool = False
    """True if no definite answer came: any part may be stored, now or later."""
    may_be_stored: bool = False
    """True if all of it was refused, but an earlier copy of the request may have been stored: repeat it
    unchanged, or start again from what is committed."""
    error: Unavailable | None = None
    """Reason why some of it was refused."""


@dataclass(frozen=True, slots=True)
class Committed:
    """Committed offset and metadata; `offset` is None if the group has not committed any."""

    offset: int | None
    metadata: str


@dataclass(frozen=True, slots=True)
class EndOfPartition:
    """End of a partition: every record before `offset` has been returned."""

    partition: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class OffsetGone:
    """Position outside the log: retention removed it, or the log was replaced."""

    partition: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class Polled:
    """Result of one poll: records in offset order within each partition, ends, lost positions."""

    records: Sequence[Record]
    ends: Sequence[EndOfPartition] = ()
    gone: Sequence[OffsetGone] = ()


@dataclass(frozen=True, slots=True)
class RepeatRules:
    """Rules by which repeated inserts into a table stay exact."""

    inserts_whole: bool = False
    """Insert the whole block under its token before any count: the table has materialized views, which
    may lack rows that the table has, or its rows cannot be counted."""
    remembers_token: bool = True
    """True unless the table may have forgotten the token of the block by age."""
    counts_rows: bool = True
    """False if merges replace rows: only tokens recognise a repeat then."""
    repair_refusal: str = ""
    """Why rows that are missing despite their token may not be inserted under another token, and what to
    do; empty if they may."""


@dataclass(frozen=True, slots=True)
class InsertedBatch:
    """Batch acknowledged by ClickHouse."""

    ranges: Sequence[PartitionRange]
    rows_by_partition: Mapping[int, int]
    """Rows of the partitions that this worker completes: each row of a batch that several workers
    recover is in the figures of one of them."""
    rows: int
    """Rows of the whole batch."""
    payload_bytes: int
    timestamps: Sequence[int]
    """Timestamps of its events, epoch seconds: the table's column."""
    token: str | None
    """Deduplication token of the whole batch; None if it had none."""
    seconds: float
    """Time from the announcement to ClickHouse's acknowledgement, including waits."""


@dataclass(frozen=True, slots=True)
class UncommittedLag:
    """Lag of the group in one partition: the definition used by all commands and metrics."""

    committed: Committed
    first: int
    """Earliest offset that the log holds."""
    end: int
    """Offset of the next record, open transactions or not."""
    stable_end: int
    """Last stable offset, up to which consumers read: before the end while a transaction is open."""
    oldest_at: float | None = None
    """Kafka timestamp of the oldest uncommitted record, epoch seconds; None if there is none, or if it
    is not known yet."""

    @property
    def position(self) -> int:
        """Offset at which the group continues: the log's beginning if it has committed nothing."""
        return (
            self.first if self.committed.offset is None else max(self.first, self.committed.offset)
        )

    @property
    def messages(self) -> int:
        """Offsets that the log holds and the group has not committed."""
        return max(0, self.end - self.position)

    @property
    def held_back(self) -> int:
        """Part of `messages` that an open transaction hides from every consumer."""
        return max(0, self.end - max(self.position, self.stable_end))

    @property
    def removed(self) -> int:
        """Offsets that retention removed before the group committed them."""
        return 0 if self.committed.offset is None else max(0, self.first - self.committed.offset)
