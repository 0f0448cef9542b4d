"""Writer of batches: dead-letters their invalid records and inserts their rows, once or repeatedly."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from octane_analytics.interfaces import BlockSink, DeadLetters, Shards
from octane_analytics.pipeline.intents import Intent
from octane_analytics.pipeline.repeated_insert import Rows, insert_repeated
from octane_analytics.types import Record, RejectedRecord


@dataclass(slots=True)
class WriteProgress:
    """Completed steps of a batch, which are not repeated."""

    sent_partitions: set[int] = field(default_factory=set)
    """Partitions whose invalid records are in the dead-letter topic."""
    sent_refused: set[tuple[int, int]] = field(default_factory=set)
    """Partition and offset of rows that ClickHouse refused and that are in the dead-letter topic."""


class BatchWriter:
    """Writes one batch at a time. Does not depend on Kafka or on the time of retries.

    Every call may raise Unavailable, and is then repeated with the same WriteProgress.
    """

    def __init__(self, shards: Shards, dead_letters: DeadLetters) -> None:
        self._shards = shards
        self._dead_letters = dead_letters

    def choose_shard(self) -> str:
        """Return the identity of the shard for the next batch; see `interfaces.Shards`."""
        return self._shards.choose()

    def sink(self, intent: Intent) -> BlockSink:
        """Return the sink of the batch's shard. Raise NeedsOperator if it is not configured."""
        return self._shards.sink(intent.shard)

    def send_rejected(
        self,
        rejected: Iterable[RejectedRecord],
        owned: AbstractSet[int],
        progress: WriteProgress,
    ) -> int:
        """Send invalid records of owned partitions to the dead-letter topic; return their number.

        The owners of other partitions recover the same batch and send theirs.
        """
        unsent = owned - progress.sent_partitions
        own = [item for item in rejected if item.record.partition() in unsent]
        if own:
            self._dead_letters.send(own)
        progress.sent_partitions |= unsent  # one that is taken over later is sent then
        return len(own)

    def send_refused(
        self,
        refused: Iterable[RejectedRecord],
        owned: AbstractSet[int],
        progress: WriteProgress,
    ) -> Sequence[RejectedRecord]:
        """Send rows of owned partitions that ClickHouse refused; return those sent by this call."""
        unsent = [
            item
            for item in refused
            if item.record.partition() in owned
            and place_of(item.record) not in progress.sent_refused
        ]
        if unsent:
            self._dead_letters.send(unsent)
            progress.sent_refused.update(place_of(item.record) for item in unsent)
        return unsent

    def insert(
        self,
        columns: Rows,
        intent: Intent | None,
        *,
        is_repeat: bool,
        not_before: float | None = None,
    ) -> None:
        """Insert the whole batch; without an intent, without protection from duplicates.

        `not_before` is a time in epoch seconds before which it was not inserted; None if not known.
        Raise DataRejected if the batch must be inserted in parts.
        """
        if not len(columns[0]):
            return
        if intent is None:
            self._shards.sink(self._shards.choose()).insert_block(columns, None, None)
        elif is_repeat:
            insert_repeated(self.sink(intent), columns, intent.token(), not_before=not_before)
        else:
            self.sink(intent).insert_block(columns, intent.token(), intent.token())


def place_of(record: Record) -> tuple[int, int]:
    """Return the record's partition and offset."""
    partition, offset = record.partition(), record.offset()
    assert partition is not None, "a record that was read has a partition"
    assert offset is not None, "a record that was read has an offset"
    return partition, offset
