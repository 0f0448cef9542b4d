"""Description and creation of topics; describing one never has the broker create it."""

import time
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, error_of, translate
from octane_analytics.kafka.standalone_client import StandaloneClient
from octane_analytics.kafka.topic_settings import topic_settings
from octane_analytics.settings.connections import KafkaSettings

_RETENTION = "retention.ms"
_BROKER_DEFAULT = -1
_SETTLE_SECONDS = 15.0
_POLL_SECONDS = 0.05
_INVALID = frozenset(
    {
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_REQUEST,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.POLICY_VIOLATION,
    }
)
_ABSENT = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


@dataclass(frozen=True, slots=True)
class TopicShape:
    """Attributes chosen when a topic is created; None is the broker's default, or not known."""

    partitions: int | None = None
    replication: int | None = None
    retention_ms: int | None = None
    """Retention; -1 keeps records for good."""


class TopicAdmin(StandaloneClient):
    """Topic administration.

    Every method blocks on a broker, for up to some seconds, and raises Unavailable if none answers,
    NeedsOperator for a missing right.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        super().__init__(settings, client_id)
        self._admin: AdminClient | None = None

    def close(self) -> None:
        super().close()
        self._admin = None

    def describe(self, topic: str) -> TopicShape | None:
        """Return the topic's attributes; None if it does not exist."""
        found = self._metadata(topic).topics[topic]
        if found.error is not None:
            if found.error.code() in _ABSENT:
                return None
            raise translate(found.error, f"asking for topic {topic}")
        replicas = {len(partition.replicas) for partition in found.partitions.values()}
        return TopicShape(
            len(found.partitions), min(replicas, default=0), self._retention_ms(topic)
        )

    def create(self, topic: str, shape: TopicShape) -> bool:
        """Create the topic and block until every partition has a leader; return False if it exists.

        Raise ConfigError if the broker refuses the name or the shape.
        """
        doing = f"creating topic {topic}"
        wanted = NewTopic(
            topic,
            num_partitions=shape.partitions or _BROKER_DEFAULT,
            replication_factor=shape.replication or _BROKER_DEFAULT,
            config={} if shape.retention_ms is None else {_RETENTION: str(shape.retention_ms)},
        )
        try:
            answers = self._administration().create_topics(
                [wanted], request_timeout=REQUEST_SECONDS
            )
            answers[topic].result(timeout=REQUEST_SECONDS + 1.0)
        except KafkaException as exception:
            error = error_of(exception)
            if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            if error.code() in _INVALID:
                raise ConfigError(f"{doing}: {error.str()} ({error.name()})") from exception
            raise translate(error, doing) from exception
        except TimeoutError as error:
            raise Unavailable(f"{doing}: no answer in time") from error
        self._await_leaders(topic)
        return True

    def _await_leaders(self, topic: str) -> None:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            found = self._metadata(topic).topics[topic]
            if found.partitions and all(p.leader >= 0 for p in found.partitions.values()):
                return
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"topic {topic} was created and has no leaders after {_SETTLE_SECONDS:g} s: check "
                    "the brokers"
                )
            time.sleep(_POLL_SECONDS)

    def _retention_ms(self, topic: str) -> int | None:
        """Return the retention; None if the broker does not report it, or not to this user."""
        found = topic_settings(self._administration(), topic).get(_RETENTION)
        return None if found is None else int(found)

    def _administration(self) -> AdminClient:
        if self._admin is None:
            self._admin = self._broker.connect(AdminClient)
        return self._admin
