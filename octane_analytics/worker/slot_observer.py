"""A worker's observer and sink that also report to its supervisor's status board."""

from collections.abc import Sequence

from octane_analytics.interfaces import Clock, Sink
from octane_analytics.supervisor.status_board import SlotStatusWriter
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.observer import WorkerObserver
from octane_analytics.telemetry.worker_metrics import WorkerMetrics
from octane_analytics.types import TopicPartition


class SlotObserver(WorkerObserver):
    """A worker's observer that tells its supervisor too; hearing of a failure is a sign of life."""

    def __init__(
        self,
        metrics: WorkerMetrics,
        tally: InsertedEventCounter,
        figures: SlotStatusWriter,
        clock: Clock,
    ) -> None:
        super().__init__(metrics, tally)
        self._figures = figures
        self._clock = clock

    def assigned(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        super().assigned(partitions, owned)
        self._figures.assigned(owned, self._clock.now())

    def revoked(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        super().revoked(partitions, owned)
        self._figures.set_partitions(owned)

    def lost(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        super().lost(partitions, owned)
        self._figures.set_partitions(owned)

    def failed(self, dependency: str, error: Exception) -> None:
        super().failed(dependency, error)
        now = self._clock.now()
        self._figures.failed(dependency, error, now)
        self._figures.heartbeat(now)

    def resumed(self, dependency: str) -> None:
        super().resumed(dependency)
        self._figures.resumed(dependency)


class CountingSink:
    """See `types.Sink`. Tells of every insert that has gone through, which is a sign of life too."""

    def __init__(self, sink: Sink, figures: SlotStatusWriter, clock: Clock) -> None:
        self._sink = sink
        self._figures = figures
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
        self._figures.flushed(len(columns[0]), now)
        self._figures.heartbeat(now)

    def close(self) -> None:
        self._sink.close()
