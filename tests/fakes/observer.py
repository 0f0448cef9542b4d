"""An observer that keeps what it is given."""

from collections import Counter
from collections.abc import Sequence

from octane_analytics.types import (
    InsertedBatch,
    OffsetRange,
    RejectedRecord,
    TopicPartition,
)
from tests.fakes.journal import Entry


class FakeObserver:
    """See `types.Observer`. Remembers what it was told, and which outages last."""

    def __init__(self) -> None:
        self.told: list[Entry] = []
        self.failing: set[str] = set()
        self.rows = 0
        self.rejections: Counter[str] = Counter()
        self.records = 0
        self.dead_letters = 0
        self.calls: Counter[str] = Counter()

    def names(self) -> list[str]:
        return [entry.what for entry in self.told]

    def details(self, what: str) -> list[object]:
        return [entry.detail for entry in self.told if entry.what == what]

    def _tell(self, what: str, detail: object) -> None:
        self.told.append(Entry(what, detail))

    def consumed(self, records: int) -> None:
        self.records += records

    def rejected(self, rejected: Sequence[RejectedRecord]) -> None:
        self.rejections.update(item.reason for item in rejected)

    def dead_lettered(self, records: int) -> None:
        self.dead_letters += records

    def inserted(self, batch: InsertedBatch) -> None:
        self.rows += batch.rows
        self._tell("inserted", (batch.partition.partition, str(batch.span), batch.rows))

    def call_finished(self, call: str, seconds: float) -> None:
        self.calls[call] += 1

    def recovered(self, partition: TopicPartition, span: OffsetRange) -> None:
        self._tell("recovered", (partition.partition, str(span)))

    def bisecting_rejected_rows(
        self, partition: TopicPartition, span: OffsetRange, reason: str
    ) -> None:
        self._tell("isolating", (partition.partition, str(span)))

    def offsets_gone(self, partition: TopicPartition, first: int, end: int) -> None:
        self._tell("offsets_gone", (partition.partition, first, end))

    def log_replaced(self, partition: TopicPartition, position: int) -> None:
        self._tell("log_replaced", (partition.partition, position))

    def log_truncated(self, partition: TopicPartition, position: int, end: int) -> None:
        self._tell("log_truncated", (partition.partition, position, end))

    def foreign_offset(self, partition: TopicPartition, offset: int, first: int, end: int) -> None:
        self._tell("foreign_offset", (partition.partition, offset, first, end))

    def assigned(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._tell("assigned", ([p.partition for p in partitions], owned))

    def revoked(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._tell("revoked", ([p.partition for p in partitions], owned))

    def lost(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._tell("lost", ([p.partition for p in partitions], owned))

    def failed(self, dependency: str, error: Exception) -> None:
        self.failing.add(dependency)
        self._tell("failed", dependency)

    def resumed(self, dependency: str) -> None:
        self.failing.discard(dependency)
        self._tell("resumed", dependency)
