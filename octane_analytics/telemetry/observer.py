"""What ingestion reports, as metrics and as log lines: the Observer of a worker."""

import logging
import time
from collections.abc import Sequence

from octane_analytics.errors import NeedsOperator
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.logging import fields
from octane_analytics.telemetry.worker_metrics import STAGES, WorkerMetrics
from octane_analytics.types import InsertedBatch, OffsetRange, RejectedRecord, TopicPartition

_LOG = logging.getLogger("octane_analytics.worker.process")
DEPENDENCIES = ("clickhouse", "kafka", "dead_letters")
_REJECTED_LINES = 5
_REJECTED_SECONDS = 10.0
_LATENCY_SAMPLES = 256
_ERROR_CLASSES = ("data", "operator", "outage")


class WorkerObserver:
    """See `types.Observer`. Says each outage once when it begins and once when it ends."""

    def __init__(self, metrics: WorkerMetrics, tally: InsertedEventCounter) -> None:
        self._metrics = metrics
        self._tally = tally
        self._stages = {call: metrics.stage_seconds.labels(name) for call, name in STAGES.items()}
        self._failing_since: dict[str, float] = {}
        self._waited_until = 0.0
        self._lines_left = _REJECTED_LINES
        self._lines_until = 0.0
        self._lines_dropped = 0
        metrics.assigned_partitions.set(0)
        for dependency in DEPENDENCIES:
            metrics.outage.labels(dependency).set(0)
            metrics.outage_seconds.labels(dependency)
            metrics.pipeline_errors.labels(dependency)
        for kind in _ERROR_CLASSES:
            metrics.clickhouse_errors.labels(kind)

    def tick(self) -> None:
        """To be called every few seconds at most: an outage's seconds count while it lasts."""
        now = time.monotonic()
        for dependency in self._failing_since:
            self._metrics.outage_seconds.labels(dependency).inc(now - self._waited_until)
        self._waited_until = now

    def consumed(self, records: int) -> None:
        self._metrics.events_consumed.inc(records)

    def rejected(self, rejected: Sequence[RejectedRecord]) -> None:
        for item in rejected:
            self._metrics.events_rejected.labels(item.reason).inc()
            self._metrics.pipeline_errors.labels("decode").inc()
            if self._may_log():
                _LOG.warning(
                    "record is no valid event",
                    extra=fields(
                        partition=item.record.partition(),
                        offset=item.record.offset(),
                        reason=item.reason,
                        detail=item.detail,
                    ),
                )

    def _may_log(self) -> bool:
        now = time.monotonic()
        if now >= self._lines_until:
            if self._lines_dropped:
                _LOG.warning(
                    "more records were no valid events", extra=fields(records=self._lines_dropped)
                )
            self._lines_left, self._lines_dropped = _REJECTED_LINES, 0
            self._lines_until = now + _REJECTED_SECONDS
        if self._lines_left:
            self._lines_left -= 1
            return True
        self._lines_dropped += 1
        return False

    def dead_lettered(self, records: int) -> None:
        self._metrics.dead_letters.inc(records)

    def call_finished(self, call: str, seconds: float) -> None:
        stage = self._stages.get(call)
        if stage is not None:
            stage.observe(seconds)

    def inserted(self, batch: InsertedBatch) -> None:
        # First of all: the count is exact only if nothing comes between ClickHouse's yes and it that
        # could fail.
        if not self._tally.count(batch.partition.partition, batch.rows, batch.token):
            self._metrics.batches_deduplicated.inc()
        self._metrics.batch_flush_seconds.observe(batch.seconds)
        self._metrics.batch_rows.observe(batch.rows)
        self._metrics.batch_bytes.observe(batch.payload_bytes)
        self._observe_latency(batch.timestamps)
        if _LOG.isEnabledFor(logging.DEBUG):
            _LOG.debug(
                "batch inserted",
                extra=fields(
                    partition=batch.partition.partition,
                    offsets=str(batch.span),
                    rows=batch.rows,
                    seconds=round(batch.seconds, 4),
                ),
            )

    def _observe_latency(self, timestamps: Sequence[int]) -> None:
        if timestamps:
            picked = sorted(timestamps[:: -(-len(timestamps) // _LATENCY_SAMPLES)])
            weight = len(timestamps) / len(picked)
            self._metrics.event_latency_seconds.observe_ages(time.time(), picked, weight)

    def recovered(self, partition: TopicPartition, span: OffsetRange) -> None:
        self._metrics.batches_recovered.inc()
        _LOG.info(
            "announced batch of the last owner inserted again under its token",
            extra=fields(partition=partition.partition, offsets=str(span)),
        )

    def bisecting_rejected_rows(
        self, partition: TopicPartition, span: OffsetRange, reason: str
    ) -> None:
        self._metrics.pipeline_errors.labels("clickhouse").inc()
        self._metrics.clickhouse_errors.labels("data").inc()
        _LOG.warning(
            "clickhouse refuses rows of a batch: looking for them",
            extra=fields(partition=partition.partition, offsets=str(span), reason=reason),
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

    def stalled(self, partition: TopicPartition, position: int) -> None:
        """Not the core's: the source mends it by itself."""
        self._metrics.partition_stalls.inc()
        _LOG.warning(
            "the partition stood still although its log ends elsewhere: reading it anew",
            extra=fields(partition=partition.partition, position=position),
        )

    def assigned(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._changed("assigned", partitions, owned)

    def revoked(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._changed("revoked", partitions, owned)

    def lost(self, partitions: Sequence[TopicPartition], owned: int) -> None:
        self._changed("lost", partitions, owned)

    def _changed(self, kind: str, partitions: Sequence[TopicPartition], owned: int) -> None:
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
