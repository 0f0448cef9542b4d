"""Protocols that the pipeline calls and the edges implement.

Does not depend on any client library.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from octane_analytics.types import (
    Commit,
    CommitOutcome,
    Committed,
    InsertedBatch,
    LogIdentity,
    PartitionRange,
    Polled,
    Record,
    RejectedRecord,
    RepeatRules,
    TopicPartition,
)


class RebalanceListener(Protocol):
    """Rebalance callbacks, called within `GroupMember.poll` and `close` on the caller's thread.

    May commit, send requests and seek, and must not poll or close: Kafka's client ends the process.
    """

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the start offset of each partition."""
        ...

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up the partitions; the last chance to commit for them."""
        ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up the partitions without commits: another member may own them already."""
        ...


class GroupMember(Protocol):
    """Member of the consumer group that commits a batch over all its partitions at once."""

    def subscribe(self, listener: RebalanceListener) -> None: ...

    def poll(self, max_records: int, timeout_seconds: float, gather_seconds: float = 0.0) -> Polled:
        """Return the next records. Blocks for up to the timeout, also before it raises Unavailable,
        which it does at each call until a broker can be reached. Raise AssignmentLost if this member was
        replaced for good, or if the listener had no positions for assigned partitions. Any other
        exception of the listener is raised by this call or the next, without losing records.

        With `gather_seconds` it may continue for so long after the first record, until it has
        `max_records`: one poll costs less than several with the same records.

        `ends` are offsets before which the log holds no further visible record (transaction markers,
        aborted records, gaps of compaction): each once, after some seconds of waiting in polls, in a
        result without records.
        """
        ...

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        """Return the committed offsets. Blocks. Raise Unavailable."""
        ...

    def commit(self, commits: Sequence[Commit]) -> CommitOutcome:
        """Commit all of them in one request; blocks until the coordinator has answered or the time is
        over. Return the result of each partition, and never raise Unavailable. Raise AssignmentLost if
        this member was replaced for good.
        """
        ...

    def log_identity(self, topic: str) -> LogIdentity:
        """Return the complete identity. Blocks. Raise Unavailable rather than return a part of it."""
        ...

    def earliest(self, partition: TopicPartition) -> int:
        """Return the first offset that the partition holds. Blocks. Raise Unavailable."""
        ...

    def latest(self, partition: TopicPartition) -> int:
        """Return the offset of the partition's next record. Blocks. Raise Unavailable."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Return records from this offset on. Raise Unavailable."""
        ...

    def recreate_client(self) -> None:
        """Make the next `poll` leave the group and join it again with a new client and member id.

        That call revokes the assignment and returns no earlier records; the coordinator refuses commits
        of the old client, also those that arrive late. May be called by the listener.
        """
        ...

    def pause(self) -> None:
        """Return no records until `resume`, from later assignments either; stay in the group."""
        ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class RangeReader(Protocol):
    """Reader of offset ranges of any partitions, outside the group; one reading at a time."""

    def begin(self, ranges: Sequence[PartitionRange]) -> Sequence[PartitionRange]:
        """Start reading these ranges and abandon earlier ones.

        Return the parts that the log no longer holds, which are not read: retention removed them, or the
        partition was deleted. Blocks for some seconds at most. Raise Unavailable.
        """
        ...

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record]:
        """Return the next records of the ranges, in offset order within each partition.

        Raise Unavailable if a partition cannot be read; the caller then begins again.
        """
        ...

    @property
    def is_done(self) -> bool:
        """True once `poll` has returned every record of the ranges."""
        ...

    def close(self) -> None: ...


class BlockSink(Protocol):
    """Destination of blocks of rows; `columns` are in the order of Row, all of one length."""

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> bool | None:
        """Insert one block; the server drops a block whose token it has. Blocks until it acknowledges.

        Return False if rows of the block were dropped, None if the server does not report it.

        A server never runs two statements with one `query_id` at the same time. Replicas may, but these
        store token and rows in one step, so that of two inserts with one token the second is dropped
        whole. Raise Unavailable if the result is unknown or another statement with this `query_id` runs,
        DataRejected if the server refuses the rows for their data.
        """
        ...

    def missing_rows(self, columns: Sequence[Sequence[object]]) -> Sequence[int]:
        """Return the indices of rows that the table lacks: of equal rows, as many as it has too few of.

        Rows past the table's TTL are never missing. Looks at rows that any replica has acknowledged.
        Blocks. Raise Unavailable, and NeedsOperator if the rows of this table cannot be counted.
        """
        ...

    def partitions(self, columns: Sequence[Sequence[object]]) -> Sequence[object]:
        """Return, for each row, a key of the table's partition that it belongs to.

        The server stores a token for each partition that a block has rows of, and drops rows under a
        known token partition by partition. Blocks. Raise Unavailable.
        """
        ...

    def repeat_rules(self, not_before: float | None = None) -> RepeatRules:
        """Return how a block whose insert has an unknown result is inserted again.

        `not_before` is a time in epoch seconds before which it was not inserted; None if not known.
        Blocks. Raise Unavailable.
        """
        ...

    def close(self) -> None: ...


class Shards(Protocol):
    """Shards of the table, one sink for each. A batch is in one shard only.

    A shard is identified by what its servers state, never by its place in a list: shards may be added,
    removed and reordered, and their servers renamed.
    """

    def choose(self) -> str:
        """Return the identity of the shard for the next batch, by turns among those that can be reached;
        empty if the table has one shard, which needs no name. Blocks. Raise Unavailable."""
        ...

    def sink(self, shard: str) -> BlockSink:
        """Return the sink of the shard with this identity; of the only one if it is empty.

        Blocks. Raise NeedsOperator if no configured shard has this identity, Unavailable while that
        cannot be known because a shard cannot be reached.
        """
        ...

    def close(self) -> None: ...


class DeadLetters(Protocol):
    """Destination of invalid records."""

    def send(self, rejected: Sequence[RejectedRecord]) -> None:
        """Send the records and block until all are acknowledged. Raise Unavailable."""
        ...

    def close(self) -> None: ...


class Clock(Protocol):
    def now(self) -> float:
        """Return monotonic seconds, for intervals."""
        ...

    def sleep(self, seconds: float) -> None: ...


class Observer(Protocol):
    """Receiver of the pipeline's events for metrics and logs; never blocks, never raises."""

    def consumed(self, records: int) -> None: ...

    def rejected(self, rejected: Sequence[RejectedRecord]) -> None: ...

    def dead_lettered(self, records: int) -> None: ...

    def inserted(self, batch: InsertedBatch) -> None: ...

    def call_finished(self, call: str, seconds: float) -> None:
        """Record the duration of a call, successful or not: `poll`, `decode`, `announce`, `insert`, …"""
        ...

    def recovered(self, ranges: Sequence[PartitionRange], token: str) -> None:
        """Record that a pending batch of a previous owner is in the table."""
        ...

    def recovery_waits(
        self, ranges: Sequence[PartitionRange], token: str, error: Exception
    ) -> None:
        """Record that a pending batch of a previous owner, or a refused one, cannot be read or inserted
        now. Its partitions wait; called again with each attempt."""
        ...

    def bisecting_rejected_rows(self, ranges: Sequence[PartitionRange], reason: str) -> None:
        """Record that ClickHouse refuses the batch for its data, and that its bad rows are isolated."""
        ...

    def offsets_gone(self, partition: TopicPartition, first: int, end: int) -> None:
        """Record that these offsets were removed before they were read."""
        ...

    def log_replaced(self, partition: TopicPartition, position: int) -> None:
        """Record that the position belongs to another log; the new one is read from its beginning."""
        ...

    def log_truncated(self, partition: TopicPartition, position: int, end: int) -> None:
        """Record that the log lost its records from `end` to the position; it is read from `end`."""
        ...

    def foreign_offset(self, partition: TopicPartition, offset: int, first: int, end: int) -> None:
        """Record that the committed offset is after the log's end and not known to be of this log, which
        holds the offsets from `first` to `end` and is read from its beginning."""
        ...

    def offset_moved(self, partition: TopicPartition, offset: int) -> None:
        """Record that another tool has set the committed offset, from which the partition is read."""
        ...

    def restarting(self, reason: str) -> None:
        """Record that the worker forgets what it has read, and joins the group with a new client."""
        ...

    def assigned(self, partitions: Sequence[TopicPartition], owned: int) -> None: ...

    def revoked(self, partitions: Sequence[TopicPartition], owned: int) -> None: ...

    def lost(self, partitions: Sequence[TopicPartition], owned: int) -> None: ...

    def failed(self, dependency: str, error: Exception) -> None:
        """Record that a call to `clickhouse`, `kafka` or `dead_letters` failed and will be repeated."""
        ...

    def resumed(self, dependency: str) -> None:
        """Record that the failed dependency serves again."""
        ...


class Trace(Protocol):
    """Trace of one batch, linked to the traces of its events' producers."""

    def step(self, name: str) -> AbstractContextManager[object]:
        """Return the context of one step, `intent` or `insert`; calls inside belong to it."""
        ...

    def entered(self) -> AbstractContextManager[object]:
        """Return the context for logs and metrics about the batch as a whole."""
        ...

    def end(self, rows: int | None) -> None:
        """End the trace: the batch was inserted with `rows` rows; None if this process discarded it."""
        ...


class Tracer(Protocol):
    """Continues traces from the producers of events; never blocks, never raises."""

    def contexts(self, records: Sequence[Record], room: int) -> Sequence[object]:
        """Return up to `room` contexts of sampled producers, from the records' headers."""
        ...

    def begin(
        self, topic: str, ranges: Sequence[PartitionRange], contexts: Sequence[object]
    ) -> Trace:
        """Start the trace of a batch."""
        ...
