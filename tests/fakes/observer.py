"""Observer that records its calls."""

from collections import Counter
from collections.abc import Sequence

from octane_analytics.types import (
    InsertedBatch,
    PartitionRange,
    RejectedRecord,
    TopicPartition,
)
from tests.fakes.journal import Entry


class FakeObserver:
    """Implements `interfaces.Observer`: keeps its calls and the current outages."""

    def __init__(self) -> None:
        self.events: list[Entry] = []
        self.failing: set[str] = set()
        self.errors: list[str] = []
        """Texts of the failed calls."""
        self.rows = 0
        self.rejections: Counter[str] = Counter()
        self.records = 0
        self.dead_letters = 0
        self.calls: Counter[str] = Counter()

    def names(self) -> list[str]:
        return [entry.what for entry in self.events]

    def details(self, what: str) -> list[object]:
        return [entry.detail for entry in self.events if entry.what == what]

    def _record(self, what: str, detail: object) -> None:
        self.events.append(Entry(what, detail))

    def consumed(self, records: int) -> None:
        self.records += records

    def rejected(self, rejected: Sequence[RejectedRecord]) -> None:
        self.rejections.update(item.reason for item in rejected)

    def dead_lettered(self, records: int) -> None:
        self.dead_letters += records

    def inserted(self, batch: InsertedBatch) -> None:
        self.rows += sum(batch.rows_by_partition.values())
        self._record("inserted", (_text(batch.ranges), batch.rows))

    def call_finished(self, call: str, seconds: float) -> None:
        self.calls[call] += 1

    def recovered(self, ranges: Sequence[PartitionRange], token: str) -> None:
        self._record("recovered", _text(ranges))

    def recovery_waits(
        self, ranges: Sequence[PartitionRange], token: str, error: Exception
    ) -> None:
        self._record("recovery_waits", _text(ranges))

    def bisecting_rejected_rows(self, ranges: Sequence[PartitionRange], reason: str) -> None:
        self._record("bisecting_rejected_rows", _text(ranges))

    def restarting(self, reason: str) -> None:
        self._record("restarting", reason)

    def offsets_gone(self, partition: TopicPartition, first: int, end: int) -> None:
        self._record("offsets_gone", (partition.partition, first, end))

    def log_replaced(self, partition: TopicPartition, position: int) -> None:
        self._record("log_replaced", (partition.partition, position))

    def log_truncated(self, partition: TopicPartition, position: int, end: int) -> None:
        self._record("log_truncated", (partition.partition, position, end))

    def foreign_offset(self, partition: TopicPartition, offset: int, first: int, end: int) -> None:
        self._record("foreign_offset", (partition.partition, offset, first, end))

    def offset_moved(self, partition: TopicPartition, offset: int) -> None:
        self._record("offset_moved", (partition.partition, offset))

    def assigned(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._record("assigned", ([p.partition for p in partitions], owned))

    def revoked(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._record("revoked", ([p.partition for p in partitions], owned))

    def lost(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._record("lost", ([p.partition for p in partitions], owned))

    def failed(self, dependency: str, error: Exception) -> None:
        self.failing.add(dependency)
        self.errors.append(str(error))
        self._record("failed", dependency)

    def resumed(self, dependency: str) -> None:
        self.failing.discard(dependency)
        self._record("resumed", dependency)


def _text(ranges: Sequence[PartitionRange]) -> str:
    return " ".join(map(str, ranges))
