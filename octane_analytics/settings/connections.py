"""Settings of the connections to Kafka and ClickHouse."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from octane_analytics.errors import ConfigError
from octane_analytics.settings import fields, topology
from octane_analytics.settings.topology import Topology


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
        "ClickHouse servers, each with an optional :port: replicas, tried in this order, are separated "
        "by commas, shards by semicolons (ch1a,ch1b;ch2a,ch2b).",
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
    cluster: str | None = fields.setting(
        "CLICKHOUSE_CLUSTER",
        fields.optional,
        "",
        "Name of the cluster in ClickHouse's remote_servers; required with several shards, whose "
        "Distributed table reads from it.",
    )
    distributed_table_or_none: str | None = fields.setting(
        "CLICKHOUSE_DISTRIBUTED_TABLE",
        fields.optional_table,
        "",
        "Distributed table from which reports and raw SQL read if there are several shards, without "
        "its database (empty: the table plus _all).",
    )
    shard_weights: tuple[int, ...] = fields.setting(
        "CLICKHOUSE_SHARD_WEIGHTS",
        fields.weights,
        "",
        "Shares of new batches by shard, comma-separated, in the order of CLICKHOUSE_HOST; 0: no new "
        "batches (empty: equal shares).",
    )
    insert_quorum: int = fields.setting(
        "CLICKHOUSE_INSERT_QUORUM",
        fields.integer(0, 100),
        "0",
        "Number of replicas of a shard that must have a batch before an insert is acknowledged (0: one, "
        "without waiting for others).",
        unit="replicas",
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

    @property
    def distributed_table(self) -> str:
        return self.distributed_table_or_none or f"{self.table}_all"

    @property
    def read_table(self) -> str:
        """Table with the rows of all shards: the Distributed table if there are several."""
        return self.distributed_table if self.topology().is_sharded else self.table

    def topology(self) -> Topology:
        """Return shards and replicas. Raise ConfigError for an invalid host or weight."""
        return topology.parse(self.host, self.port, self.shard_weights)

    def hosts(self) -> list[tuple[str, int]]:
        """Return the servers of all shards, which is the failover list of one shard. Raises as
        `topology` does."""
        return list(self.topology().hosts)

    def of_each_shard(self) -> tuple["ClickHouseSettings", ...]:
        """Return the settings of each shard, with its replicas as CLICKHOUSE_HOST; of a single shard,
        these settings. Raises as `topology` does."""
        shards = self.topology().shards
        if len(shards) == 1:
            return (self,)
        return tuple(
            replace(self, host=",".join(shard.authorities), shard_weights=()) for shard in shards
        )

    def require_one_shard(self) -> None:
        """Raise ConfigError if there are several shards: an insert, or tables of a replay, belong to
        one."""
        shards = len(self.topology().shards)
        if shards > 1:
            raise ConfigError(
                f"CLICKHOUSE_HOST lists {shards} shards, and this works on one of them: give it "
                "only the replicas of that shard"
            )

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
