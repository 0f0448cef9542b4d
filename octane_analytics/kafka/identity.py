"""What tells a topic's log from another one of the same name: asked in one way by whoever needs it."""

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, error_of, translate
from octane_analytics.types import LogIdentity

_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""Kafka's zero UUID, in its own spelling: a broker without topic ids."""


def log_identity(admin: AdminClient, topic: str, epoch: str) -> LogIdentity:
    """Blocks for some seconds at most. Raises Unavailable rather than leave out what the broker
    could tell. `epoch` is the operator's own mark."""
    try:
        cluster_id = admin.list_topics(topic, timeout=REQUEST_SECONDS).cluster_id or ""
        described = admin.describe_topics(
            TopicCollection([topic]), request_timeout=REQUEST_SECONDS
        )[topic].result(timeout=REQUEST_SECONDS + 1.0)
    except KafkaException as exception:
        raise translate(error_of(exception), f"asking what {topic} is") from exception
    except TimeoutError as error:
        raise Unavailable(f"asking what {topic} is: no answer in time") from error
    topic_id = str(described.topic_id)
    return LogIdentity(cluster_id, "" if topic_id == _NO_TOPIC_ID else topic_id, epoch)
