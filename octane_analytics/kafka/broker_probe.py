"""Health of a group member's connection: librdkafka's errors, verified by requests to a broker."""

import time
from collections.abc import Callable
from typing import NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka.client import Broker, error_of, translate

_PROBE_SECONDS = 5.0


class BrokerProbe:
    """Decides which of librdkafka's errors a poll without messages raises."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._probe_at = 0.0
        self._unreachable: OctaneError | None = None
        self._has_joined = False
        self._join_error: OctaneError | None = None
        """Reason why this member is not in its group, until it is: librdkafka reports each attempt,
        seconds apart, and the reason holds in between."""

    def joined(self) -> None:
        self._has_joined, self._join_error = True, None

    def left(self) -> None:
        self._has_joined = False

    def reset(self) -> None:
        """Start over for a client that is closed."""
        self._has_joined, self._join_error = False, None

    def clear(self) -> None:
        """Drop the errors: messages were received."""
        self._broker.last_error = self._unreachable = None

    def check(self, client: Callable[[], Consumer]) -> None:
        """Raise the current error, if any. Requests metadata, blocking for up to a second, every five
        seconds to find out whether librdkafka's last error still holds."""
        if self._broker.last_error is not None:
            self._probe(client())
        if self._join_error is not None:
            raise self._join_error

    def raise_read_error(self, error: KafkaError) -> NoReturn:
        """Raise the error of a poll that returned nothing else."""
        translated = translate(error, f"reading {self._topic}")
        if not self._has_joined and isinstance(translated, Unavailable):
            self._join_error = translated
        raise translated

    def _probe(self, consumer: Consumer) -> None:
        last_error = self._broker.last_error
        if last_error is not None and last_error.fatal():
            raise translate(last_error, f"reading {self._topic}")
        now = time.monotonic()
        if now >= self._probe_at:
            self._probe_at = now + _PROBE_SECONDS
            try:
                consumer.list_topics(self._topic, timeout=1.0)
            except KafkaException as exception:
                self._unreachable = self._broker.unreachable(error_of(exception))
            else:
                self.clear()
        if self._unreachable is not None:
            raise self._unreachable
