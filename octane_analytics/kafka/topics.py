"""Questions about topics and the group, asked without joining the group, and the making of a topic."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, Broker, error_of, translate
from octane_analytics.kafka.lag import LagProbe
from octane_analytics.settings.connections import KafkaSettings


class TopicInspector(LagProbe):
    """The configured group seen from outside. Every method blocks on a broker, for seconds at most,
    and raises Unavailable where none answers, NeedsOperator where there is no such topic."""

    def partitions(self, topic: str) -> int:
        """How many the topic has."""
        return len(self._partition_numbers(topic))

    def lag(self, topic: str) -> int:
        """Records of the topic that the group has not committed, over all partitions."""
        return sum(lag.messages for lag in self.count(topic).values())


def check_topic(settings: KafkaSettings, topic: str) -> None:
    """Blocks. Raises as GroupView does unless a broker answers and has the topic."""
    with TopicInspector(settings, client_id="octane-analytics-check") as view:
        view.partitions(topic)


def ensure_topic(settings: KafkaSettings, topic: str) -> None:
    """Creates the topic with the broker's defaults unless it is there. Blocks.

    Raises Unavailable (or NeedsOperator) where it neither exists nor can be created.
    """
    try:
        check_topic(settings, topic)
        return
    except NeedsOperator:
        pass  # not there, as far as we may see
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
