"""Exposition of all processes' metrics in Prometheus' text format."""

import platform
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from octane_analytics import __version__
from octane_analytics.telemetry import inserted_counter
from octane_analytics.telemetry.multiprocess_reader import Labels, MultiprocessReader, SeriesKey

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKET_LABEL = "le"


class MetricSource(Protocol):
    """Source of metrics that the serving process computes itself, without a file."""

    def collect(self) -> Iterable[Metric]: ...


class Exposition:
    """Renders all metrics of the directory and of `sources`; each call reads the files again."""

    def __init__(self, directory: Path, *sources: MetricSource) -> None:
        self._reader = MultiprocessReader(directory)
        self._computed = CollectorRegistry()
        self._lock = threading.Lock()
        self._names: dict[SeriesKey, str] = {}
        for source in (ComputedMetrics(directory), *sources):
            self._computed.register(source)

    def __call__(self) -> bytes:
        with self._lock:
            text = "".join(self._lines(self._reader.read()))
        return text.encode() + generate_latest(self._computed)

    def close(self) -> None:
        self._reader.close()

    def _lines(self, values: Mapping[SeriesKey, float]) -> Iterator[str]:
        families: dict[str, list[SeriesKey]] = {}
        for series in values:
            families.setdefault(series.family, []).append(series)
        for members in families.values():
            first = members[0]
            yield _header(first)
            if first.kind == "histogram":
                yield from self._histogram_lines(members, values)
            else:
                for series in members:
                    yield _line(self._name(series), values[series])

    def _histogram_lines(
        self, members: Sequence[SeriesKey], values: Mapping[SeriesKey, float]
    ) -> Iterator[str]:
        """Yield cumulative buckets and `_count`; a file holds each bucket's own count alone."""
        buckets_by_labels: dict[Labels, list[tuple[float, SeriesKey]]] = {}
        for series in members:
            bound = next(
                (float(value) for name, value in series.labels if name == _BUCKET_LABEL), None
            )
            if bound is None:
                yield _line(self._name(series), values[series])
                continue
            labels = tuple(label for label in series.labels if label[0] != _BUCKET_LABEL)
            buckets_by_labels.setdefault(labels, []).append((bound, series))
        for labels, buckets in buckets_by_labels.items():
            total = 0.0
            for _, series in sorted(buckets, key=itemgetter(0)):
                total += values[series]
                yield _line(self._name(series), total)
            yield _line(_series_name(f"{series.family}_count", labels), total)

    def _name(self, series: SeriesKey) -> str:
        name = self._names.get(series)
        if name is None:
            name = self._names[series] = _series_name(series.name, series.labels)
        return name


def exposition(directory: Path, *sources: MetricSource) -> bytes:
    """Return the text once; a server keeps an `Exposition`, which reads faster."""
    rendered = Exposition(directory, *sources)
    try:
        return rendered()
    finally:
        rendered.close()


def _header(series: SeriesKey) -> str:
    name = f"{series.family}_total" if series.kind == "counter" else series.family
    help_text = series.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {help_text}\n# TYPE {name} {series.kind}\n"


def _line(name: str, value: float) -> str:
    return f"{name} {floatToGoString(value)}\n"  # type: ignore[no-untyped-call]


def _series_name(name: str, labels: Labels) -> str:
    pairs = ",".join(f'{label}="{_escape(value)}"' for label, value in labels)
    return f"{name}{{{pairs}}}" if pairs else name


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class ComputedMetrics:
    """Metrics outside of the library's files: the exact count of inserted events, and the build."""

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
