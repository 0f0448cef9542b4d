"""Metrics of the API's processes."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ApiMetrics:
    """Counters of the API. No registry is needed with a metrics directory: the reader sums its files."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.requests = Counter(
            "analytics_api_requests_total",
            "Requests that were answered, by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "analytics_api_request_seconds",
            "Time to answer, by route.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.cache = Counter(
            "analytics_api_cache_total",
            "Reports by origin of the answer: hit, shared (with a concurrent request), miss, bypass.",
            ["outcome"],
            registry=registry,
        )
        self.rows_read = Counter(
            "analytics_api_rows_read_total",
            "Rows that ClickHouse has read for answers, by route, without cancelled queries.",
            ["route"],
            registry=registry,
        )
        self.queries_cancelled = Counter(
            "analytics_api_queries_cancelled_total",
            "Queries cancelled because their client disconnected or their timeout passed.",
            registry=registry,
        )
        self.in_flight = Gauge(
            "analytics_api_in_flight",
            "Requests that are being answered.",
            multiprocess_mode="sum",
            registry=registry,
        )
        self.live_listeners = Gauge(
            "analytics_api_live_listeners",
            "Clients that listen to a live report.",
            multiprocess_mode="sum",
            registry=registry,
        )
