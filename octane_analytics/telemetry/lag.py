"""Lag, watched beside the workers so that it is told while none of them runs.

Kept as the time of the oldest record, not as an age: an age is worked out when somebody asks, and so
goes on growing through whatever stops the workers or the watch itself.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from octane_analytics.errors import OctaneError
from octane_analytics.telemetry.logging import fields
from octane_analytics.types import PartitionLag

_LOG = logging.getLogger(__name__)
_EVERY_SECONDS = 1.0
_FAILED_SECONDS = 5.0


class LagWatch:
    """Looks every second from a thread of its own; `collect` answers what it saw last."""

    def __init__(
        self,
        look: Callable[[], Mapping[int, PartitionLag]],
        close: Callable[[], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._look = look
        self._close = close
        self._now = now
        self._seen: Mapping[int, PartitionLag] = {}
        self._seen_at: float | None = None
        self._is_failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for the look under way, a few seconds at most."""
        self._stop.set()
        self._thread.join(3.0)

    def refresh(self) -> None:
        """One look. Where no broker answers, what was seen before stays, and its time tells how old it is."""
        try:
            seen = self._look()
        except OctaneError as error:
            if not self._is_failing:
                _LOG.warning("lag cannot be told", extra=fields(error=str(error)))
            self._is_failing = True
            return
        if self._is_failing:
            _LOG.info("lag can be told again")
        self._is_failing, self._seen, self._seen_at = False, seen, self._now()

    def collect(self) -> Iterable[Metric]:
        """See `metrics.Families`."""
        messages = GaugeMetricFamily(
            "analytics_lag_messages",
            "Records of the partition that the group has not committed.",
            labels=["partition"],
        )
        seconds = GaugeMetricFamily(
            "analytics_lag_seconds",
            "Age of the oldest record that is not committed, by Kafka's timestamps; 0 without lag.",
            labels=["partition"],
        )
        looked = GaugeMetricFamily(
            "analytics_lag_updated_timestamp_seconds", "When lag was last seen."
        )
        now = self._now()
        for number, lag in self._seen.items():
            messages.add_metric([str(number)], lag.messages)
            if lag.messages == 0:
                seconds.add_metric([str(number)], 0.0)
            elif lag.oldest_at is not None:
                seconds.add_metric([str(number)], max(0.0, now - lag.oldest_at))
        if self._seen_at is not None:
            looked.add_metric([], self._seen_at)
        return messages, seconds, looked

    def _run(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self._stop.wait(_FAILED_SECONDS if self._is_failing else _EVERY_SECONDS)
        self._close()
