"""Metrics of ingestion in a worker."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FLUSH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STAGE_BUCKETS = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0)
_LATENCY_BUCKETS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
_ROW_BUCKETS = (1.0, 10.0, 100.0, 1000.0, 5000.0, 10_000.0, 50_000.0, 100_000.0)
_BYTE_BUCKETS = (1e3, 1e4, 1e5, 1e6, 4e6, 16e6, 64e6)

STAGES = {
    "poll": "fetch",
    "decode": "decode",
    "announce": "intent",
    "insert": "insert",
    "send": "dead_letters",
    "complete": "complete",
}
"""Values of the label `stage` by the pipeline's name of the call; other calls are rare and not timed."""


class WeightedHistogram(Histogram):
    """Histogram of ages that records many observations in one call."""

    def observe_ages(self, now: float, timestamps: Sequence[float], weight: float) -> None:
        """Observe the age of each timestamp `weight` times; ascending, a future one has age 0."""
        total, counted = len(timestamps), 0
        for bound, bucket in zip(self._upper_bounds, self._buckets, strict=True):
            at_most_bound = total - bisect_left(timestamps, now - bound)
            if at_most_bound > counted:
                bucket.inc((at_most_bound - counted) * weight)
                counted = at_most_bound
        # A producer whose clock is ahead must not reduce the sum.
        past = timestamps[: bisect_right(timestamps, now)]
        self._sum.inc((len(past) * now - sum(past)) * weight)


class WorkerMetrics:
    """Metrics of a worker. No registry is needed with a metrics directory: the reader sums its files."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.events_consumed = Counter(
            "analytics_events_consumed_total",
            "Records read from Kafka, valid or not, re-reads after a restart included.",
            registry=registry,
        )
        self.batch_flush_seconds = Histogram(
            "analytics_batch_flush_seconds",
            "Time from committing a batch's intent to ClickHouse's acknowledgement, outages included.",
            buckets=_FLUSH_BUCKETS,
            registry=registry,
        )
        self.pipeline_errors = Counter(
            "analytics_pipeline_errors_total",
            "Failures by stage; each is retried or its record goes to the dead-letter topic.",
            ["stage"],
            registry=registry,
        )
        self.events_rejected = Counter(
            "analytics_events_rejected_total",
            "Invalid records, by reason.",
            ["reason"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "analytics_dead_letters_total",
            "Records that the dead-letter topic has acknowledged.",
            registry=registry,
        )
        self.batches_recovered = Counter(
            "analytics_batches_recovered_total",
            "Pending batches of a previous owner that were read and inserted again under their token.",
            registry=registry,
        )
        self.batches_waiting = Gauge(
            "analytics_batches_waiting",
            "Pending batches that cannot be read or inserted again now; their partitions wait.",
            multiprocess_mode="sum",
            registry=registry,
        )
        self.rejoins = Counter(
            "analytics_rejoins_total",
            "Times that a worker joined the group with a new client: the outcome of a commit was "
            "unknown, or the topic was recreated.",
            registry=registry,
        )
        self.batches_deduplicated = Counter(
            "analytics_batches_deduplicated_total",
            "Repeated batches whose first insert had succeeded and been counted.",
            registry=registry,
        )
        self.batch_rows = Histogram(
            "analytics_batch_rows",
            "Rows of an inserted batch.",
            buckets=_ROW_BUCKETS,
            registry=registry,
        )
        self.batch_bytes = Histogram(
            "analytics_batch_bytes",
            "Payload bytes of an inserted batch, as read from Kafka.",
            buckets=_BYTE_BUCKETS,
            registry=registry,
        )
        self.event_latency_seconds = WeightedHistogram(
            "analytics_event_latency_seconds",
            "Time from an event's timestamp to ClickHouse's acknowledgement; large batches are sampled "
            "evenly, each sample weighted.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "analytics_stage_seconds",
            "Time of one call of a stage, waiting included.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.offsets_gone = Counter(
            "analytics_offsets_gone_total",
            "Offsets that retention removed before they were read: events that cannot be inserted.",
            registry=registry,
        )
        self.partition_stalls = Counter(
            "analytics_partition_stalls_total",
            "Partitions that returned no records before the end of their log and were reassigned.",
            registry=registry,
        )
        self.rebalances = Counter(
            "analytics_rebalances_total",
            "Changes of the assignment, by kind: assigned, revoked, lost.",
            ["kind"],
            registry=registry,
        )
        self.assigned_partitions = Gauge(
            "analytics_assigned_partitions",
            "Partitions that the workers own.",
            multiprocess_mode="sum",
            registry=registry,
        )
        self.outage = Gauge(
            "analytics_outage",
            "Workers that wait for the dependency: clickhouse, kafka or dead_letters.",
            ["dependency"],
            multiprocess_mode="sum",
            registry=registry,
        )
        self.outage_seconds = Counter(
            "analytics_outage_seconds_total",
            "Time that workers have waited for the dependency, summed over the workers.",
            ["dependency"],
            registry=registry,
        )
        self.clickhouse_errors = Counter(
            "analytics_clickhouse_errors_total",
            "Failed calls to ClickHouse by class: data, operator (needs a fix by an operator), outage.",
            ["class"],
            registry=registry,
        )
        self.queue_bytes = Gauge(
            "analytics_librdkafka_queue_bytes",
            "Bytes of records that librdkafka has fetched and the workers have not read yet.",
            multiprocess_mode="sum",
            registry=registry,
        )
