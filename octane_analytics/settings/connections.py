"""Settings of the connections to Kafka and ClickHouse."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from octane_analytics.errors import ConfigError
from octane_analytics.settings import fields

_AUTHORITY = re.compile(r"(?:\[([^\[\]\s]+)\]|([^:\[\]\s]+))(?::([0-9]{1,5}))?")
"""Host name, IPv4 address or bracketed IPv6 address, with an optional port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    bootstrap_servers: str = fields.setting(
        "KAFKA_BOOTSTRAP_SERVERS",
        fields.text,
        "kafka:9092",
        "Bootstrap brokers, comma-separated, each as host:port.",
    )
    topic: str = fields.setting("KAFKA_TOPIC", fields.text, "octane.events", "Topic of the events.")
    group_id: str = fields.setting(
        "KAFKA_GROUP_ID", fields.text, "analytics-worker", "Consumer group of all workers."
    )
    dlq_topic_or_none: str | None = fields.setting(
        "KAFKA_DLQ_TOPIC",
        fields.optional,
        "",
        "Dead-letter topic for records that are not valid events (empty: the topic plus .dlq).",
    )
    instance_prefix: str = fields.setting(
        "KAFKA_INSTANCE_PREFIX",
        fields.instance_prefix,
        "auto",
        "Prefix of the static member ids of this host, followed by the slot number, so that a "
        "restarted worker keeps its partitions without a rebalance (auto: the host's name; none: "
        "no static membership).",
    )
    log_epoch: str = fields.setting(
        "KAFKA_LOG_EPOCH",
        str.strip,
        "",
        "Part of every deduplication token: change it if the records of the topic were replaced "
        "while cluster id and topic id stayed (a broker restored from a backup).",
    )
    rdkafka: Mapping[str, str] = field(default_factory=dict, repr=False)
    """librdkafka properties by name, from KAFKA_RDKAFKA_… variables."""

    @property
    def dlq_topic(self) -> str:
        return self.dlq_topic_or_none or f"{self.topic}.dlq"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouseSettings:
    host: str = fields.setting(
        "CLICKHOUSE_HOST",
        fields.text,
        "clickhouse",
        "ClickHouse servers, comma-separated, each with an optional :port; tried in this order.",
    )
    port: int = fields.setting(
        "CLICKHOUSE_PORT",
        fields.port,
        "9000",
        "Port of the native protocol (9440 with TLS; 8123 is the HTTP port).",
    )
    user: str = fields.setting("CLICKHOUSE_USER", fields.text, "default", "ClickHouse user.")
    password: str = fields.setting(
        "CLICKHOUSE_PASSWORD", fields.secret, "", "Password of the ClickHouse user.", secret=True
    )
    database: str = fields.setting(
        "CLICKHOUSE_DATABASE", fields.text, "default", "Database of the table."
    )
    table: str = fields.setting(
        "CLICKHOUSE_TABLE",
        fields.table,
        "ai_analytics_events",
        "Table of the events, without its database.",
    )
    is_secure: bool = fields.setting(
        "CLICKHOUSE_SECURE",
        fields.flag,
        "0",
        "Use TLS for connections to ClickHouse (1: yes, 0: no).",
    )
    ca_file: str | None = fields.setting(
        "CLICKHOUSE_CA_FILE",
        fields.optional,
        "",
        "File of trusted certificate authorities, PEM (empty: certifi's).",
    )
    compression: str = fields.setting(
        "CLICKHOUSE_COMPRESSION",
        fields.choice("auto", "lz4", "zstd", "none"),
        "auto",
        "Compression of the connection to ClickHouse: lz4, zstd, none, or auto (none if every "
        "CLICKHOUSE_HOST is a loopback address, otherwise lz4).",
    )
    timeout_seconds: float = fields.setting(
        "CLICKHOUSE_TIMEOUT",
        fields.seconds(1, 3600),
        "60",
        "Seconds after which an insert or query times out and its connection is closed.",
        unit="seconds",
    )

    def hosts(self) -> list[tuple[str, int]]:
        """Return the failover list. Raise ConfigError for an entry that is not a host or host:port."""
        servers = []
        for entry in self.host.split(","):
            match = _AUTHORITY.fullmatch(entry.strip())
            host, port = (match[1] or match[2], match[3] or str(self.port)) if match else ("", "")
            if not host or not 1 <= int(port) <= 65535:
                raise ConfigError(
                    f"CLICKHOUSE_HOST: {entry.strip()!r} is not a host or host:port; write for "
                    "example ch1.example.com,ch2.example.com:9440,[2001:db8::1]:9000"
                )
            servers.append((host, int(port)))
        return servers

    def compression_method(self) -> str:
        """Return lz4, zstd or none. Raise ConfigError for an invalid host."""
        if self.compression != "auto":
            return self.compression
        return "none" if all(_is_loopback(host) for host, _ in self.hosts()) else "lz4"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
