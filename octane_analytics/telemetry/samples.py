"""Samples of a text in Prometheus' format: the reverse of `exposition`."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

_PREFIX = "analytics_"


class MetricSample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


def parse(text: str) -> Iterator[MetricSample]:
    """Yield the project's samples except those of histograms' buckets. Raises ValueError."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(_PREFIX) and not sample.name.endswith("_bucket"):
                yield MetricSample(sample.name, dict(sample.labels), sample.value)
