"""Read-only Kafka client: one lazily created consumer that never joins the group.

Requests use a consumer, because only its metadata requests never have the broker create a topic.
"""

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin._metadata import ClusterMetadata

from octane_analytics.kafka.client import REQUEST_SECONDS, Broker, error_of, translate
from octane_analytics.kafka.offsets import committed_by
from octane_analytics.runtime.closeable import Closeable
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import Committed, TopicPartition

_COORDINATOR_SECONDS = 5.0


class StandaloneClient(Closeable):
    """Base of the read-only clients. A call after `close` connects again."""

    def __init__(self, settings: KafkaSettings, client_id: str, **properties: object) -> None:
        """`properties` of the consumer override `group.id` (never joined) and the lack of commits."""
        self._settings = settings
        self._broker = Broker(settings, client_id)
        self._properties = {
            "group.id": settings.group_id,
            "enable.auto.commit": False,
            **properties,
        }
        self._consumer: Consumer | None = None

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _connected(self) -> Consumer:
        if self._consumer is None:
            self._consumer = self._broker.connect(Consumer, **self._properties)
        return self._consumer

    def _metadata(self, topic: str) -> ClusterMetadata:
        """Return the metadata, whether or not the topic exists. Raise Unavailable, with the reason."""
        consumer = self._connected()
        try:
            found: ClusterMetadata = consumer.list_topics(topic, timeout=REQUEST_SECONDS)
        except KafkaException as exception:
            consumer.poll(0)  # runs the error callback, which has the reason
            raise self._broker.unreachable(error_of(exception)) from exception
        return found

    def _partition_numbers(self, topic: str) -> list[int]:
        """Return the topic's partition numbers, in order. Raise NeedsOperator if it does not exist."""
        found = self._metadata(topic).topics[topic]
        if found.error is not None:
            raise translate(found.error, f"topic {topic} at {self._settings.bootstrap_servers}")
        return sorted(found.partitions)

    def _committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """Return the committed offsets of the configured group; see `offsets.committed_by`."""
        return committed_by(
            self._connected(),
            self._settings.group_id,
            partitions,
            coordinator_seconds=_COORDINATOR_SECONDS,
        )
