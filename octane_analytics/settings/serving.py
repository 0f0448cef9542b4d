"""Settings of the HTTP API."""

from dataclasses import dataclass

from octane_analytics.settings import fields


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    host: str = fields.setting(
        "API_HOST", fields.text, "127.0.0.1", "Address on which the API listens."
    )
    port: int = fields.setting(
        "API_PORT", fields.any_port, "8001", "Port on which the API listens (0: a free port)."
    )
    workers: int = fields.setting(
        "API_WORKERS", fields.integer(1, 256), "2", "Number of API processes.", unit="processes"
    )
    threads: int = fields.setting(
        "API_THREADS",
        fields.integer(1, 64),
        "4",
        "Number of reports and queries that one API process runs concurrently, each on its own "
        "ClickHouse connection.",
        unit="threads",
    )
    queue_seconds: float = fields.setting(
        "API_QUEUE_TIMEOUT",
        fields.seconds(0.1, 600),
        "5",
        "Seconds that a request may wait for a ClickHouse connection before it is refused.",
        unit="seconds",
    )
    query_seconds: float = fields.setting(
        "API_QUERY_TIMEOUT",
        fields.seconds(1, 3600),
        "30",
        "Seconds that one report or query may run.",
        unit="seconds",
    )
    max_requests: int = fields.setting(
        "API_MAX_REQUESTS",
        fields.integer(0, 1_000_000_000),
        "0",
        "Number of requests after which an API process is replaced (0: never).",
        unit="requests",
    )
    max_requests_jitter: int = fields.setting(
        "API_MAX_REQUESTS_JITTER",
        fields.integer(0, 1_000_000_000),
        "1000",
        "Maximum random number of requests added to API_MAX_REQUESTS for each process, so that not "
        "all are replaced at once.",
        unit="requests",
    )
    max_result_rows: int = fields.setting(
        "API_MAX_RESULT_ROWS",
        fields.integer(1, 1_000_000),
        "10000",
        "Maximum number of rows in a response; a longer result is truncated and marked as such.",
        unit="rows",
    )
    max_result_bytes: int = fields.setting(
        "API_MAX_RESULT_BYTES",
        fields.integer(1 << 16, 1 << 32),
        str(64 << 20),
        "Maximum size in bytes of a result before compression; a larger one is refused.",
        unit="bytes",
    )
    max_memory_bytes: int = fields.setting(
        "API_MAX_MEMORY_BYTES",
        fields.integer(1 << 20, 1 << 50),
        str(2 << 30),
        "Maximum memory in bytes that one report or query may use in ClickHouse.",
        unit="bytes",
    )
    cache_bytes: int = fields.setting(
        "API_CACHE_BYTES",
        fields.integer(0, 1 << 40),
        str(32 << 20),
        "Size in bytes of one API process's report cache; each template sets how long its reports "
        "are kept (0: no cache).",
        unit="bytes",
    )
    reports_directory: str | None = fields.setting(
        "REPORTS_DIR",
        fields.optional,
        "",
        "Directory of additional report templates (*.sql); one with the name of a built-in template "
        "replaces it.",
    )
    tokens_file: str | None = fields.setting(
        "API_TOKENS_FILE",
        fields.optional,
        "",
        "TOML file of the access tokens, written by `octane-analytics token` (empty: no tokens, and "
        "loopback only).",
    )
    allow_anonymous: bool = fields.setting(
        "API_ALLOW_ANONYMOUS",
        fields.flag,
        "0",
        "Serve reports without tokens on any API_HOST (1: yes, 0: no); raw SQL stays restricted to "
        "loopback.",
    )
    cors_origins: tuple[str, ...] = fields.setting(
        "API_CORS_ORIGINS",
        fields.origins,
        "",
        "Origins of web pages that may call the API, comma-separated, for example "
        "https://dash.example.com (empty: none; *: all).",
    )
    receive_seconds: float = fields.setting(
        "API_RECEIVE_TIMEOUT",
        fields.seconds(0.5, 600),
        "10",
        "Seconds after which an incomplete request is dropped.",
        unit="seconds",
    )
    send_seconds: float = fields.setting(
        "API_SEND_TIMEOUT",
        fields.seconds(0.5, 600),
        "30",
        "Seconds after which a client that reads less than 1 KiB per second is disconnected.",
        unit="seconds",
    )
    max_connections: int = fields.setting(
        "API_MAX_CONNECTIONS",
        fields.integer(1, 100_000),
        "1000",
        "Maximum number of concurrent client connections of one API process; more are refused.",
        unit="connections",
    )
