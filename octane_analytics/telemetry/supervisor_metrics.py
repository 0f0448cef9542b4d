"""Metrics of the supervisor: restarts of its processes by cause."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter


class SupervisorMetrics:
    """Metrics of the supervisor."""

    def __init__(
        self, registry: CollectorRegistry | None = None, causes: Sequence[str] = ()
    ) -> None:
        self.restarts = Counter(
            "analytics_process_restarts_total",
            "Processes that exited unexpectedly, by cause: signal, hang (killed without heartbeats), "
            "unavailable, config, fault.",
            ["cause"],
            registry=registry,
        )
        # A counter that starts with its first event hides that event from rate().
        for cause in causes:
            self.restarts.labels(cause)
