"""Metric of ClickHouse's deduplication window: the number of insert tokens that the table remembers."""

import contextlib
from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from octane_analytics.errors import OctaneError

_UPDATE_SECONDS = 60.0


class DedupWindowCollector:
    """Collector of the window as of the last update.

    `read_window` returns the table's window, or None if the table does not exist.
    """

    def __init__(self, read_window: Callable[[], int | None]) -> None:
        self._read_window = read_window
        self._window: int | None = None

    def update(self) -> float:
        """Read the window; return the seconds until the next update. Blocks on ClickHouse."""
        with contextlib.suppress(OctaneError):  # the workers report ClickHouse's errors
            self._window = self._read_window()
        return _UPDATE_SECONDS

    def collect(self) -> Iterable[Metric]:
        """See `exposition.MetricSource`."""
        window = GaugeMetricFamily(
            "analytics_deduplication_window_inserts",
            "Inserts into the table that ClickHouse remembers by their tokens.",
        )
        if self._window is not None:
            window.add_metric([], self._window)
        return (window,)
