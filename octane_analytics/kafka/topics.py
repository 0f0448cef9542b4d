"""Inspection of topics without joining the group, and creation of the dead-letter topic."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, Broker, error_of, translate
from octane_analytics.kafka.lag import LagProbe
from octane_analytics.settings.connections import KafkaSettings


class TopicInspector(LagProbe):
    """Read-only view of topics and the configured group.

    Every method blocks on a broker, for up to some seconds, and raises Unavailable if none answers,
    NeedsOperator if the topic does not exist.
    """

    def partitions(self, topic: str) -> int:
        """Return the number of partitions."""
        return len(self._partition_numbers(topic))

    def lag(self, topic: str) -> int:
        """Return the number of records that the group has not committed, over all partitions."""
        return sum(lag.messages for lag in self.count(topic).values())


def check_topic(settings: KafkaSettings, topic: str) -> None:
    """Raise Unavailable or NeedsOperator unless a broker answers and has the topic. Blocks."""
    with TopicInspector(settings, client_id="octane-analytics-check") as inspector:
        inspector.partitions(topic)


def ensure_topic(settings: KafkaSettings, topic: str) -> None:
    """Create the topic with the broker's defaults unless it exists. Blocks.

    Raise Unavailable (or NeedsOperator) if it neither exists nor can be created.
    """
    try:
        check_topic(settings, topic)
        return
    except NeedsOperator:
        pass  # does not exist, or is not visible to this user
    admin = Broker(settings, "octane-analytics-setup").connect(AdminClient)
    wanted = NewTopic(topic, num_partitions=-1, replication_factor=-1)
    try:
        admin.create_topics([wanted])[topic].result(timeout=REQUEST_SECONDS)
    except KafkaException as exception:
        error = error_of(exception)
        if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise translate(error, f"creating topic {topic}") from exception
    except TimeoutError as error:
        raise Unavailable(f"creating topic {topic}: no answer in time") from error
