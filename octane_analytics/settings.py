"""Every setting: its name in the environment, default, unit, meaning, and where its value came from.

An option on the command line wins over the environment, the environment over the default. A secret
can also be given as the name of a file (`NAME_FILE`). Owns reading and checking of single values and
of those that only make sense together; refuses to know what anybody does with them.
"""

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from octane_analytics.errors import ConfigError

RDKAFKA_PREFIX = "KAFKA_RDKAFKA_"
HTTP_PORTS = (8123, 8443)
"""ClickHouse's HTTP ports, which people take for the native one."""
NATIVE_PORT, NATIVE_TLS_PORT = 9000, 9440
MAX_BATCH_ROWS = 1_000_000
"""clickhouse-driver cuts an insert into blocks of 1,048,576 rows, and a batch has to stay one block;
what is left is room for the one poll by which a batch may grow past its limit."""

_AUTHORITY = re.compile(r"(?:\[([^\[\]\s]+)\]|([^:\[\]\s]+))(?::([0-9]{1,5}))?")
"""A host, or an IPv6 address in brackets; then perhaps a port."""

MASK = "********"

Source = Literal["option", "environment", "file", "default"]


def _text(raw: str) -> str:
    if not raw.strip():
        raise ValueError("must not be empty")
    return raw.strip()


def _optional(raw: str) -> str | None:
    return raw.strip() or None


def _secret(raw: str) -> str:
    return raw


def _flag(raw: str) -> bool:
    match raw.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off" | "":
            return False
    raise ValueError("must be one of 1, true, yes, on, 0, false, no, off")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        try:
            value = int(raw.strip())
        except ValueError:
            raise ValueError("must be a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        try:
            value = float(raw.strip())
        except ValueError:
            raise ValueError("must be a number of seconds") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds")
        return value

    return parse


def _ratio(raw: str) -> float:
    try:
        value = float(raw.strip())
    except ValueError:
        raise ValueError("must be a number from 0 to 1") from None
    if not 0 <= value <= 1:
        raise ValueError("must be from 0 to 1")
    return value


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        value = raw.strip().lower()
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return parse


def _process_count(raw: str) -> int:
    if raw.strip().lower() == "auto":
        return len(os.sched_getaffinity(0))
    return _whole(1, 1024)(raw)


def _instance(raw: str) -> str:
    value = raw.strip()
    return {"auto": socket.gethostname(), "none": ""}.get(value, value)


_port = _whole(1, 65535)
_any_port = _whole(0, 65535)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a setting apart from its value. `default` is as one would write it."""

    name: str
    default: str
    help: str
    unit: str
    is_secret: bool
    parse: Callable[[str], object]


def _setting(
    name: str,
    parse: Callable[[str], Any],
    default: str,
    help: str,  # noqa: A002
    *,
    unit: str = "",
    secret: bool = False,
) -> Any:
    described = Setting(name, default, help, unit, secret, parse)
    return field(
        default_factory=lambda: parse(default), repr=not secret, metadata={"setting": described}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    bootstrap_servers: str = _setting(
        "KAFKA_BOOTSTRAP_SERVERS", _text, "kafka:9092", "Brokers to begin with, comma-separated."
    )
    topic: str = _setting("KAFKA_TOPIC", _text, "octane.events", "Topic that carries the events.")
    group_id: str = _setting(
        "KAFKA_GROUP_ID", _text, "analytics-worker", "Consumer group of all workers."
    )
    dlq_topic_or_none: str | None = _setting(
        "KAFKA_DLQ_TOPIC",
        _optional,
        "",
        "Dead-letter topic for records that are not valid events (empty: the topic plus .dlq).",
    )
    instance_prefix: str = _setting(
        "KAFKA_INSTANCE_PREFIX",
        _instance,
        "auto",
        "Names this host's members of the group, with the slot's number behind it, so that a "
        "restarted worker gets its partitions back without a rebalance (auto: the host's name; "
        "none: no static membership).",
    )
    log_epoch: str = _setting(
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
    host: str = _setting(
        "CLICKHOUSE_HOST",
        _text,
        "clickhouse",
        "ClickHouse servers, comma-separated, each with an optional :port; tried in this order.",
    )
    port: int = _setting(
        "CLICKHOUSE_PORT", _port, "9000", "Port of the native protocol (9440 with TLS; not 8123)."
    )
    user: str = _setting("CLICKHOUSE_USER", _text, "default", "ClickHouse user.")
    password: str = _setting(
        "CLICKHOUSE_PASSWORD", _secret, "", "Password of the ClickHouse user.", secret=True
    )
    database: str = _setting("CLICKHOUSE_DATABASE", _text, "default", "Database of the table.")
    table: str = _setting("CLICKHOUSE_TABLE", _text, "ai_analytics_events", "Table of the events.")
    is_secure: bool = _setting("CLICKHOUSE_SECURE", _flag, "0", "Speak TLS with ClickHouse.")
    ca_file: str | None = _setting(
        "CLICKHOUSE_CA_FILE",
        _optional,
        "",
        "Certificate authorities to trust, PEM (empty: certifi's).",
    )
    compression: str = _setting(
        "CLICKHOUSE_COMPRESSION",
        _choice("lz4", "zstd", "none"),
        "lz4",
        "Compression between here and ClickHouse: lz4, zstd or none.",
    )
    timeout_seconds: float = _setting(
        "CLICKHOUSE_TIMEOUT",
        _seconds(1, 3600),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    size: int = _setting(
        "BATCH_SIZE",
        _whole(1, MAX_BATCH_ROWS),
        "1000",
        "A partition's batch is inserted once it has this many events.",
        unit="events",
    )
    flush_seconds: float = _setting(
        "FLUSH_INTERVAL",
        _seconds(0.05, 3600),
        "5",
        "A batch is inserted once its first event is this old.",
        unit="seconds",
    )
    max_rows: int = _setting(
        "BATCH_MAX_ROWS",
        _whole(1, MAX_BATCH_ROWS),
        "100000",
        "Under backlog a batch takes what is already fetched, up to this many events.",
        unit="events",
    )
    max_bytes: int = _setting(
        "BATCH_MAX_BYTES",
        _whole(1024, 1 << 30),
        str(32 << 20),
        "A batch is inserted once its payloads have this many bytes.",
        unit="bytes",
    )
    dlq_max_ratio: float = _setting(
        "DLQ_MAX_RATIO",
        _ratio,
        "0.5",
        "Consuming stops with an error when more than this share of the last ten thousand records "
        "(and of at least a thousand) are no valid events (1: never).",
    )
    dlq_max_consecutive: int = _setting(
        "DLQ_MAX_CONSECUTIVE",
        _whole(0, 1_000_000_000),
        "1000",
        "Consuming stops with an error when so many records in a row are no valid events "
        "(0: never).",
        unit="records",
    )
    delivery: str = _setting(
        "DELIVERY",
        _choice("exactly-once", "at-least-once"),
        "exactly-once",
        "exactly-once: announced and deduplicated inserts per partition; at-least-once: one insert "
        "over all partitions of a worker, committed after it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    procs: int = _setting(
        "WORKER_PROCS",
        _process_count,
        "auto",
        "Consumer processes to fork (auto: one for each CPU this process may use).",
        unit="processes",
    )
    drain_seconds: float = _setting(
        "DRAIN_TIMEOUT",
        _seconds(1, 3600),
        "90",
        "How long a worker may take to finish its batches on shutdown before it is killed; "
        "what it had not finished is finished by its successor.",
        unit="seconds",
    )
    max_bytes: int = _setting(
        "WORKER_MAX_BYTES",
        _whole(1 << 20, 1 << 40),
        str(32 << 20),
        "Payload bytes that one process holds in all its batches before it inserts the largest; "
        "librdkafka's queue (KAFKA_RDKAFKA_QUEUED_MAX_MESSAGES_KBYTES, 32768 here) comes on top.",
        unit="bytes",
    )
    heartbeat_seconds: float = _setting(
        "HEARTBEAT_TIMEOUT",
        _seconds(5, 3600),
        "120",
        "A worker whose loop has not turned for this long is killed and replaced; "
        "must be longer than CLICKHOUSE_TIMEOUT.",
        unit="seconds",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    host: str = _setting("API_HOST", _text, "127.0.0.1", "Address the API listens on.")
    port: int = _setting("API_PORT", _any_port, "8001", "Port the API listens on.")
    workers: int = _setting(
        "API_WORKERS", _whole(1, 256), "2", "API processes to fork.", unit="processes"
    )
    threads: int = _setting(
        "API_THREADS",
        _whole(1, 64),
        "4",
        "Reports and queries that one API process runs at once, each on a ClickHouse connection of "
        "its own.",
        unit="threads",
    )
    queue_seconds: float = _setting(
        "API_QUEUE_TIMEOUT",
        _seconds(0.1, 600),
        "5",
        "How long a request may wait for one of those connections before it is turned away.",
        unit="seconds",
    )
    query_seconds: float = _setting(
        "API_QUERY_TIMEOUT",
        _seconds(1, 3600),
        "30",
        "How long one report or query may run.",
        unit="seconds",
    )
    max_result_rows: int = _setting(
        "API_MAX_RESULT_ROWS",
        _whole(1, 1_000_000),
        "10000",
        "Rows of an answer; further ones are cut off, and the answer says so.",
        unit="rows",
    )
    max_result_bytes: int = _setting(
        "API_MAX_RESULT_BYTES",
        _whole(1 << 16, 1 << 32),
        str(64 << 20),
        "A result with more bytes than this, before compression, is refused.",
        unit="bytes",
    )
    max_memory_bytes: int = _setting(
        "API_MAX_MEMORY_BYTES",
        _whole(1 << 20, 1 << 50),
        str(2 << 30),
        "Memory that one report or query may take in ClickHouse.",
        unit="bytes",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    host: str = _setting("METRICS_HOST", _text, "127.0.0.1", "Address /metrics is served on.")
    port: int = _setting("METRICS_PORT", _any_port, "8000", "Port /metrics is served on.")
    directory: str | None = _setting(
        "PROMETHEUS_MULTIPROC_DIR",
        _optional,
        "",
        "Directory of the files in which all processes keep their metrics; share it between worker "
        "and API to see both on one port (empty: one of its own below the temporary directory).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    level: str = _setting(
        "LOG_LEVEL", _choice("debug", "info", "warning", "error"), "info", "Least severe line kept."
    )
    format: str = _setting(
        "LOG_FORMAT",
        _choice("auto", "json", "text"),
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
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value came from, in a form that may be shown: a secret is masked."""

    name: str
    shown: str
    source: Source
    detail: str
    """The option or file, if the value came from one."""


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    origins: tuple[Origin, ...]


_SECTIONS = {
    "kafka": KafkaSettings,
    "clickhouse": ClickHouseSettings,
    "batch": BatchSettings,
    "worker": WorkerSettings,
    "api": ApiSettings,
    "metrics": MetricsSettings,
    "log": LogSettings,
}


def catalogue() -> list[Setting]:
    """Every setting there is, in the order of the sections; KAFKA_RDKAFKA_… stands apart."""
    return [
        cast(Setting, item.metadata["setting"])
        for section in _SECTIONS.values()
        for item in fields(section)
        if "setting" in item.metadata
    ]


def load(environ: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Loaded:
    """Reads all settings; `overrides` are the command line's, by the setting's name.

    Raises ConfigError that names the setting, its value (unless secret) and what it may be. Reads the
    files that `NAME_FILE` variables name, nothing else.
    """
    origins: list[Origin] = []
    sections: dict[str, Any] = {}
    for section, kind in _SECTIONS.items():
        values: dict[str, object] = {}
        for item in fields(kind):
            if "setting" in item.metadata:
                values[item.name] = _read(
                    item.metadata["setting"], environ, overrides or {}, origins
                )
        if kind is KafkaSettings:
            values["rdkafka"] = _rdkafka(environ, origins)
        sections[section] = kind(**values)
    settings = Settings(**sections)
    _check_together(settings)
    return Loaded(settings, tuple(origins))


def _read(
    setting: Setting,
    environ: Mapping[str, str],
    overrides: Mapping[str, str],
    origins: list[Origin],
) -> object:
    raw, source, detail = _find(setting, environ, overrides)
    try:
        value = setting.parse(raw)
    except ValueError as error:
        told = "" if setting.is_secret else f" is {raw!r}:"
        raise ConfigError(f"{setting.name}{told} {error}") from error
    shown = (MASK if raw else "") if setting.is_secret else raw
    origins.append(Origin(setting.name, shown, source, detail))
    return value


def _find(
    setting: Setting, environ: Mapping[str, str], overrides: Mapping[str, str]
) -> tuple[str, Source, str]:
    file_name = f"{setting.name}_FILE"
    if setting.name in overrides:
        return overrides[setting.name], "option", ""
    if setting.is_secret and environ.get(file_name):
        if environ.get(setting.name):
            raise ConfigError(f"{setting.name} and {file_name} are both set: unset one of them")
        return _read_secret(file_name, environ[file_name]), "file", environ[file_name]
    if environ.get(setting.name):
        return environ[setting.name], "environment", ""
    # Set but empty reads as not set: that is how an EnvironmentFile writes "leave it alone".
    return setting.default, "default", ""


def _read_secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{name}: cannot read {path}: {reason}") from error


_RESERVED = {
    "bootstrap.servers": "use KAFKA_BOOTSTRAP_SERVERS",
    "metadata.broker.list": "use KAFKA_BOOTSTRAP_SERVERS",
    "group.id": "use KAFKA_GROUP_ID",
    "group.instance.id": "use KAFKA_INSTANCE_PREFIX",
    "group.protocol": "the delivery protocol rests on the classic one",
    "partition.assignment.strategy": "the delivery protocol rests on cooperative-sticky",
    "enable.auto.commit": "offsets move only over events that are stored",
    "enable.auto.offset.store": "offsets move only over events that are stored",
    "auto.offset.reset": "a worker decides this itself, and says so when offsets are gone",
    "enable.partition.eof": "recovery rests on it",
}


def is_secret_property(name: str) -> bool:
    """Whether the librdkafka property holds something that must not be shown."""
    return any(
        word in name for word in ("password", "secret", "passphrase", "oauthbearer.config")
    ) or (name.endswith(".pem") and "key" in name)


def _rdkafka(environ: Mapping[str, str], origins: list[Origin]) -> dict[str, str]:
    properties: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.startswith(RDKAFKA_PREFIX) or not environ[variable]:
            continue
        raw, detail = environ[variable], ""
        source: Source = "environment"
        shown_name = variable
        name = variable.removeprefix(RDKAFKA_PREFIX).lower().replace("_", ".")
        if is_secret_property(name) and name.endswith(".file"):
            name, shown_name = name.removesuffix(".file"), variable.removesuffix("_FILE")
            raw, source, detail = _read_secret(variable, raw), "file", raw
        if name in _RESERVED:
            raise ConfigError(f"{variable} cannot be set: {_RESERVED[name]}")
        if name in properties:
            raise ConfigError(f"{shown_name} and {shown_name}_FILE are both set: unset one of them")
        properties[name] = raw
        origins.append(
            Origin(shown_name, MASK if is_secret_property(name) else raw, source, detail)
        )
    return properties


def _check_together(settings: Settings) -> None:
    clickhouse, batch, worker = settings.clickhouse, settings.batch, settings.worker
    for host, port in clickhouse.hosts():
        if port in HTTP_PORTS:
            native = NATIVE_TLS_PORT if clickhouse.is_secure else NATIVE_PORT
            raise ConfigError(
                f"CLICKHOUSE_PORT is {port} (for {host}): that is ClickHouse's HTTP port, and this "
                f"service speaks the native protocol: use {native}"
            )
    if batch.size > batch.max_rows:
        raise ConfigError(
            f"BATCH_SIZE is {batch.size}, more than BATCH_MAX_ROWS ({batch.max_rows}): "
            "raise BATCH_MAX_ROWS or lower BATCH_SIZE"
        )
    if clickhouse.timeout_seconds >= worker.drain_seconds:
        raise ConfigError(
            f"CLICKHOUSE_TIMEOUT ({clickhouse.timeout_seconds:g} s) must be shorter than "
            f"DRAIN_TIMEOUT ({worker.drain_seconds:g} s), or a drain could not finish one insert"
        )
    if clickhouse.timeout_seconds >= worker.heartbeat_seconds:
        raise ConfigError(
            f"CLICKHOUSE_TIMEOUT ({clickhouse.timeout_seconds:g} s) must be shorter than "
            f"HEARTBEAT_TIMEOUT ({worker.heartbeat_seconds:g} s), or a slow insert would look like a "
            "hung worker"
        )
    poll_seconds = _max_poll_seconds(settings.kafka.rdkafka)
    if worker.drain_seconds >= poll_seconds:
        raise ConfigError(
            f"DRAIN_TIMEOUT ({worker.drain_seconds:g} s) must be shorter than librdkafka's "
            f"max.poll.interval.ms ({poll_seconds:g} s), or the group would give the partitions away "
            "during a drain"
        )


def _max_poll_seconds(rdkafka: Mapping[str, str]) -> float:
    raw = rdkafka.get("max.poll.interval.ms", "300000")
    try:
        return int(raw) / 1000
    except ValueError:
        raise ConfigError(
            f"{RDKAFKA_PREFIX}MAX_POLL_INTERVAL_MS is {raw!r}: must be a whole number of ms"
        ) from None
