"""Lag, watched beside the workers so that it is told while none of them runs.

Kept as the time of the oldest record, not as an age: an age is worked out when somebody asks, and so
goes on growing through whatever stops the workers or the watch itself.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from octane_analytics.errors import OctaneError
from octane_analytics.telemetry.logging import fields
from octane_analytics.types import UncommittedLag

_LOG = logging.getLogger(__name__)
_EVERY_SECONDS = 1.0
_FAILED_SECONDS = 5.0


class LagCollector:
    """`collect` answers what the last look saw."""

    def __init__(
        self,
        ask: Callable[[], Mapping[int, UncommittedLag]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._now = now
        self._seen: Mapping[int, UncommittedLag] = {}
        self._seen_at: float | None = None
        self._is_failing = False

    def update(self) -> float:
        """Where no broker answers, what was seen before stays, and its time tells its age."""
        try:
            seen = self._ask()
        except OctaneError as error:
            if not self._is_failing:
                _LOG.warning("lag cannot be told", extra=fields(error=str(error)))
            self._is_failing = True
            return _FAILED_SECONDS
        if self._is_failing:
            _LOG.info("lag can be told again")
        self._is_failing, self._seen, self._seen_at = False, seen, self._now()
        return _EVERY_SECONDS

    @property
    def total(self) -> tuple[int, int] | None:
        """Messages over all partitions, and those of them that open transactions hold back; None while
        they are not known."""
        if self._is_failing or self._seen_at is None:
            return None
        seen = self._seen.values()
        return sum(lag.messages for lag in seen), sum(lag.held_back for lag in seen)

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
        held_back = GaugeMetricFamily(
            "analytics_lag_held_back_messages",
            "Those of analytics_lag_messages after the last stable offset: an open transaction of a "
            "producer keeps them from every consumer.",
            labels=["partition"],
        )
        looked = GaugeMetricFamily(
            "analytics_lag_updated_timestamp_seconds", "When lag was last seen."
        )
        now = self._now()
        for number, lag in self._seen.items():
            messages.add_metric([str(number)], lag.messages)
            held_back.add_metric([str(number)], lag.held_back)
            if lag.messages == 0:
                seconds.add_metric([str(number)], 0.0)
            elif lag.oldest_at is not None:
                seconds.add_metric([str(number)], max(0.0, now - lag.oldest_at))
        if self._seen_at is not None:
            looked.add_metric([], self._seen_at)
        return messages, seconds, held_back, looked
