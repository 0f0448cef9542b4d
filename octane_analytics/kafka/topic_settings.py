"""Settings of a topic, as the brokers report them."""

from collections.abc import Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, error_of, translate


def topic_settings(admin: AdminClient, topic: str) -> Mapping[str, str]:
    """Return the settings, the brokers' defaults included; none if this user may not read them.

    Blocks on a broker for up to some seconds. Raise Unavailable.
    """
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    doing = f"asking for the settings of {topic}"
    try:
        answers = admin.describe_configs([resource], request_timeout=REQUEST_SECONDS)
        entries = answers[resource].result(timeout=REQUEST_SECONDS + 1.0)
    except KafkaException as exception:
        error = translate(error_of(exception), doing)
        if isinstance(error, NeedsOperator):
            return {}
        raise error from exception
    except TimeoutError as error:
        raise Unavailable(f"{doing}: no answer in time") from error
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}
