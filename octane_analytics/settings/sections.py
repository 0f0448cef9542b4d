"""All settings, one frozen class for each section; their order is that of `octane-analytics config`."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from octane_analytics.errors import ConfigError
from octane_analytics.settings import fields
from octane_analytics.settings.raw_sql import RawSqlSettings

MAX_BATCH_ROWS = 1_000_000
"""clickhouse-driver cuts an insert into blocks of 1,048,576 rows, and a batch has to stay one block;
what is left is room for the one poll by which a batch may grow past its limit."""

_AUTHORITY = re.compile(r"(?:\[([^\[\]\s]+)\]|([^:\[\]\s]+))(?::([0-9]{1,5}))?")
"""A host, or an IPv6 address in brackets; then perhaps a port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    bootstrap_servers: str = fields.described(
        "KAFKA_BOOTSTRAP_SERVERS",
        fields.text,
        "kafka:9092",
        "Brokers to begin with, comma-separated.",
    )
    topic: str = fields.described(
        "KAFKA_TOPIC", fields.text, "octane.events", "Topic that carries the events."
    )
    group_id: str = fields.described(
        "KAFKA_GROUP_ID", fields.text, "analytics-worker", "Consumer group of all workers."
    )
    dlq_topic_or_none: str | None = fields.described(
        "KAFKA_DLQ_TOPIC",
        fields.optional,
        "",
        "Dead-letter topic for records that are not valid events (empty: the topic plus .dlq).",
    )
    instance_prefix: str = fields.described(
        "KAFKA_INSTANCE_PREFIX",
        fields.instance,
        "auto",
        "Names this host's members of the group, with the slot's number behind it, so that a "
        "restarted worker gets its partitions back without a rebalance (auto: the host's name; "
        "none: no static membership).",
    )
    log_epoch: str = fields.described(
        "KAFKA_LOG_EPOCH",
        str.strip,
        "",
        "Part of every deduplication token: change it when the records of the topic were replaced "
        "while cluster and topic kept their identity (a broker restored from a backup).",
    )
    rdkafka: Mapping[str, str] = field(default_factory=dict, repr=False)
    """librdkafka properties by their own names, as given by KAFKA_RDKAFKA_…"""

    @property
    def dlq_topic(self) -> str:
        return self.dlq_topic_or_none or f"{self.topic}.dlq"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouseSettings:
    host: str = fields.described(
        "CLICKHOUSE_HOST",
        fields.text,
        "clickhouse",
        "ClickHouse servers, comma-separated, each with an optional :port; tried in this order.",
    )
    port: int = fields.described(
        "CLICKHOUSE_PORT",
        fields.port,
        "9000",
        "Port of the native protocol (9440 with TLS; not 8123).",
    )
    user: str = fields.described("CLICKHOUSE_USER", fields.text, "default", "ClickHouse user.")
    password: str = fields.described(
        "CLICKHOUSE_PASSWORD", fields.secret, "", "Password of the ClickHouse user.", secret=True
    )
    database: str = fields.described(
        "CLICKHOUSE_DATABASE", fields.text, "default", "Database of the table."
    )
    table: str = fields.described(
        "CLICKHOUSE_TABLE",
        fields.table,
        "ai_analytics_events",
        "Table of the events, without its database.",
    )
    is_secure: bool = fields.described(
        "CLICKHOUSE_SECURE", fields.flag, "0", "Speak TLS with ClickHouse."
    )
    ca_file: str | None = fields.described(
        "CLICKHOUSE_CA_FILE",
        fields.optional,
        "",
        "Certificate authorities to trust, PEM (empty: certifi's).",
    )
    compression: str = fields.described(
        "CLICKHOUSE_COMPRESSION",
        fields.choice("auto", "lz4", "zstd", "none"),
        "auto",
        "Compression between here and ClickHouse: lz4, zstd, none, or auto: none where every "
        "CLICKHOUSE_HOST is this machine's loopback, else lz4.",
    )
    timeout_seconds: float = fields.described(
        "CLICKHOUSE_TIMEOUT",
        fields.seconds(1, 3600),
        "60",
        "How long one insert or query may take before its connection is given up.",
        unit="seconds",
    )

    def hosts(self) -> list[tuple[str, int]]:
        """The failover list. Raises ConfigError for an entry that is no host or host:port."""
        listed = []
        for entry in self.host.split(","):
            found = _AUTHORITY.fullmatch(entry.strip())
            host, port = (found[1] or found[2], found[3] or str(self.port)) if found else ("", "")
            if not host or not 1 <= int(port) <= 65535:
                raise ConfigError(
                    f"CLICKHOUSE_HOST: {entry.strip()!r} is not a host or host:port; write for "
                    "example ch1.example.com,ch2.example.com:9440,[2001:db8::1]:9000"
                )
            listed.append((host, int(port)))
        return listed

    def compression_method(self) -> str:
        """lz4, zstd or none. Raises ConfigError as `hosts` does."""
        if self.compression != "auto":
            return self.compression
        return "none" if all(_is_loopback(host) for host, _ in self.hosts()) else "lz4"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    size: int = fields.described(
        "BATCH_SIZE",
        fields.whole(1, MAX_BATCH_ROWS),
        "1000",
        "A partition's batch is inserted once it has this many events.",
        unit="events",
    )
    flush_seconds: float = fields.described(
        "FLUSH_INTERVAL",
        fields.seconds(0.05, 3600),
        "5",
        "A batch is inserted once its first event is this old.",
        unit="seconds",
    )
    max_rows: int = fields.described(
        "BATCH_MAX_ROWS",
        fields.whole(1, MAX_BATCH_ROWS),
        "100000",
        "Under backlog a batch takes what is already fetched, up to this many events.",
        unit="events",
    )
    max_bytes: int = fields.described(
        "BATCH_MAX_BYTES",
        fields.whole(1024, 1 << 30),
        str(32 << 20),
        "A batch is inserted once its payloads have this many bytes.",
        unit="bytes",
    )
    dlq_max_ratio: float = fields.described(
        "DLQ_MAX_RATIO",
        fields.ratio,
        "0.5",
        "Consuming stops with an error when more than this share of the last ten thousand records "
        "(and of at least a thousand) are no valid events or refused by ClickHouse (1: never).",
    )
    dlq_max_consecutive: int = fields.described(
        "DLQ_MAX_CONSECUTIVE",
        fields.whole(0, 1_000_000_000),
        "1000",
        "Consuming stops with an error when so many records in a row are no valid events, or "
        "ClickHouse refuses so many rows without taking one (0: never).",
        unit="records",
    )
    delivery: str = fields.described(
        "DELIVERY",
        fields.choice("exactly-once", "at-least-once"),
        "exactly-once",
        "exactly-once: announced and deduplicated inserts per partition; at-least-once: one insert "
        "over all partitions of a worker, committed after it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    procs: int = fields.described(
        "WORKER_PROCS",
        fields.process_count,
        "auto",
        "Consumer processes to fork (auto: one for each CPU this process may use).",
        unit="processes",
    )
    drain_seconds: float = fields.described(
        "DRAIN_TIMEOUT",
        fields.seconds(1, 3600),
        "90",
        "How long a worker may take to finish its batches on shutdown before it is killed; "
        "what it had not finished is finished by its successor.",
        unit="seconds",
    )
    max_bytes: int = fields.described(
        "WORKER_MAX_BYTES",
        fields.whole(1 << 20, 1 << 40),
        str(32 << 20),
        "Payload bytes that one process holds in all its batches before it inserts the largest; "
        "librdkafka's queue (KAFKA_RDKAFKA_QUEUED_MAX_MESSAGES_KBYTES, 32768 here) comes on top.",
        unit="bytes",
    )
    heartbeat_seconds: float = fields.described(
        "HEARTBEAT_TIMEOUT",
        fields.seconds(5, 3600),
        "120",
        "A worker whose loop has not turned for this long is killed and replaced; "
        "the time that it waits for ClickHouse does not count.",
        unit="seconds",
    )
    control_socket: str | None = fields.described(
        "CONTROL_SOCKET",
        fields.optional,
        "",
        "Local socket over which `octane-analytics status` asks the supervisor (empty: worker.sock in "
        "systemd's RUNTIME_DIRECTORY, else in PROMETHEUS_MULTIPROC_DIR, else in a directory of this "
        "user's below the temporary one; none: no such socket).",
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    host: str = fields.described(
        "METRICS_HOST", fields.text, "127.0.0.1", "Address /metrics is served on."
    )
    port: int = fields.described(
        "METRICS_PORT", fields.any_port, "8000", "Port /metrics is served on."
    )
    directory: str | None = fields.described(
        "PROMETHEUS_MULTIPROC_DIR",
        fields.optional,
        "",
        "Directory of the files in which all processes keep their metrics; share it between worker "
        "and API to see both on one port (empty: one of its own below the temporary directory).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    level: str = fields.described(
        "LOG_LEVEL",
        fields.choice("debug", "info", "warning", "error"),
        "info",
        "Least severe line kept.",
    )
    format: str = fields.described(
        "LOG_FORMAT",
        fields.choice("auto", "json", "text"),
        "auto",
        "json: one object a line; text: columns; auto: text on a terminal, else json.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    clickhouse: ClickHouseSettings = field(default_factory=ClickHouseSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    queries: RawSqlSettings = field(default_factory=RawSqlSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)
