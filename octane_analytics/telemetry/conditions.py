"""Conditions under which the service is not healthy, each with its number, its limit and its section.

Limits are those of the alerts that need no history. `octane-analytics status` and /status print the same
sentences. Does not depend on where the samples come from.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from octane_analytics.telemetry.samples import MetricSample

MAX_LAG_AGE_SECONDS = 120.0
"""Limit of the alert AnalyticsLagUnknown."""
_OUTAGES = {"clickhouse": "AnalyticsClickHouseOutage"}
_OTHER_OUTAGE = "AnalyticsKafkaOutage"


@dataclass(frozen=True, slots=True)
class Condition:
    text: str
    """Number and limit, in one line without a full stop."""
    section: str
    """Heading on the manual's page."""
    page: str = "alerts"
    """Page of the manual."""


def conditions(samples: Iterable[MetricSample], now: float) -> list[Condition]:
    """Return the conditions that the metrics show; `now` is in epoch seconds."""
    values: dict[str, list[MetricSample]] = {}
    for sample in samples:
        values.setdefault(sample.name, []).append(sample)
    return [
        *_outages(values.get("analytics_outage", [])),
        *_lag(values.get("analytics_lag_updated_timestamp_seconds", []), now),
        *_waiting_batches(values.get("analytics_batches_waiting", [])),
    ]


def _outages(samples: list[MetricSample]) -> Iterator[Condition]:
    for dependency in sorted({sample.labels.get("dependency", "") for sample in samples}):
        waiting = _total(s for s in samples if s.labels.get("dependency", "") == dependency)
        if waiting > 0:
            section = _OUTAGES.get(dependency, _OTHER_OUTAGE)
            yield Condition(
                f"workers that wait for {dependency}: {waiting:,.0f} (limit 0)", section
            )


def _lag(samples: list[MetricSample], now: float) -> Iterator[Condition]:
    measured_at = max((sample.value for sample in samples), default=0.0)
    if measured_at and now - measured_at > MAX_LAG_AGE_SECONDS:
        yield Condition(
            f"seconds since lag was measured: {now - measured_at:,.0f} "
            f"(limit {MAX_LAG_AGE_SECONDS:,.0f})",
            "AnalyticsLagUnknown",
        )


def _waiting_batches(samples: list[MetricSample]) -> Iterator[Condition]:
    waiting = _total(samples)
    if waiting > 0:
        yield Condition(
            f"pending batches that cannot be inserted: {waiting:,.0f} (limit 0)",
            "AnalyticsBatchesWaiting",
        )


def _total(samples: Iterable[MetricSample]) -> float:
    return sum(sample.value for sample in samples)
