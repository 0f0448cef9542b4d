"""Settings of the connections to Kafka and ClickHouse."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from octane_analytics.errors import ConfigError
from octane_analytics.settings import fields

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
