"""Writer of batches: dead-letters their invalid records and inserts their rows, once or repeatedly.

A repeated insert cannot rely on the deduplication token alone. The server may have stored the token and
been killed before it added the part, or may have forgotten the token. A repeat therefore counts the rows
that the table lacks, inserts exactly these, and counts again. All workers that repeat a batch use the
same tokens in the same order, so that of two that saw the same rows missing one inserts them.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from octane_analytics.errors import Unavailable
from octane_analytics.interfaces import BlockSink, DeadLetters
from octane_analytics.pipeline.intents import Intent
from octane_analytics.types import Record, RejectedRecord

ATTEMPTS = 4
"""Number of tokens that a repeat tries: a killed server may have stored each without the part."""

Rows = Sequence[Sequence[object]]
"""Columns in the order of `event.Row`, all of one length."""


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

    def __init__(self, sink: BlockSink, dead_letters: DeadLetters) -> None:
        self.sink = sink
        self._dead_letters = dead_letters

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

    def insert(self, columns: Rows, intent: Intent | None, *, is_repeat: bool) -> None:
        """Insert the whole batch; without an intent, without protection from duplicates.

        Raise DataRejected if the batch must be inserted in parts.
        """
        if not len(columns[0]):
            return
        if intent is None:
            self.sink.insert_block(columns, None, None)
        elif is_repeat:
            self._insert_missing(columns, intent.token())
        else:
            self.sink.insert_block(columns, intent.token(), intent.token())

    def _insert_missing(self, columns: Rows, token: str) -> None:
        for attempt in range(ATTEMPTS):
            missing = self.sink.missing_rows(columns)
            if not missing:
                return
            self.sink.insert_block(
                pick_rows(columns, missing), attempt_token(token, attempt), token
            )
        check_nothing_missing(self.sink.missing_rows(columns), token)


def attempt_token(token: str, attempt: int) -> str:
    return f"{token}/again{attempt}" if attempt else token


def check_nothing_missing(missing: Sequence[int], token: str) -> None:
    if missing:
        raise Unavailable(
            f"{len(missing)} rows of a batch are not in the table after {ATTEMPTS} inserts under "
            f"{token}: check that nothing deletes rows of the table, and the server's log"
        )


def pick_rows(columns: Rows, indices: Sequence[int]) -> Rows:
    """Return the rows at these indices."""
    if len(indices) == len(columns[0]):
        return columns
    return [[values[index] for index in indices] for values in map(list, columns)]


def place_of(record: Record) -> tuple[int, int]:
    """Return the record's partition and offset."""
    partition, offset = record.partition(), record.offset()
    assert partition is not None, "a record that was read has a partition"
    assert offset is not None, "a record that was read has an offset"
    return partition, offset
