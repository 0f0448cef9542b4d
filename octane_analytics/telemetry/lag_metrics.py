"""Metrics of the group's lag, measured by the metrics process, so that they exist without a worker.

The timestamp of the oldest record is kept, not its age: the age is computed at each scrape and keeps
growing while the workers or the measurement stand still. A measurement costs some milliseconds of CPU
with 32 partitions: it is made every other second, and for a scrape that would find one older than a
second; less often with more partitions.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from octane_analytics.errors import OctaneError
from octane_analytics.telemetry.logging import fields
from octane_analytics.types import UncommittedLag

_LOG = logging.getLogger(__name__)
_FRESH_SECONDS, _UPDATE_SECONDS, _MAX_UPDATE_SECONDS = 1.0, 2.0, 8.0
_PARTITIONS_PER_SECOND = 16
"""Partitions measured in a second, so that a wide topic does not cost more than a narrow one."""
_RETRY_SECONDS = 5.0
_SCRAPE_WAIT_SECONDS = 0.25
"""Longest wait of a scrape for a measurement; it takes some ten milliseconds unless brokers are slow."""


class LagCollector:
    """Collector of the lag as of the last successful measurement.

    `measure` returns the lag by partition number; `now` returns epoch seconds.
    """

    def __init__(
        self,
        measure: Callable[[], Mapping[int, UncommittedLag]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._measure = measure
        self._now = now
        self._lags: Mapping[int, UncommittedLag] = {}
        self._measured_at: float | None = None
        self._is_failing = False
        self._updates = 0
        self._updated = threading.Condition()
        self.request_update: Callable[[], object] | None = None
        """Function that makes another thread call `update` soon; None without one."""

    def update(self) -> float:
        """Measure the lag; return the seconds until the next update. Blocks on Kafka.

        If Kafka is unavailable, the last measurement stays and its timestamp shows its age.
        """
        try:
            return self._update()
        finally:
            with self._updated:
                self._updates += 1
                self._updated.notify_all()

    def _update(self) -> float:
        try:
            lags = self._measure()
        except OctaneError as error:
            if not self._is_failing:
                _LOG.warning("lag cannot be measured", extra=fields(error=str(error)))
            self._is_failing = True
            return _RETRY_SECONDS
        if self._is_failing:
            _LOG.info("lag is measured again")
        self._is_failing, self._lags, self._measured_at = False, lags, self._now()
        return max(_UPDATE_SECONDS, self._fresh_seconds)

    @property
    def _fresh_seconds(self) -> float:
        """Age up to which a scrape takes the last measurement."""
        wanted = len(self._lags) / _PARTITIONS_PER_SECOND
        return min(max(_FRESH_SECONDS, wanted), _MAX_UPDATE_SECONDS)

    def _refresh(self) -> None:
        """Request a measurement if the last one is old, and wait for it for a moment.

        During an outage the last one stays: its updates are retried at their own pace.
        """
        if self.request_update is None or self._is_failing or self._measured_at is None:
            return
        if 0.0 <= self._now() - self._measured_at < self._fresh_seconds:
            return
        with self._updated:
            seen = self._updates
            self.request_update()
            self._updated.wait_for(lambda: self._updates != seen, _SCRAPE_WAIT_SECONDS)

    @property
    def total(self) -> tuple[int, int] | None:
        """Messages over all partitions, and the part that open transactions hold back; None while
        unknown."""
        if self._is_failing or self._measured_at is None:
            return None
        lags = self._lags.values()
        return sum(lag.messages for lag in lags), sum(lag.held_back for lag in lags)

    def collect(self) -> Iterable[Metric]:
        """See `exposition.MetricSource`. Blocks for a moment if the last measurement is old."""
        self._refresh()
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
        held_back = GaugeMetricFamily(
            "analytics_lag_held_back_messages",
            "Part of analytics_lag_messages after the last stable offset, which an open transaction of "
            "a producer keeps from every consumer.",
            labels=["partition"],
        )
        updated = GaugeMetricFamily(
            "analytics_lag_updated_timestamp_seconds", "Time of the last measurement of lag."
        )
        now = self._now()
        for number, lag in self._lags.items():
            messages.add_metric([str(number)], lag.messages)
            held_back.add_metric([str(number)], lag.held_back)
            if lag.messages == 0:
                seconds.add_metric([str(number)], 0.0)
            elif lag.oldest_at is not None:
                seconds.add_metric([str(number)], max(0.0, now - lag.oldest_at))
        if self._measured_at is not None:
            updated.add_metric([], self._measured_at)
        return messages, seconds, held_back, updated
