"""Values that every package speaks of.

Do not depend on any client library, and have no behaviour beyond what a value knows of itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class LogIdentity(NamedTuple):
    """Tells a topic's log from another one of the same name and the same offsets."""

    cluster_id: str
    topic_id: str
    """Empty where the broker does not tell."""
    epoch: str
    """The operator's own mark (KAFKA_LOG_EPOCH)."""


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The offsets `[first, end)` of one partition; there may be gaps between them."""

    first: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.end:
            raise ValueError(f"no span of offsets: [{self.first}, {self.end})")

    def __str__(self) -> str:
        return f"{self.first}-{self.end}"


class Record(Protocol):
    """A message as the consumer hands it out; confluent_kafka's Message satisfies it as it is."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that cannot be an event, and why: what the dead-letter topic gets."""

    record: Record
    reason: str
    """A short code out of a bounded set: a metric's label."""
    detail: str
    """For a person: what exactly is wrong."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What the group's coordinator is to remember of a partition."""

    partition: TopicPartition
    offset: int
    """The next offset to read."""
    metadata: str


@dataclass(frozen=True, slots=True)
class Committed:
    """What the coordinator remembers; `offset` None where the group has none yet."""

    offset: int | None
    metadata: str


@dataclass(frozen=True, slots=True)
class EndOfPartition:
    """Every record before `offset` has been handed out."""

    partition: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class OffsetGone:
    """The position asked for lies outside the log: retention was faster, or the log was replaced."""

    partition: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: records in offset order within each partition, then events."""

    records: Sequence[Record]
    ends: Sequence[EndOfPartition] = ()
    gone: Sequence[OffsetGone] = ()


@dataclass(frozen=True, slots=True)
class InsertedBatch:
    """A batch that ClickHouse has acknowledged."""

    partition: TopicPartition
    span: OffsetRange
    rows: int
    payload_bytes: int
    timestamps: Sequence[int]
    """Of its events, epoch seconds: the table's column."""
    token: str | None
    """Under which the whole batch went in; None where it had no token."""
    seconds: float
    """From the announcement to ClickHouse's yes, waiting included."""


@dataclass(frozen=True, slots=True)
class UncommittedLag:
    """How far the group is behind in one partition: the one definition of lag, wherever it is shown."""

    committed: Committed
    first: int
    """The earliest offset that the log holds."""
    end: int
    """The offset that the next record gets, open transactions or not."""
    stable_end: int
    """The last stable offset, up to where consumers read: before the end while a transaction is open."""
    oldest_at: float | None = None
    """Kafka's timestamp of the oldest record that is not committed, epoch seconds; None where there is
    none or it is not known yet."""

    @property
    def position(self) -> int:
        """Where the group goes on reading: at the log's beginning where it has committed nothing."""
        return (
            self.first if self.committed.offset is None else max(self.first, self.committed.offset)
        )

    @property
    def messages(self) -> int:
        """Offsets that the log holds and the group has not committed."""
        return max(0, self.end - self.position)

    @property
    def held_back(self) -> int:
        """Those of `messages` that an open transaction keeps from every consumer."""
        return max(0, self.end - max(self.position, self.stable_end))

    @property
    def removed(self) -> int:
        """Offsets that retention removed before the group committed them."""
        return 0 if self.committed.offset is None else max(0, self.first - self.committed.offset)
