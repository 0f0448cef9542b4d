"""Common parts of all clients: properties, and translation of librdkafka's errors."""

from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from octane_analytics.errors import (
    AssignmentLost,
    ConfigError,
    NeedsOperator,
    OctaneError,
    Rebalancing,
    Unavailable,
)
from octane_analytics.kafka.log_throttle import LogThrottle
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.settings.loading import RDKAFKA_PREFIX

REQUEST_SECONDS = 6.0
"""Time limit of one request to a broker."""

_C = TypeVar("_C")

_REBALANCING = frozenset(
    {
        KafkaError.REBALANCE_IN_PROGRESS,
        # The group rebalanced; the next callback shows whether the partition moved.
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError._ASSIGNMENT_LOST,
    }
)
_REPLACED = frozenset({KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED, KafkaError._FATAL})
_SASL = f"check the SASL settings ({RDKAFKA_PREFIX}SASL_…)"
_TOPIC = "create the topic or check its name"
_OPERATOR = {
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "the group has members of another application, with "
    "another partition.assignment.strategy: stop them, or set another KAFKA_GROUP_ID",
    KafkaError.GROUP_MAX_SIZE_REACHED: "raise the brokers' group.max.size, or start fewer processes",
    KafkaError.INVALID_SESSION_TIMEOUT: f"set {RDKAFKA_PREFIX}SESSION_TIMEOUT_MS within the brokers' "
    "group.min.session.timeout.ms and group.max.session.timeout.ms",
    KafkaError.INVALID_GROUP_ID: "set another KAFKA_GROUP_ID",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant the user what it lacks on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant the user READ on the group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant the user what it lacks on the cluster",
    KafkaError.SASL_AUTHENTICATION_FAILED: _SASL,
    KafkaError._AUTHENTICATION: _SASL,
    KafkaError._SSL: f"check the TLS settings ({RDKAFKA_PREFIX}SSL_…)",
    KafkaError.UNKNOWN_TOPIC_OR_PART: _TOPIC,
    KafkaError._UNKNOWN_TOPIC: _TOPIC,
    KafkaError._UNKNOWN_PARTITION: _TOPIC,
    KafkaError.MSG_SIZE_TOO_LARGE: "raise the topic's max.message.bytes",
    KafkaError.OFFSET_METADATA_TOO_LARGE: "set the brokers' offset.metadata.max.bytes to 4096 (their "
    "default) or more: offsets are committed with up to 2,000 bytes",
}


def translate(error: KafkaError, doing: str) -> OctaneError:
    """Return the exception for a librdkafka error: Rebalancing, AssignmentLost, NeedsOperator or
    Unavailable. `doing` begins its message."""
    code = error.code()
    text = f"{doing}: {text_of(error)} ({error.name()})"
    if code in _REBALANCING:
        return Rebalancing(text)
    if code in _REPLACED or error.fatal():
        return AssignmentLost(
            f"{text}; does another process use this KAFKA_INSTANCE_PREFIX in this group?"
        )
    if code in _OPERATOR:
        return NeedsOperator(f"{text}; {_OPERATOR[code]}")
    return Unavailable(text)


def error_of(exception: KafkaException) -> KafkaError:
    error = exception.args[0]
    assert isinstance(error, KafkaError), "a KafkaException carries a KafkaError"
    return error


def text_of(error: KafkaError) -> str:
    """Return the error's message; may quote a broker's, in any encoding."""
    try:
        return error.str()
    except UnicodeDecodeError as undecodable:
        return undecodable.object.decode(errors="backslashreplace")


class Broker:
    """Properties of a client, and the last error that librdkafka reported by its error callback."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self.settings = settings
        self.client_id = client_id
        self.last_error: KafkaError | None = None

    def connect(self, client_class: Callable[[dict[str, Any]], _C], **properties: object) -> _C:
        """Create a client with the operator's properties, overridden by `properties`.

        Returns before it is connected. Raise ConfigError for a property that librdkafka refuses.
        """
        try:
            return client_class(
                {
                    **self.settings.rdkafka,
                    **properties,
                    "bootstrap.servers": self.settings.bootstrap_servers,
                    "client.id": self.client_id,
                    "error_cb": self._remember,
                    "logger": LogThrottle(),
                    # Brokers routinely close idle connections.
                    "log.connection.close": False,
                }
            )
        except KafkaException as exception:
            raise ConfigError(
                f"librdkafka refuses the settings: {text_of(error_of(exception))}; "
                f"properties are set as {RDKAFKA_PREFIX}… in upper case with underscores for dots"
            ) from exception

    def default(self, name: str, value: object) -> object:
        """Return the operator's value of a property, else `value`."""
        return self.settings.rdkafka.get(name, value)

    def unreachable(self, error: KafkaError) -> OctaneError:
        """Return the exception for a request that reached no broker, with librdkafka's reason."""
        reason = self.last_error or error
        where = f"cannot reach a Kafka broker at {self.settings.bootstrap_servers}"
        translated = translate(reason, where)
        if isinstance(translated, NeedsOperator) or reason.fatal():
            return translated
        advice = "check KAFKA_BOOTSTRAP_SERVERS and the broker"
        if reason.code() != KafkaError._RESOLVE and "Connect to" not in text_of(reason):
            # A plaintext client of a TLS or SASL listener is disconnected without a message.
            advice += f", and whether it requires TLS or SASL ({RDKAFKA_PREFIX}SECURITY_PROTOCOL)"
        return Unavailable(f"{translated}; {advice}")

    def _remember(self, error: KafkaError) -> None:
        # "All brokers down" is reported last and explains the least.
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self.last_error is None:
            self.last_error = error
