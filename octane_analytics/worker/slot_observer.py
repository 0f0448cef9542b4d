"""Observer of a worker that also writes to its supervisor's status board."""

from collections.abc import Sequence

from octane_analytics.interfaces import Clock
from octane_analytics.supervisor.status_board import SlotStatusWriter
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.observer import WorkerObserver
from octane_analytics.telemetry.worker_metrics import WorkerMetrics
from octane_analytics.types import InsertedBatch, TopicPartition


class SlotObserver(WorkerObserver):
    """Worker's observer that also updates the slot's status; an insert and a failed call count as
    heartbeats."""

    def __init__(
        self,
        metrics: WorkerMetrics,
        inserted_events: InsertedEventCounter,
        slot_status: SlotStatusWriter,
        clock: Clock,
    ) -> None:
        super().__init__(metrics, inserted_events)
        self._slot_status = slot_status
        self._clock = clock

    def inserted(self, batch: InsertedBatch) -> None:
        super().inserted(batch)
        now = self._clock.now()
        self._slot_status.flushed(sum(batch.rows_by_partition.values()), now)
        self._slot_status.heartbeat(now)

    def assigned(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        super().assigned(partitions, owned)
        self._slot_status.assigned(owned, self._clock.now())

    def revoked(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        super().revoked(partitions, owned)
        self._slot_status.set_partitions(owned)

    def lost(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        super().lost(partitions, owned)
        self._slot_status.set_partitions(owned)

    def failed(self, dependency: str, error: Exception) -> None:
        super().failed(dependency, error)
        now = self._clock.now()
        self._slot_status.failed(dependency, error, now)
        self._slot_status.heartbeat(now)

    def resumed(self, dependency: str) -> None:
        super().resumed(dependency)
        self._slot_status.resumed(dependency)
