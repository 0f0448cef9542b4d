"""What looks at Kafka from outside: one consumer, made when it is first needed and never in a group.

Asked through a consumer, because only that never has the broker create what it is asked about.
"""

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as RawPartition
from confluent_kafka.admin._metadata import ClusterMetadata

from octane_analytics.kafka.client import REQUEST_SECONDS, Broker, error_of, translate
from octane_analytics.kafka.conversions import committed_of, from_confluent, to_confluent
from octane_analytics.runtime.closeable import Closeable
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import Committed, TopicPartition

_COORDINATOR_SECONDS = 5.0
_COORDINATOR_PAUSE_SECONDS = 0.2
_COORDINATOR_MOVES = frozenset(
    {
        KafkaError._WAIT_COORD,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)
"""Of a group whose coordinator is being found, or has only just become it: ask again."""


class StandaloneClient(Closeable):
    """Base of such a look. Closed at the end of a `with` block; a call after that connects anew."""

    def __init__(self, settings: KafkaSettings, client_id: str, **properties: object) -> None:
        """`properties` are the consumer's, over `group.id` (never joined) and no commits."""
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
        """Whether or not there is such a topic. Raises Unavailable, with the reason."""
        consumer = self._connected()
        try:
            found: ClusterMetadata = consumer.list_topics(topic, timeout=REQUEST_SECONDS)
        except KafkaException as exception:
            consumer.poll(0)  # has librdkafka say why
            raise self._broker.unreachable(error_of(exception)) from exception
        return found

    def _partition_numbers(self, topic: str) -> list[int]:
        """In order. Raises NeedsOperator too where there is no such topic."""
        found = self._metadata(topic).topics[topic]
        if found.error is not None:
            raise translate(found.error, f"topic {topic} at {self._settings.bootstrap_servers}")
        return sorted(found.partitions)

    def _committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What the configured group has committed of each, in their order.

        Waits, for some seconds, while another broker becomes the group's coordinator.
        """
        raw = [to_confluent(partition) for partition in partitions]
        deadline = time.monotonic() + _COORDINATOR_SECONDS
        while True:
            found, error = self._ask_committed(raw)
            if error is None:
                return found
            if error.code() not in _COORDINATOR_MOVES or time.monotonic() >= deadline:
                group = self._settings.group_id
                raise translate(error, f"asking what group {group} has committed")
            time.sleep(_COORDINATOR_PAUSE_SECONDS)

    def _ask_committed(
        self, raw: list[RawPartition]
    ) -> tuple[dict[TopicPartition, Committed], KafkaError | None]:
        found = {}
        try:
            for item in self._connected().committed(raw, timeout=REQUEST_SECONDS):
                if item.error is not None:
                    return {}, item.error
                found[from_confluent(item)] = committed_of(item)
        except KafkaException as exception:
            return {}, error_of(exception)
        return found, None
