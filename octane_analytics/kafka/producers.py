"""Producers: events into the topic, and records that are none into the dead-letter topic."""

import functools
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka.client import Broker, error_of, translate
from octane_analytics.kafka.inspection import check_topic
from octane_analytics.settings.sections import KafkaSettings
from octane_analytics.types import Record, Rejected

DELIVERY_SECONDS = 20.0
"""How long a record may be on its way before it counts as failed."""
_TOO_LARGE = "(MSG_SIZE_TOO_LARGE)"
_MAX_DETAIL = 1000
"""Characters of an explanation that a dead letter carries: a server's message may quote whole rows."""


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
        """`instrumented` is applied to the client once it is made: for tracing. Once `is_stopping`
        holds, a full queue is not waited for."""
        self._topic = topic
        self._is_stopping = is_stopping
        self._instrumented = instrumented
        self._broker = Broker(settings, client_id)
        self._producer: Producer | None = None

    def send(
        self, value: bytes, key: bytes | None, on_result: Callable[[str | None], None]
    ) -> None:
        """Queues a record; waits while the queue is full.

        `on_result` is called from a later `send`, `poll` or `flush`, with None once the broker has
        acknowledged the record, else with the reason why it has not. Raises Unavailable when the
        queue stays full, or for a record the client itself refuses.
        """
        self.send_record(value, key, None, on_result)

    def send_record(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] | None,
        on_result: Callable[[str | None], None],
    ) -> None:
        """As `send`, with headers, and None for a value or key that is not there."""
        producer = self._connected()

        def delivered(error: KafkaError | None, _: Message) -> None:
            on_result(None if error is None else f"{error.str()} ({error.name()})")

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
        """Calls the `on_result` of what was answered meanwhile."""
        self._connected().poll(timeout_seconds)

    def flush(self, timeout_seconds: float) -> int:
        """Waits until everything is answered for; answers how many records are not."""
        return self._connected().flush(timeout_seconds)

    def close(self) -> None:
        """Drops what has not been sent: flush before."""
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
                    # What the topic takes is for the broker to say: a dead letter must not wait forever
                    # for a limit of this client's own.
                    "message.max.bytes": self._broker.default("message.max.bytes", 100 << 20),
                    "delivery.timeout.ms": int(DELIVERY_SECONDS * 1000),
                },
            )
            if self._instrumented is not None:
                self._producer = self._instrumented(self._producer)
        return self._producer


class KafkaDeadLetters:
    """See `types.DeadLetters`. The original record as it was, with headers that say what it is."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        client_id: str,
        instrumented: Callable[[Producer], Producer] | None = None,
    ) -> None:
        self._settings = settings
        self._topic = settings.dlq_topic
        self._producer = EventProducer(
            settings, self._topic, client_id=client_id, instrumented=instrumented
        )
        self._is_checked = False

    def send(self, rejected: Sequence[Rejected]) -> None:
        if not self._is_checked:
            # A topic that is not there would only show as a time-out of every record.
            check_topic(self._settings, self._topic)
            self._is_checked = True
        failed = self._deliver([(item, item.record.value(), _headers(item)) for item in rejected])
        if any(_TOO_LARGE in reason for _, reason in failed):
            failed = [left for item, reason in failed for left in self._send_alone(item, reason)]
        if failed:
            self.close()
            raise Unavailable(
                f"{len(failed)} of {len(rejected)} dead letters were not acknowledged by "
                f"{self._topic}: {failed[0][1]}"
            )

    def _send_alone(self, item: Rejected, reason: str) -> list[tuple[Rejected, str]]:
        """Once more, outside the batch that was refused as too large; then without its value.

        It fitted into its own topic; with our headers it may not. Its place tells where it is.
        """
        if _TOO_LARGE not in reason:
            return [(item, reason)]
        headers = _headers(item)
        failed = self._deliver([(item, item.record.value(), headers)])
        if failed and _TOO_LARGE in failed[0][1]:
            failed = self._deliver([(item, None, [*headers, _without_value(item)])])
        return failed

    def _deliver(
        self, letters: Sequence[tuple[Rejected, bytes | None, list[tuple[str, bytes | None]]]]
    ) -> list[tuple[Rejected, str]]:
        """Sends them and waits; answers those that were not acknowledged, each with the reason."""
        unanswered = dict.fromkeys(range(len(letters)), "no answer in time")

        def settle(index: int, failure: str | None) -> None:
            if failure is None:
                del unanswered[index]
            else:
                unanswered[index] = failure

        try:
            for index, (item, value, headers) in enumerate(letters):
                self._producer.send_record(
                    value, item.record.key(), headers, functools.partial(settle, index)
                )
            self._producer.flush(DELIVERY_SECONDS + 1.0)
        except OctaneError:
            self.close()
            raise
        return [(letters[index][0], reason) for index, reason in unanswered.items()]

    def close(self) -> None:
        self._producer.close()
        self._is_checked = False


def _headers(item: Rejected) -> list[tuple[str, bytes | None]]:
    record: Record = item.record
    kind, made_ms = record.timestamp()
    return [
        *(record.headers() or ()),
        ("octane.error", f"{item.reason}: {item.detail}"[:_MAX_DETAIL].encode(errors="replace")),
        ("octane.topic", (record.topic() or "").encode()),
        ("octane.partition", str(record.partition()).encode()),
        ("octane.offset", str(record.offset()).encode()),
        # Tells the record from another one at the same offset of a topic that was made anew.
        *([("octane.timestamp", str(made_ms).encode())] if kind else []),
    ]


def _without_value(item: Rejected) -> tuple[str, bytes | None]:
    return ("octane.value_bytes", str(len(item.record.value() or b"")).encode())
