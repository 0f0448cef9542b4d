"""All processes' metrics in Prometheus' text format."""

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
_BOUND = "le"


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
