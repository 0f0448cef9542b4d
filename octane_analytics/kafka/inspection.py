"""Questions about a topic and a group, asked without joining the group."""

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.kafka.client import REQUEST_SECONDS, Broker, error_of, translate
from octane_analytics.settings import KafkaSettings


class GroupView:
    """Looks at the configured topic and group from outside. Every method blocks on a broker."""

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        self._settings = settings
        self._broker = Broker(settings, client_id)
        self._consumer: Consumer | None = None

    def partitions(self, topic: str) -> int:
        """How many the topic has. Raises Unavailable, NeedsOperator where there is no such topic."""
        try:
            found = self._connected().list_topics(topic, timeout=REQUEST_SECONDS)
        except KafkaException as exception:
            raise self._broker.unreachable(error_of(exception)) from exception
        error = found.topics[topic].error
        if error is not None:
            raise translate(error, f"topic {topic} at {self._settings.bootstrap_servers}")
        return len(found.topics[topic].partitions)

    def lag(self, topic: str) -> int:
        """Records of the topic that the group has not committed, over all partitions."""
        raw = [RawPartition(topic, number) for number in range(self.partitions(topic))]
        consumer = self._connected()
        total = 0
        try:
            for committed in consumer.committed(raw, timeout=REQUEST_SECONDS):
                low, high = consumer.get_watermark_offsets(
                    RawPartition(topic, committed.partition), timeout=REQUEST_SECONDS
                )
                total += high - max(low, committed.offset)
        except KafkaException as exception:
            raise translate(error_of(exception), "asking for the group's lag") from exception
        return total

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _connected(self) -> Consumer:
        if self._consumer is None:
            self._consumer = self._broker.connect(
                Consumer, **{"group.id": self._settings.group_id, "enable.auto.commit": False}
            )
        return self._consumer
