"""Every metric's name, and the directory through which all processes share them.

Each process keeps its values in files of its own there, named by its role and slot and not by its
process id: a worker that takes over a slot goes on counting where the one before it stopped, and the
number of files is bounded. Whoever serves `/metrics` sums over the files. The format is
prometheus_client's multiprocess mode.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FLUSH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Identity:
    """Names this process's files. No underscore: the library takes file names apart at those."""

    def __init__(self, role: str, slot: int) -> None:
        if "_" in role:
            raise ValueError(f"{role!r} would not be found again in a file's name")
        self.name = f"{role}-{slot}"

    def __call__(self) -> str:
        return self.name


def open_directory(directory: Path, identity: Identity) -> None:
    """Has every metric that this process makes from now on kept in the directory.

    To be called once in each process, after the fork and before the first metric is made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        process_identifier=identity
    )


def remove_files(directory: Path, role: str) -> None:
    """Removes what an earlier boot of this role left behind; the other roles' files stay."""
    for path in directory.glob(f"*_{role}-*.db"):
        path.unlink(missing_ok=True)


def exposition(directory: Path) -> bytes:
    """All processes' metrics in Prometheus' text format. Reads the directory's files."""
    registry = CollectorRegistry()
    _Collector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class _Collector(MultiProcessCollector):
    """Passes over a file that has no size yet, as each has for a moment while it is being made."""

    def collect(self) -> Iterable[Metric]:
        files = [str(path) for path in Path(self._path).glob("*.db") if os.path.getsize(path)]
        return self.merge(files, accumulate=True)  # type: ignore[no-untyped-call, no-any-return]


class WorkerMetrics:
    """What ingestion counts. With a shared directory it needs no registry: the files are one."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.events_consumed = Counter(
            "analytics_events_consumed_total",
            "Records read from Kafka, valid or not, re-reads after a restart included.",
            registry=registry,
        )
        self.events_inserted = Counter(
            "analytics_events_inserted_total",
            "Events in inserts that ClickHouse has acknowledged.",
            registry=registry,
        )
        self.batch_flush_seconds = Histogram(
            "analytics_batch_flush_seconds",
            "Time from announcing a batch to ClickHouse's acknowledgement, outages included.",
            buckets=_FLUSH_BUCKETS,
            registry=registry,
        )
        self.pipeline_errors = Counter(
            "analytics_pipeline_errors_total",
            "Failures of a stage: each is retried or goes to the dead-letter topic.",
            ["stage"],
            registry=registry,
        )
        self.events_rejected = Counter(
            "analytics_events_rejected_total",
            "Records that are no valid events, by reason.",
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
            "Announced batches of a predecessor that were read and inserted again under their token.",
            registry=registry,
        )
        self.offsets_gone = Counter(
            "analytics_offsets_gone_total",
            "Offsets that retention removed before they were read: events lost upstream of here.",
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


class ApiMetrics:
    """What the API counts. With a shared directory it needs no registry: the files are one."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.requests = Counter(
            "analytics_api_requests_total",
            "Answered requests by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "analytics_api_request_seconds",
            "Time to answer, by route.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.cache = Counter(
            "analytics_api_cache_total",
            "Reports by where the answer came from: hit, shared (with a request under way), miss, "
            "bypass.",
            ["outcome"],
            registry=registry,
        )
