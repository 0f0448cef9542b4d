"""All settings, one frozen class for each section.

Their order is that of `octane-analytics config`.
"""

from dataclasses import dataclass, field

from octane_analytics.settings import fields
from octane_analytics.settings.connections import ClickHouseSettings, KafkaSettings
from octane_analytics.settings.raw_sql import RawSqlSettings
from octane_analytics.settings.serving import ApiSettings

MAX_BATCH_ROWS = 1_000_000
"""clickhouse-driver cuts an insert into blocks of 1,048,576 rows, and a batch has to stay one block;
what is left is room for the one poll by which a batch may grow past its limit."""


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
