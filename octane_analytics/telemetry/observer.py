"""Observer of a worker: turns reports of the pipeline into metrics and log lines."""

import logging
import time
from collections.abc import Sequence

from octane_analytics.errors import NeedsOperator
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.logging import fields
from octane_analytics.telemetry.worker_metrics import STAGES, WorkerMetrics
from octane_analytics.types import InsertedBatch, PartitionRange, RejectedRecord, TopicPartition

_LOG = logging.getLogger("octane_analytics.worker.process")
DEPENDENCIES = ("clickhouse", "kafka", "dead_letters")
_MAX_REJECTED_LINES = 5
_REJECTED_WINDOW_SECONDS = 10.0
_LATENCY_SAMPLES = 256
_MAX_RANGES = 8
_ERROR_CLASSES = ("data", "operator", "outage")


class WorkerObserver:
    """Observer (see `interfaces.Observer`) that logs the start and the end of each outage once."""

    def __init__(self, metrics: WorkerMetrics, inserted_events: InsertedEventCounter) -> None:
        self._metrics = metrics
        self._inserted_events = inserted_events
        self._stages = {call: metrics.stage_seconds.labels(name) for call, name in STAGES.items()}
        self._failing_since: dict[str, float] = {}
        self._outages_counted_until = 0.0
        self._lines_left = _MAX_REJECTED_LINES
        self._window_ends_at = 0.0
        self._lines_suppressed = 0
        self._waiting_batches: set[str] = set()
        """Tokens of pending batches that cannot be recovered now."""
        metrics.assigned_partitions.set(0)
        metrics.batches_waiting.set(0)
        for dependency in DEPENDENCIES:
            metrics.outage.labels(dependency).set(0)
            metrics.outage_seconds.labels(dependency)
            metrics.pipeline_errors.labels(dependency)
        for kind in _ERROR_CLASSES:
            metrics.clickhouse_errors.labels(kind)

    def tick(self) -> None:
        """Add the seconds of current outages to the counter. Call it every few seconds."""
        now = time.monotonic()
        for dependency in self._failing_since:
            self._metrics.outage_seconds.labels(dependency).inc(now - self._outages_counted_until)
        self._outages_counted_until = now

    def consumed(self, records: int) -> None:
        self._metrics.events_consumed.inc(records)

    def rejected(self, rejected: Sequence[RejectedRecord]) -> None:
        for item in rejected:
            self._metrics.events_rejected.labels(item.reason).inc()
            self._metrics.pipeline_errors.labels("decode").inc()
            if self._may_log():
                _LOG.warning(
                    "record is not a valid event",
                    extra=fields(
                        partition=item.record.partition(),
                        offset=item.record.offset(),
                        reason=item.reason,
                        detail=item.detail,
                    ),
                )

    def _may_log(self) -> bool:
        now = time.monotonic()
        if now >= self._window_ends_at:
            if self._lines_suppressed:
                _LOG.warning(
                    "more records were not valid events",
                    extra=fields(records=self._lines_suppressed),
                )
            self._lines_left, self._lines_suppressed = _MAX_REJECTED_LINES, 0
            self._window_ends_at = now + _REJECTED_WINDOW_SECONDS
        if self._lines_left:
            self._lines_left -= 1
            return True
        self._lines_suppressed += 1
        return False

    def dead_lettered(self, records: int) -> None:
        self._metrics.dead_letters.inc(records)

    def call_finished(self, call: str, seconds: float) -> None:
        stage = self._stages.get(call)
        if stage is not None:
            stage.observe(seconds)

    def inserted(self, batch: InsertedBatch) -> None:
        # The count comes first: it is exact only if nothing can fail between it and ClickHouse's
        # acknowledgement.
        if not self._inserted_events.count_batch(batch.rows_by_partition, batch.token):
            self._metrics.batches_deduplicated.inc()
        if batch.token is not None:
            self._recovery_ended(batch.token)
        self._metrics.batch_flush_seconds.observe(batch.seconds)
        self._metrics.batch_rows.observe(batch.rows)
        self._metrics.batch_bytes.observe(batch.payload_bytes)
        self._observe_latency(batch.timestamps)
        if _LOG.isEnabledFor(logging.DEBUG):
            _LOG.debug(
                "batch inserted",
                extra=fields(
                    ranges=_format_ranges(batch.ranges),
                    rows=batch.rows,
                    seconds=round(batch.seconds, 4),
                ),
            )

    def _observe_latency(self, timestamps: Sequence[int]) -> None:
        if timestamps:
            sample = sorted(timestamps[:: -(-len(timestamps) // _LATENCY_SAMPLES)])
            weight = len(timestamps) / len(sample)
            self._metrics.event_latency_seconds.observe_ages(time.time(), sample, weight)

    def recovered(self, ranges: Sequence[PartitionRange], token: str) -> None:
        self._metrics.batches_recovered.inc()
        self._recovery_ended(token)
        _LOG.info(
            "pending batch of a previous owner inserted under its token",
            extra=fields(ranges=_format_ranges(ranges)),
        )

    def recovery_waits(
        self, ranges: Sequence[PartitionRange], token: str, error: Exception
    ) -> None:
        if token in self._waiting_batches:
            return
        self._waiting_batches.add(token)
        self._metrics.batches_waiting.set(len(self._waiting_batches))
        _LOG.warning(
            "pending batch cannot be inserted again now; its partitions wait",
            extra=fields(ranges=_format_ranges(ranges), error=str(error)),
        )

    def _recovery_ended(self, token: str) -> None:
        if token in self._waiting_batches:
            self._waiting_batches.discard(token)
            self._metrics.batches_waiting.set(len(self._waiting_batches))

    def _forget_recoveries(self) -> None:
        """Forget waiting batches: this worker does not recover those of lost partitions."""
        self._waiting_batches.clear()
        self._metrics.batches_waiting.set(0)

    def bisecting_rejected_rows(self, ranges: Sequence[PartitionRange], reason: str) -> None:
        self._metrics.pipeline_errors.labels("clickhouse").inc()
        self._metrics.clickhouse_errors.labels("data").inc()
        _LOG.warning(
            "ClickHouse rejected rows of a batch; bisecting to find them",
            extra=fields(ranges=_format_ranges(ranges), reason=reason),
        )

    def restarting(self, reason: str) -> None:
        self._forget_recoveries()
        self._metrics.rejoins.inc()
        _LOG.warning(
            "rejoining the group with a new client; continuing from what is committed",
            extra=fields(reason=reason),
        )

    def offsets_gone(self, partition: TopicPartition, first: int, end: int) -> None:
        self._metrics.offsets_gone.inc(end - first)
        _LOG.error(
            "offsets were removed before they were read: retention is shorter than the lag",
            extra=fields(partition=partition.partition, first=first, end=end),
        )

    def log_replaced(self, partition: TopicPartition, position: int) -> None:
        _LOG.warning(
            "topic was recreated; reading the partition from its beginning",
            extra=fields(partition=partition.partition, position=position),
        )

    def log_truncated(self, partition: TopicPartition, position: int, end: int) -> None:
        _LOG.error(
            "partition lost its newest records (an unclean leader election?); reading on from its end: "
            "set another KAFKA_LOG_EPOCH before the next start",
            extra=fields(partition=partition.partition, position=position, end=end),
        )

    def foreign_offset(self, partition: TopicPartition, offset: int, first: int, end: int) -> None:
        _LOG.error(
            "committed offset is after the partition's end and was not committed for this log; reading "
            "the partition from its beginning",
            extra=fields(partition=partition.partition, committed=offset, first=first, end=end),
        )

    def offset_moved(self, partition: TopicPartition, offset: int) -> None:
        _LOG.warning(
            "committed offset was set by another tool; reading the partition from there, whatever was "
            "inserted before: see `octane-analytics manual runbook`, The group's offsets are wrong",
            extra=fields(partition=partition.partition, committed=offset),
        )

    def stalled(self, partition: TopicPartition, position: int) -> None:
        """Record a stalled partition. Called by the Kafka source, which reassigns the partition."""
        self._metrics.partition_stalls.inc()
        _LOG.warning(
            "partition stalled; reassigned at its position",
            extra=fields(partition=partition.partition, position=position),
        )

    def assigned(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._assignment_changed("assigned", partitions, owned)

    def revoked(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._assignment_changed("revoked", partitions, owned)

    def lost(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._assignment_changed("lost", partitions, owned)

    def _assignment_changed(
        self, kind: str, partitions: Sequence[TopicPartition], owned: int
    ) -> None:
        if kind != "assigned":
            self._forget_recoveries()
        self._metrics.rebalances.labels(kind).inc()
        self._metrics.assigned_partitions.set(owned)
        _LOG.info(
            "assignment changed",
            extra=fields(
                kind=kind, partitions=sorted(p.partition for p in partitions), owned=owned
            ),
        )

    def failed(self, dependency: str, error: Exception) -> None:
        self._metrics.pipeline_errors.labels(dependency).inc()
        if dependency == "clickhouse":
            kind = "operator" if isinstance(error, NeedsOperator) else "outage"
            self._metrics.clickhouse_errors.labels(kind).inc()
        self.tick()
        if dependency not in self._failing_since:
            self._failing_since[dependency] = time.monotonic()
            self._metrics.outage.labels(dependency).set(1)
            _LOG.warning(
                "waiting for a dependency", extra=fields(dependency=dependency, error=str(error))
            )

    def resumed(self, dependency: str) -> None:
        self.tick()
        since = self._failing_since.pop(dependency, None)
        if since is None:
            return
        self._metrics.outage.labels(dependency).set(0)
        _LOG.info(
            "dependency serves again",
            extra=fields(dependency=dependency, seconds=round(time.monotonic() - since, 1)),
        )


def _format_ranges(ranges: Sequence[PartitionRange]) -> str:
    """Format ranges as partition:first-end, the first ones only."""
    shown = " ".join(map(str, ranges[:_MAX_RANGES]))
    return shown if len(ranges) <= _MAX_RANGES else f"{shown} and {len(ranges) - _MAX_RANGES} more"
