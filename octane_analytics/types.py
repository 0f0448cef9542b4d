"""Values that every room speaks of, and the Protocols that the edges satisfy.

Owns no behaviour beyond what a value knows of itself, and refuses to know any client library.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
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


class RebalanceListener(Protocol):
    """Called from within `Source.poll` and `Source.close`, on the caller's thread.

    May commit, ask and seek, and must not poll or close: Kafka's client ends the process for that.
    """

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Answers the offset that each partition is to be read from."""
        ...

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Commits are still possible for these partitions, and for the last time."""
        ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Somebody else may own these partitions already: commits are not possible."""
        ...


class Source(Protocol):
    """A consumer group's member."""

    def subscribe(self, listener: RebalanceListener) -> None: ...

    def poll(self, max_records: int, timeout_seconds: float) -> Polled:
        """Blocks up to the timeout, also where it raises Unavailable: no broker can be reached, at
        each call until one can. Raises AssignmentLost when this member was replaced for good, or when
        the listener had no positions for what was assigned. What else the listener raises comes out
        of this call or the next, never at the price of records."""
        ...

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        """Blocks. Raises Unavailable."""
        ...

    def commit(self, commits: Sequence[Commit]) -> None:
        """All of them or an error; blocks until the coordinator has answered.

        Raises Unavailable where the same call may succeed later (a rebalance, no coordinator),
        AssignmentLost where this member no longer owns the partitions.
        """
        ...

    def log_identity(self, topic: str) -> LogIdentity:
        """Blocks. Raises Unavailable rather than leave out what the broker could tell."""
        ...

    def earliest(self, partition: TopicPartition) -> int:
        """The first offset that the partition still holds. Blocks. Raises Unavailable."""
        ...

    def latest(self, partition: TopicPartition) -> int:
        """The offset that the partition's next record gets. Blocks. Raises Unavailable."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    def recreate_client(self) -> None:
        """Has the next `poll` leave the group and join it again as a client that remembers nothing of
        the topic: what is assigned is revoked within that call, which hands out nothing of before, and
        is assigned anew by it or a later one. May be called by the listener."""
        ...

    def pause(self) -> None:
        """Hand out nothing until `resume`, whatever is assigned meanwhile; stay in the group."""
        ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Where rows end up."""

    def insert(
        self,
        columns: Sequence[Sequence[object]],
        token: str | None,
        *,
        is_repeat: bool = False,
        not_before: float | None = None,
    ) -> None:
        """Inserts one block; a block with a token that was inserted before is dropped.

        `is_repeat` says that this block may be there already, from a call whose end nobody knows;
        `not_before`, in epoch seconds, that such a call cannot have been made earlier.
        `columns` in the order of Row, all of one length. Blocks until the server has said yes.
        Raises Unavailable (nothing is known of the block; the same call with the same token may be
        repeated) or DataRejected (the server refuses the data itself).
        """
        ...

    def close(self) -> None: ...


class DeadLetters(Protocol):
    """Where records go that cannot be events."""

    def send(self, rejected: Sequence[RejectedRecord]) -> None:
        """Blocks until every one of them is acknowledged. Raises Unavailable."""
        ...

    def close(self) -> None: ...


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic seconds, for intervals."""
        ...

    def sleep(self, seconds: float) -> None: ...


class Observer(Protocol):
    """Hears of everything an operator may want to know; never blocks, never raises."""

    def consumed(self, records: int) -> None: ...

    def rejected(self, rejected: Sequence[RejectedRecord]) -> None: ...

    def dead_lettered(self, records: int) -> None: ...

    def inserted(self, batch: InsertedBatch) -> None: ...

    def call_finished(self, call: str, seconds: float) -> None:
        """A call took so long, whether it went well or not: `poll`, `decode`, `announce`, `insert`, …"""
        ...

    def recovered(self, partition: TopicPartition, span: OffsetRange) -> None:
        """A predecessor's announced range has been inserted again under its token."""
        ...

    def bisecting_rejected_rows(
        self, partition: TopicPartition, span: OffsetRange, reason: str
    ) -> None:
        """ClickHouse refuses the range for its data; its bad rows are being looked for."""
        ...

    def offsets_gone(self, partition: TopicPartition, first: int, end: int) -> None:
        """These offsets were removed before anybody read them."""
        ...

    def log_replaced(self, partition: TopicPartition, position: int) -> None:
        """The log is another one now than the position was in, and is read from its beginning."""
        ...

    def log_truncated(self, partition: TopicPartition, position: int, end: int) -> None:
        """The same log has lost its records from `end` on, up to the position: read on from `end`."""
        ...

    def foreign_offset(self, partition: TopicPartition, offset: int, first: int, end: int) -> None:
        """The committed offset is after the log's end and not known to be of this log, which holds
        the offsets from `first` to `end` and is read from its beginning."""
        ...

    def assigned(self, partitions: Sequence[TopicPartition], owned: int) -> None: ...

    def revoked(self, partitions: Sequence[TopicPartition], owned: int) -> None: ...

    def lost(self, partitions: Sequence[TopicPartition], owned: int) -> None: ...

    def failed(self, dependency: str, error: Exception) -> None:
        """A call to `clickhouse`, `kafka` or `dead_letters` failed and will be repeated."""
        ...

    def resumed(self, dependency: str) -> None:
        """The dependency that failed serves again."""
        ...


class Trace(Protocol):
    """What became of one batch on its way out, for whoever follows its events."""

    def step(self, name: str) -> AbstractContextManager[object]:
        """Around one step of the batch, `intent` or `insert`: what is called inside belongs to it."""
        ...

    def entered(self) -> AbstractContextManager[object]:
        """Around what is said of the batch as a whole."""
        ...

    def end(self, rows: int | None) -> None:
        """The batch is inserted with so many rows; None: this process is not to insert it any more."""
        ...


class Tracer(Protocol):
    """Follows events from their producers; never blocks, never raises."""

    def contexts(self, records: Sequence[Record], room: int) -> Sequence[object]:
        """The sampled producers' contexts that the records carry, `room` of them at most."""
        ...

    def begin(
        self, partition: TopicPartition, span: OffsetRange, contexts: Sequence[object]
    ) -> Trace: ...
