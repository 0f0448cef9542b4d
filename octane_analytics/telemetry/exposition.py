"""The directory through which all processes share their metrics, and what the API counts.

Each process keeps its values in files of its own there, named by its role and slot and not by its
process id: a worker that takes over a slot goes on counting where the one before it stopped, and the
number of files is bounded. Whoever serves `/metrics` sums over the files, gauges over those of living
processes. The format is prometheus_client's multiprocess mode.
"""

import contextlib
import os
import platform
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from octane_analytics import __version__
from octane_analytics.telemetry import inserted_counter, liveness
from octane_analytics.telemetry.multiprocess_reader import Labels, MultiprocessReader, SeriesKey

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BOUND = "le"
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ProcessName:
    """Names this process's files. No underscore: the library takes file names apart at those."""

    def __init__(self, role: str, slot: int) -> None:
        if "_" in role:
            raise ValueError(f"{role!r} would not be found again in a file's name")
        self.name = f"{role}-{slot}"

    def __call__(self) -> str:
        return self.name


def open_directory(directory: Path, identity: ProcessName) -> None:
    """Has every metric that this process makes from now on kept in the directory.

    To be called once in each process, after the fork and before the first metric is made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        process_identifier=identity
    )
    for path in directory.glob(f"gauge_*_{identity.name}.db"):
        path.unlink()  # the last process's of this name say nothing of this one
    liveness.lock(directory, identity.name)


def remove_files(directory: Path, role: str) -> None:
    """Removes what an earlier boot of this role left behind, and any role's from before the machine's.

    The other roles' files stay. Inserted events count from zero again.
    """
    inserted_counter.reset_counts(directory, role)
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for path in (*directory.glob("*.db"), *directory.glob("*.alive")):
        name = path.stem.rpartition("_")[2]
        with contextlib.suppress(FileNotFoundError):
            if name.startswith(f"{role}-") or path.stat().st_mtime < booted_at:
                path.unlink()


class MetricSource(Protocol):
    """Metrics that are known where they are served, and need no file."""

    def collect(self) -> Iterable[Metric]: ...


class Exposition:
    """All processes' metrics in Prometheus' text format; each call reads the directory's files anew."""

    def __init__(self, directory: Path, *others: MetricSource) -> None:
        self._sums = MultiprocessReader(directory)
        self._others = CollectorRegistry()
        self._lock = threading.Lock()
        self._texts: dict[SeriesKey, str] = {}
        for families in (ComputedMetrics(directory), *others):
            self._others.register(families)

    def __call__(self) -> bytes:
        with self._lock:
            text = "".join(self._lines(self._sums.read()))
        return text.encode() + generate_latest(self._others)

    def close(self) -> None:
        self._sums.close()

    def _lines(self, sums: Mapping[SeriesKey, float]) -> Iterator[str]:
        families: dict[str, list[SeriesKey]] = {}
        for cell in sums:
            families.setdefault(cell.family, []).append(cell)
        for cells in families.values():
            first = cells[0]
            yield _head(first)
            if first.kind == "histogram":
                yield from self._histogram(cells, sums)
            else:
                for cell in cells:
                    yield _line(self._text(cell), sums[cell])

    def _histogram(
        self, cells: Sequence[SeriesKey], sums: Mapping[SeriesKey, float]
    ) -> Iterator[str]:
        """A file holds each bucket's own count, and no `_count`; it is the last bucket's sum."""
        series: dict[Labels, list[tuple[float, SeriesKey]]] = {}
        for cell in cells:
            bound = next((float(value) for name, value in cell.labels if name == _BOUND), None)
            if bound is None:
                yield _line(self._text(cell), sums[cell])
                continue
            labels = tuple(label for label in cell.labels if label[0] != _BOUND)
            series.setdefault(labels, []).append((bound, cell))
        for labels, buckets in series.items():
            total = 0.0
            for _, cell in sorted(buckets, key=itemgetter(0)):
                total += sums[cell]
                yield _line(self._text(cell), total)
            yield _line(_text(f"{cell.family}_count", labels), total)

    def _text(self, cell: SeriesKey) -> str:
        text = self._texts.get(cell)
        if text is None:
            text = self._texts[cell] = _text(cell.name, cell.labels)
        return text


def exposition(directory: Path, *others: MetricSource) -> bytes:
    """Once; who asks again and again keeps an `Exposition`."""
    whole = Exposition(directory, *others)
    try:
        return whole()
    finally:
        whole.close()


def _head(cell: SeriesKey) -> str:
    name = f"{cell.family}_total" if cell.kind == "counter" else cell.family
    told = cell.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {told}\n# TYPE {name} {cell.kind}\n"


def _line(text: str, value: float) -> str:
    return f"{text} {floatToGoString(value)}\n"  # type: ignore[no-untyped-call]


def _text(name: str, labels: Labels) -> str:
    told = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
    return f"{name}{{{told}}}" if told else name


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class ComputedMetrics:
    """What is not counted in the library's files: the exact count of inserted events, and the build."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "analytics_events_inserted_total",
            "Events in inserts that ClickHouse has acknowledged, each batch once.",
            value=inserted_counter.total(self._directory),
        )
        build = GaugeMetricFamily("analytics_build_info", "Always 1.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1.0)
        yield build


def unready(directory: Path, names: Collection[str]) -> list[str]:
    """What keeps these processes from serving, a line each; empty when they do."""
    absent = sorted(set(names) - liveness.alive(directory))
    waits = [f"waiting for {dependency}" for dependency in outages(directory)]
    return [f"{name} is not running" for name in absent] + waits


def outages(directory: Path) -> list[str]:
    """The dependencies that some living process waits for."""
    sums = MultiprocessReader(directory)
    try:
        return sorted(
            dict(cell.labels)["dependency"]
            for cell, value in sums.read().items()
            if cell.family == "analytics_outage" and value
        )
    finally:
        sums.close()


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
        self.rows_read = Counter(
            "analytics_api_rows_read_total",
            "Rows that ClickHouse has read for answers, by route; not those of cancelled queries.",
            ["route"],
            registry=registry,
        )
        self.queries_cancelled = Counter(
            "analytics_api_queries_cancelled_total",
            "Queries given up because their client had gone or their time was over.",
            registry=registry,
        )
        self.in_flight = Gauge(
            "analytics_api_in_flight",
            "Requests that are being answered.",
            multiprocess_mode="sum",
            registry=registry,
        )
