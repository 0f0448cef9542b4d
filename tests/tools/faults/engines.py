"""A broker and real ClickHouse servers: they take seconds to start, and serve many scenarios."""

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from octane_analytics.sandbox.engine import EngineError
from octane_analytics.sandbox.kafka import EmbeddedKafka
from tests.tools.faults.audit import answer_of, wait_until
from tests.tools.faults.servers import Servers
from tests.tools.kafka.apache import ApacheKafka
from tests.tools.kafka.cluster import KafkaCluster

APACHE, EMBEDDED, CLUSTER = "apache", "embedded", "cluster"
"""One broker of Apache Kafka, the mock cluster, three brokers of Apache Kafka and a controller."""
EMBEDDED_BROKERS = 3
_SYNC_SECONDS = 60.0

_KAFKA: Mapping[str, Callable[[], ApacheKafka | EmbeddedKafka | KafkaCluster]] = {
    APACHE: ApacheKafka,
    EMBEDDED: lambda: EmbeddedKafka(brokers=EMBEDDED_BROKERS),
    CLUSTER: KafkaCluster,
}


class Engines:
    """Start and stop from the main thread: both engines end with the thread that started them."""

    def __init__(self, broker: str, directory: Path, *, shards: int = 1, replicas: int = 1) -> None:
        """The faults of ClickHouse and of its proxy are those of the first server of the first shard."""
        self.broker = broker
        self.kafka = _KAFKA[broker]()
        self.servers = Servers(directory, shards=shards, replicas=replicas)
        self.clickhouse = self.servers.all[0]
        self.proxy = self.servers.proxy

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.kafka)
            if isinstance(self.kafka, ApacheKafka):
                self.kafka.admit()
            stack.enter_context(self.servers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def apache(self) -> ApacheKafka:
        assert isinstance(self.kafka, ApacheKafka)
        return self.kafka

    @property
    def cluster(self) -> KafkaCluster:
        assert isinstance(self.kafka, KafkaCluster)
        return self.kafka

    @property
    def embedded(self) -> EmbeddedKafka:
        assert isinstance(self.kafka, EmbeddedKafka)
        return self.kafka

    def any_broker(self, rng: random.Random) -> ApacheKafka | None:
        """Return a broker that can be killed; None for the mock cluster."""
        if isinstance(self.kafka, KafkaCluster):
            return rng.choice(self.kafka.brokers)
        return self.kafka if isinstance(self.kafka, ApacheKafka) else None

    def await_brokers_in_sync(self) -> None:
        """Block until every replica of every partition is in sync: a write needs two of three."""
        if isinstance(self.kafka, KafkaCluster):
            wait_until(self.kafka.is_in_sync, _SYNC_SECONDS, "replicas in sync")

    def heal(self) -> None:
        """Undo the faults that a scenario left."""
        self.servers.heal()
        if isinstance(self.kafka, ApacheKafka):
            if not self.kafka.is_running:
                self.kafka.start()
            self.kafka.resume()
            self.kafka.admit()
        elif isinstance(self.kafka, KafkaCluster):
            self.kafka.start()
            self.kafka.resume()
        else:
            self.kafka.set_broker_up()

    def create_topic(self, name: str, partitions: int) -> None:
        self.kafka.create_topic(name, partitions)

    def has_topic(self, name: str) -> bool:
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        return name in admin.list_topics(timeout=20.0).topics

    def recreate_topic(self, name: str, partitions: int, pause_seconds: float) -> None:
        """Delete the topic and recreate it after a pause."""
        self.kafka.delete_topic(name)
        if not isinstance(self.kafka, EmbeddedKafka):
            time.sleep(pause_seconds)
            self.kafka.create_topic(name, partitions)
            return
        # The mock cluster creates a smaller topic for any client that requests it: be first.
        for _ in range(100):
            try:
                self.kafka.create_topic(name, partitions)
                return
            except EngineError:
                self.kafka.delete_topic(name)
        raise TimeoutError(f"{name} is made by clients before it can be made by us")

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Remove the records before the offset, as retention does; those that are gone stay gone."""
        where = TopicPartition(topic, partition, before_offset)
        if isinstance(self.kafka, EmbeddedKafka):
            # librdkafka's mock cluster takes any offset for the new start of the log, an earlier one too
            # (RD_KAFKA_MOCK_CMD_PART_DELETE_RECORDS in src/rdkafka_mock.c, 2.16), and then answers "out
            # of range" for that start: it holds no message set there (rd_kafka_mock_msgset_find). Apache
            # Kafka leaves the start where it is.
            if before_offset > self.first_offset(topic, partition):
                self.kafka.delete_records(topic, partition, before_offset)
            return
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        admin.delete_records([where])[where].result(20)

    def first_offset(self, topic: str, partition: int) -> int:
        """Return the first offset that the partition's log holds."""
        where = TopicPartition(topic, partition)
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": "octane-faults-engines",
                "log_level": 0,
            }
        )
        try:
            return int(answer_of(lambda: consumer.get_watermark_offsets(where, 20.0))[0])
        finally:
            consumer.close()

    def execute(self, statement: str) -> None:
        """Run a statement on every server of the usual shards, not through the proxy."""
        self.servers.execute(statement, self.servers.usual)
