"""Identity of a topic's log, which distinguishes it from another log of the same name."""

import contextlib
import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, Broker, error_of, translate
from octane_analytics.kafka.offsets import log_ends
from octane_analytics.types import LogIdentity, TopicPartition

_IDLE_SECONDS = 30.0
_METADATA_SECONDS = 2.0
_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""Kafka's zero UUID, in its base64 form: a broker without topic ids."""


def log_identity(
    admin: AdminClient, topic: str, epoch: str, known: LogIdentity | None = None
) -> LogIdentity:
    """Return the identity; `epoch` is the operator's own mark. Blocks for up to some seconds.

    `known` is an earlier identity of the topic. A topic id is random: while it is the same, so is the
    cluster, which is then not asked for. Raise Unavailable rather than return a part of the identity.
    """
    try:
        described = admin.describe_topics(
            TopicCollection([topic]), request_timeout=REQUEST_SECONDS
        )[topic].result(timeout=REQUEST_SECONDS + 1.0)
        topic_id = str(described.topic_id)
        if topic_id == _NO_TOPIC_ID:
            topic_id = ""
        if known is not None and topic_id and (topic_id, epoch) == known[1:]:
            return known
        cluster_id = admin.list_topics(topic, timeout=REQUEST_SECONDS).cluster_id or ""
    except KafkaException as exception:
        error = error_of(exception)
        if error.code() == KafkaError._TIMED_OUT:
            _find_controller(admin, topic)
        raise translate(error, f"asking what {topic} is") from exception
    except TimeoutError as error:
        _find_controller(admin, topic)
        raise Unavailable(f"asking what {topic} is: no answer in time") from error
    return LogIdentity(cluster_id, topic_id, epoch)


def _find_controller(admin: AdminClient, topic: str) -> None:
    """Have the client request metadata, which names the controller, for the next attempt.

    librdkafka requests it by itself only while it knows of no controller. One that it knows by its
    number, but that was away when it last saw the brokers, it awaits for up to five minutes
    (`rd_kafka_broker_controller_nowait` in src/rdkafka_broker.c, 2.16).
    """
    with contextlib.suppress(KafkaException):
        admin.list_topics(topic, timeout=_METADATA_SECONDS)


class TopicIdentityClient:
    """Fetches identities through an admin client that it closes when idle: the client's threads wake
    several times a second even without work."""

    def __init__(
        self, broker: Broker, epoch: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._broker = broker
        self._epoch = epoch
        self._now = now
        self._admin: AdminClient | None = None
        self._identities: dict[str, LogIdentity] = {}
        self._needed_at = 0.0

    @property
    def is_closed(self) -> bool:
        return self._admin is None

    def fetch(self, topic: str) -> LogIdentity:
        """Fetch the identity; see `log_identity`."""
        known = self._identities.get(topic)
        self._identities[topic] = log_identity(self._connected(), topic, self._epoch, known)
        return self._identities[topic]

    def log_end(self, partition: TopicPartition) -> int:
        """Return the offset of the partition's next record; see `offsets.log_ends`."""
        return log_ends(self._connected(), [partition])[partition]

    def warm_up(self) -> None:
        """Start connecting, without blocking, so that the next request does not wait for it."""
        self._connected()

    def close_if_idle(self) -> None:
        """Close the client if it was not used for half a minute. Do not call within a callback."""
        if self._admin is not None and self._now() - self._needed_at >= _IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        """Close the client; a later request connects again."""
        self._admin = None

    def _connected(self) -> AdminClient:
        self._needed_at = self._now()
        if self._admin is None:
            self._admin = self._broker.connect(AdminClient)
        return self._admin
