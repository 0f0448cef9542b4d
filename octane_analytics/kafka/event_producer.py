"""Producer of events."""

from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.client import Broker, error_of, text_of, translate
from octane_analytics.settings.connections import KafkaSettings

DELIVERY_SECONDS = 20.0
"""Time after which an unacknowledged record counts as failed."""


class EventProducer:
    """Sends values to one topic; librdkafka batches, retries and keeps their order."""

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        client_id: str,
        instrumented: Callable[[Producer], Producer] | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`instrumented` wraps the new client, for tracing. Once `is_stopping` returns True, `send` does
        not wait for room in a full queue."""
        self._topic = topic
        self._is_stopping = is_stopping
        self._instrumented = instrumented
        self._broker = Broker(settings, client_id)
        self._producer: Producer | None = None

    def send(
        self, value: bytes, key: bytes | None, on_result: Callable[[str | None], None]
    ) -> None:
        """Queue a record; blocks while the queue is full.

        `on_result` is called from a later `send`, `poll` or `flush`: with None once the broker has
        acknowledged the record, else with the reason of the failure. Raise Unavailable if the queue
        stays full, or for a record that the client itself refuses.
        """
        self.send_record(value, key, None, on_result)

    def send_record(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] | None,
        on_result: Callable[[str | None], None],
    ) -> None:
        """Queue a record as `send` does, with headers; value and key may be None."""
        producer = self._connected()

        def delivered(error: KafkaError | None, _: Message) -> None:
            on_result(None if error is None else f"{text_of(error)} ({error.name()})")

        waited = 0.0
        while True:
            try:
                producer.produce(
                    self._topic,
                    value=value,
                    key=key,
                    headers=list(headers) if headers else None,
                    on_delivery=delivered,
                )
            except BufferError:
                if waited >= DELIVERY_SECONDS or self._is_stopping():
                    raise Unavailable(
                        f"producing to {self._topic}: the queue has been full for "
                        f"{waited:.0f} s; is the broker up?"
                    ) from None
                producer.poll(0.1)
                waited += 0.1
            except KafkaException as exception:
                raise translate(error_of(exception), f"producing to {self._topic}") from exception
            else:
                producer.poll(0)
                return

    def poll(self, timeout_seconds: float = 0.0) -> None:
        """Call `on_result` for the records that were acknowledged or failed meanwhile."""
        self._connected().poll(timeout_seconds)

    def flush(self, timeout_seconds: float) -> int:
        """Block until every record is acknowledged or failed; return the number that are neither."""
        return self._connected().flush(timeout_seconds)

    def close(self) -> None:
        """Discard unsent records; call `flush` before."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(1.0)
            self._producer = None

    def _connected(self) -> Producer:
        if self._producer is None:
            self._producer = self._broker.connect(
                Producer,
                **{
                    "enable.idempotence": True,
                    "compression.type": self._broker.default("compression.type", "lz4"),
                    "linger.ms": self._broker.default("linger.ms", 20),
                    # The broker limits the size of records: a dead-letter message must not fail
                    # forever at a limit of this client.
                    "message.max.bytes": self._broker.default("message.max.bytes", 100 << 20),
                    "delivery.timeout.ms": int(DELIVERY_SECONDS * 1000),
                },
            )
            if self._instrumented is not None:
                self._producer = self._instrumented(self._producer)
        return self._producer
