"""Administration of Apache Kafka in tests: topics, groups and Kafka's own tools, by an address."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewTopic

from octane_analytics.runtime.closeable import Startable
from tests.tools.kafka.jars import KafkaError, fetch, run

CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
TOPICS = "org.apache.kafka.tools.TopicCommand"


class Administered(Startable, ABC):
    """A broker or a cluster that answers at bootstrap_servers. Every method raises KafkaError."""

    @property
    @abstractmethod
    def bootstrap_servers(self) -> str: ...

    @abstractmethod
    def start(self, deadline_seconds: float = 60) -> None: ...

    def create_topic(
        self, name: str, partitions: int = 1, settings: Mapping[str, str] | None = None
    ) -> None:
        """Block until every partition has a leader."""
        topic = NewTopic(name, num_partitions=partitions, config=dict(settings or {}))
        self._settle(
            f"creating topic {name}",
            lambda admin: admin.create_topics([topic])[name].result(),
            lambda cluster: name in cluster.topics and len(cluster.topics[name].partitions) > 0,
        )

    def delete_topic(self, name: str) -> None:
        """Block until the broker no longer knows the topic."""
        self._settle(
            f"deleting topic {name}",
            lambda admin: admin.delete_topics([name])[name].result(),
            lambda cluster: name not in cluster.topics,
        )

    def leader_id(self, topic: str, partition: int) -> int:
        """Return the node id of the partition's leader, -1 for none. Blocks until a broker answers."""

        def leader() -> int | None:
            cluster = self.metadata(self.admin())
            if cluster is None or topic not in cluster.topics:
                return None
            return cluster.topics[topic].partitions[partition].leader

        return _answer_of(leader, f"the leader of {topic}-{partition}")

    def is_in_sync(self) -> bool:
        """Return whether each partition has a leader, and all its replicas are in sync."""
        cluster = self.metadata(self.admin())
        return cluster is not None and all(
            partition.leader >= 0 and len(partition.isrs) == len(partition.replicas)
            for topic in cluster.topics.values()
            for partition in topic.partitions.values()
        )

    def coordinator_id(self, group: str) -> int:
        """Return the node id of the group's coordinator. Blocks until a broker answers."""

        def coordinator() -> int | None:
            admin = self.admin()  # keep a reference: a collected client cancels its requests
            with contextlib.suppress(KafkaException, TimeoutError):
                found = admin.describe_consumer_groups([group])[group].result(10)
                return int(found.coordinator.id)
            return None

        return _answer_of(coordinator, f"the coordinator of {group}")

    def topics(self, *arguments: str) -> str:
        """Return the output of `kafka-topics.sh`; starting the JVM takes about a second."""
        return self._tool(TOPICS, *arguments)

    def consumer_groups(self, *arguments: str) -> str:
        """Return the output of `kafka-consumer-groups.sh`; starting the JVM takes about a second."""
        return self._tool(CONSUMER_GROUPS, *arguments)

    def lag(self, group: str) -> dict[tuple[str, int], int]:
        """Return the lag by topic and partition, as the consumer-groups command counts it.

        Partitions without a committed offset are absent.
        """
        lag = {}
        for line in self.consumer_groups("--describe", "--group", group).splitlines():
            # GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID
            fields = line.split()
            if len(fields) >= 6 and fields[0] == group and fields[5].isdigit():
                lag[fields[1], int(fields[2])] = int(fields[5])
        return lag

    def admin(self) -> AdminClient:
        # log_level 0: messages about a broker that was killed on purpose are noise.
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def metadata(self, admin: AdminClient) -> ClusterMetadata | None:
        with contextlib.suppress(KafkaException):
            return admin.list_topics(timeout=5)
        return None

    def _settle(
        self,
        what: str,
        request: Callable[[AdminClient], object],
        is_done: Callable[[ClusterMetadata], bool],
        deadline_seconds: float = 20,
    ) -> None:
        deadline = time.monotonic() + deadline_seconds
        admin = self.admin()
        try:
            request(admin)
        except KafkaException as error:
            raise KafkaError(f"{what}: {error.args[0].str()}") from error
        while True:
            cluster = self.metadata(admin)
            if cluster is not None and is_done(cluster) and is_settled(cluster):
                return
            if time.monotonic() > deadline:
                raise KafkaError(f"{what}: not visible after {deadline_seconds:.0f} s")
            time.sleep(0.02)

    def _tool(self, main: str, *arguments: str) -> str:
        command = fetch().command(main, "--bootstrap-server", self.bootstrap_servers, *arguments)
        return run(command, failure=f"{main.rpartition('.')[2]} {' '.join(arguments)} failed")


def is_settled(cluster: ClusterMetadata | None) -> bool:
    return (
        cluster is not None
        and len(cluster.brokers) > 0
        and all(
            partition.leader >= 0
            for topic in cluster.topics.values()
            for partition in topic.partitions.values()
        )
    )


def _answer_of(ask: Callable[[], int | None], what: str, deadline_seconds: float = 30) -> int:
    """Ask until there is an answer: a broker that was killed a moment ago may have been asked."""
    deadline = time.monotonic() + deadline_seconds
    while (answer := ask()) is None:
        if time.monotonic() > deadline:
            raise KafkaError(f"{what}: no answer within {deadline_seconds:.0f} s")
        time.sleep(0.05)
    return answer
