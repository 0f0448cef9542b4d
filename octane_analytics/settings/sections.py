"""All settings, one frozen class per section, in the order of `octane-analytics config`."""

from dataclasses import dataclass, field

from octane_analytics.settings import fields
from octane_analytics.settings.connections import ClickHouseSettings, KafkaSettings
from octane_analytics.settings.raw_sql import RawSqlSettings
from octane_analytics.settings.serving import ApiSettings

MAX_BATCH_ROWS = 1_000_000
"""clickhouse-driver splits an insert into blocks of 1,048,576 rows, and a batch must stay one block; the
difference covers the one poll by which a batch may exceed its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    size: int = fields.setting(
        "BATCH_SIZE",
        fields.integer(1, MAX_BATCH_ROWS),
        "1000",
        "Number of events at which a process inserts its batch, as far as INSERTS_PER_SECOND allows.",
        unit="events",
    )
    flush_seconds: float = fields.setting(
        "FLUSH_INTERVAL",
        fields.seconds(0.05, 3600),
        "5",
        "Age in seconds of a batch's first event at which the batch is inserted in any case.",
        unit="seconds",
    )
    inserts_per_second: float = fields.setting(
        "INSERTS_PER_SECOND",
        fields.rate,
        "2",
        "Number of inserts per second by all processes of this host at most (0: no limit); a batch "
        "at its maximum size or age is inserted in any case.",
        unit="inserts/s",
    )
    max_rows: int = fields.setting(
        "BATCH_MAX_ROWS",
        fields.integer(1, MAX_BATCH_ROWS),
        "100000",
        "Number of events of a batch at which it is inserted in any case: under backlog it takes all "
        "fetched events up to this number.",
        unit="events",
    )
    max_bytes: int = fields.setting(
        "BATCH_MAX_BYTES",
        fields.integer(1024, 1 << 30),
        str(32 << 20),
        "Size of a batch's payloads in bytes at which it is inserted in any case; librdkafka's queue "
        "(KAFKA_RDKAFKA_QUEUED_MAX_MESSAGES_KBYTES) adds to it.",
        unit="bytes",
    )
    dlq_max_ratio: float = fields.setting(
        "DLQ_MAX_RATIO",
        fields.ratio,
        "0.5",
        "Share of invalid or rejected records, 0 to 1, above which consuming stops with an error; "
        "measured over the last ten thousand records and at least a thousand (1: never).",
    )
    dlq_max_consecutive: int = fields.setting(
        "DLQ_MAX_CONSECUTIVE",
        fields.integer(0, 1_000_000_000),
        "1000",
        "Number of consecutive invalid records, or of rows rejected by ClickHouse without an "
        "accepted one, at which consuming stops with an error (0: never).",
        unit="records",
    )
    delivery: str = fields.setting(
        "DELIVERY",
        fields.choice("exactly-once", "at-least-once"),
        "exactly-once",
        "Delivery guarantee: exactly-once (deduplicated inserts, announced in the metadata of a commit) "
        "or at-least-once (an insert, then a commit).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    procs: int = fields.setting(
        "WORKER_PROCS",
        fields.process_count,
        "auto",
        "Number of consumer processes (auto: one for each CPU that this process may use).",
        unit="processes",
    )
    drain_seconds: float = fields.setting(
        "DRAIN_TIMEOUT",
        fields.seconds(1, 3600),
        "90",
        "Seconds that a worker may take on shutdown to insert and commit its batches before it is "
        "killed; its successor inserts the rest.",
        unit="seconds",
    )
    heartbeat_seconds: float = fields.setting(
        "HEARTBEAT_TIMEOUT",
        fields.seconds(5, 3600),
        "120",
        "Seconds without a heartbeat of its loop after which a worker is killed and replaced; "
        "time spent waiting for ClickHouse does not count.",
        unit="seconds",
    )
    decoder: str = fields.setting(
        "DECODER",
        fields.choice("auto", "compiled", "python"),
        "auto",
        "Decoder of events: compiled (built at the installation if a C compiler is there), python, or "
        "auto (compiled if it was built); both decode alike.",
    )
    control_socket: str | None = fields.setting(
        "CONTROL_SOCKET",
        fields.optional,
        "",
        "Path of the local socket for `octane-analytics status` (empty: worker.sock in systemd's "
        "RUNTIME_DIRECTORY, else in PROMETHEUS_MULTIPROC_DIR, else in this user's directory below "
        "the temporary directory; none: no socket).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    host: str = fields.setting(
        "METRICS_HOST", fields.text, "127.0.0.1", "Address on which /metrics is served."
    )
    port: int = fields.setting(
        "METRICS_PORT",
        fields.any_port,
        "8000",
        "Port on which /metrics is served (0: a free port).",
    )
    directory: str | None = fields.setting(
        "PROMETHEUS_MULTIPROC_DIR",
        fields.optional,
        "",
        "Directory of the metrics files of all processes; share it between worker and API to serve "
        "both on one port (empty: a separate directory below the temporary directory).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    level: str = fields.setting(
        "LOG_LEVEL",
        fields.choice("debug", "info", "warning", "error"),
        "info",
        "Lowest level that is logged: debug, info, warning or error.",
    )
    format: str = fields.setting(
        "LOG_FORMAT",
        fields.choice("auto", "json", "text"),
        "auto",
        "Format of the log: json (one object per line), text (columns) or auto (text on a terminal, "
        "otherwise json).",
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
