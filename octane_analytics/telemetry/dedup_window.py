"""How many inserts ClickHouse remembers by their tokens: what exactly-once rests on, watched."""

import contextlib
from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from octane_analytics.errors import OctaneError

_EVERY_SECONDS = 60.0


class DedupWindowCollector:
    """`ask` answers the table's window, None where there is no table; `collect` what it said last."""

    def __init__(self, ask: Callable[[], int | None]) -> None:
        self._ask = ask
        self._window: int | None = None

    def update(self) -> float:
        with contextlib.suppress(OctaneError):  # the workers say what is wrong with ClickHouse
            self._window = self._ask()
        return _EVERY_SECONDS

    def collect(self) -> Iterable[Metric]:
        """See `metrics.Families`."""
        window = GaugeMetricFamily(
            "analytics_deduplication_window_inserts",
            "Inserts into the table that ClickHouse remembers by their tokens.",
        )
        if self._window is not None:
            window.add_metric([], self._window)
        return (window,)
