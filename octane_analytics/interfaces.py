"""The Protocols that the pipeline calls and the edges implement.

Do not depend on any client library.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from octane_analytics.types import (
    Commit,
    Committed,
    InsertedBatch,
    LogIdentity,
    OffsetRange,
    Polled,
    Record,
    RejectedRecord,
    TopicPartition,
)


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
        may_overlap: bool = False,
    ) -> None:
        """Inserts one block; a block with a token that was inserted before is dropped.

        `is_repeat` says that this block may be there already, from a call whose end nobody knows;
        `not_before`, in epoch seconds, that such a call cannot have been made earlier.
        `may_overlap` says that some of its rows may be there from a block with another token: rows
        that the table has are left out then.
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
