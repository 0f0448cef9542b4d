"""Observer and sink of a worker that also write to its supervisor's status board."""

from collections.abc import Sequence

from octane_analytics.interfaces import Clock, Sink
from octane_analytics.supervisor.status_board import SlotStatusWriter
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.observer import WorkerObserver
from octane_analytics.telemetry.worker_metrics import WorkerMetrics
from octane_analytics.types import TopicPartition


class SlotObserver(WorkerObserver):
    """Worker's observer that also updates the slot's status; a failed call counts as a heartbeat."""

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


class CountingSink:
    """Sink (see `interfaces.Sink`) that counts inserted events on the status board.

    A successful insert counts as a heartbeat.
    """

    def __init__(self, sink: Sink, slot_status: SlotStatusWriter, clock: Clock) -> None:
        self._sink = sink
        self._slot_status = slot_status
        self._clock = clock

    def insert(
        self,
        columns: Sequence[Sequence[object]],
        token: str | None,
        *,
        is_repeat: bool = False,
        not_before: float | None = None,
        may_overlap: bool = False,
    ) -> None:
        self._sink.insert(
            columns, token, is_repeat=is_repeat, not_before=not_before, may_overlap=may_overlap
        )
        now = self._clock.now()
        self._slot_status.flushed(len(columns[0]), now)
        self._slot_status.heartbeat(now)

    def close(self) -> None:
        self._sink.close()
