"""Settings of the HTTP API."""

from dataclasses import dataclass

from octane_analytics.settings import fields


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    host: str = fields.described(
        "API_HOST", fields.text, "127.0.0.1", "Address the API listens on."
    )
    port: int = fields.described("API_PORT", fields.any_port, "8001", "Port the API listens on.")
    workers: int = fields.described(
        "API_WORKERS", fields.whole(1, 256), "2", "API processes to fork.", unit="processes"
    )
    threads: int = fields.described(
        "API_THREADS",
        fields.whole(1, 64),
        "4",
        "Reports and queries that one API process runs at once, each on a ClickHouse connection of "
        "its own.",
        unit="threads",
    )
    queue_seconds: float = fields.described(
        "API_QUEUE_TIMEOUT",
        fields.seconds(0.1, 600),
        "5",
        "How long a request may wait for one of those connections before it is turned away.",
        unit="seconds",
    )
    query_seconds: float = fields.described(
        "API_QUERY_TIMEOUT",
        fields.seconds(1, 3600),
        "30",
        "How long one report or query may run.",
        unit="seconds",
    )
    max_requests: int = fields.described(
        "API_MAX_REQUESTS",
        fields.whole(0, 1_000_000_000),
        "0",
        "An API process that has answered so many requests is replaced by a new one (0: never).",
        unit="requests",
    )
    max_requests_jitter: int = fields.described(
        "API_MAX_REQUESTS_JITTER",
        fields.whole(0, 1_000_000_000),
        "1000",
        "Up to so many more, at random for each process, so that not all are replaced at once.",
        unit="requests",
    )
    max_result_rows: int = fields.described(
        "API_MAX_RESULT_ROWS",
        fields.whole(1, 1_000_000),
        "10000",
        "Rows of an answer; further ones are cut off, and the answer says so.",
        unit="rows",
    )
    max_result_bytes: int = fields.described(
        "API_MAX_RESULT_BYTES",
        fields.whole(1 << 16, 1 << 32),
        str(64 << 20),
        "A result with more bytes than this, before compression, is refused.",
        unit="bytes",
    )
    max_memory_bytes: int = fields.described(
        "API_MAX_MEMORY_BYTES",
        fields.whole(1 << 20, 1 << 50),
        str(2 << 30),
        "Memory that one report or query may take in ClickHouse.",
        unit="bytes",
    )
    cache_bytes: int = fields.described(
        "API_CACHE_BYTES",
        fields.whole(0, 1 << 40),
        str(32 << 20),
        "Answers to reports that one API process keeps for as long as their template says (0: none).",
        unit="bytes",
    )
    reports_directory: str | None = fields.described(
        "REPORTS_DIR",
        fields.optional,
        "",
        "Directory of report templates (*.sql) that add to the built-in ones or, by their name, "
        "stand in for them.",
    )
    tokens_file: str | None = fields.described(
        "API_TOKENS_FILE",
        fields.optional,
        "",
        "TOML file of the tokens that requests must carry; `octane-analytics token` writes it "
        "(empty: no tokens, and loopback only).",
    )
    allow_anonymous: bool = fields.described(
        "API_ALLOW_ANONYMOUS",
        fields.flag,
        "0",
        "Without tokens, serve reports to whoever can reach API_HOST; raw SQL stays with loopback.",
    )
    cors_origins: tuple[str, ...] = fields.described(
        "API_CORS_ORIGINS",
        fields.origins,
        "",
        "Web pages that may call the API from a browser, by origin, comma-separated: "
        "https://dash.example.com (empty: none; *: all).",
    )
    receive_seconds: float = fields.described(
        "API_RECEIVE_TIMEOUT",
        fields.seconds(0.5, 600),
        "10",
        "A request that has not come whole in this time is dropped.",
        unit="seconds",
    )
    send_seconds: float = fields.described(
        "API_SEND_TIMEOUT",
        fields.seconds(0.5, 600),
        "30",
        "A client that takes less than 1 KiB a second of its answer is dropped after this time.",
        unit="seconds",
    )
    max_connections: int = fields.described(
        "API_MAX_CONNECTIONS",
        fields.whole(1, 100_000),
        "1000",
        "Clients connected to one API process at once; further ones are turned away.",
        unit="connections",
    )
