"""The metrics of the API's processes."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ApiMetrics:
    """What the API counts. With a shared directory it needs no registry: the files are one."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.requests = Counter(
            "analytics_api_requests_total",
            "Answered requests by route and status.",
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
            "Reports by where the answer came from: hit, shared (with a request under way), miss, "
            "bypass.",
            ["outcome"],
            registry=registry,
        )
        self.rows_read = Counter(
            "analytics_api_rows_read_total",
            "Rows that ClickHouse has read for answers, by route; not those of cancelled queries.",
            ["route"],
            registry=registry,
        )
        self.queries_cancelled = Counter(
            "analytics_api_queries_cancelled_total",
            "Queries given up because their client had gone or their time was over.",
            registry=registry,
        )
        self.in_flight = Gauge(
            "analytics_api_in_flight",
            "Requests that are being answered.",
            multiprocess_mode="sum",
            registry=registry,
        )
