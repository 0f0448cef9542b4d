"""Client of the whole dead-letter topic: reads it to its end, and appends the markers of a retry.

Markers are written under one transactional id for each topic, whatever the group, so that a second retry
fences the first: only the client that called `open` last can append markers.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import AssignmentLost, NeedsOperator, OctaneError, Unavailable
from octane_analytics.kafka.client import error_of, text_of, translate
from octane_analytics.kafka.offsets import watermarks
from octane_analytics.kafka.standalone_client import StandaloneClient
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import OffsetRange, TopicPartition

_SILENCE_SECONDS = 30.0
_OPEN_SECONDS = 20.0
_MARK_SECONDS = 15.0
_TRANSACTION_MS = 60_000
_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)


class DeadLetterTopic(StandaloneClient):
    """Client of the configured dead-letter topic.

    Every method blocks, and raises Unavailable if no broker answers, NeedsOperator for a missing topic
    or right.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        super().__init__(
            settings,
            client_id,
            **{
                "group.id": f"{settings.group_id}.dlq",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            },
        )
        self.topic = settings.dlq_topic
        self._transactional_id = f"octane-retry-{self.topic}"
        self._producer: Producer | None = None

    def close(self) -> None:
        super().close()
        self._producer = None

    def has_topic(self) -> bool:
        """Return whether the topic exists. A worker's first dead-letter message may create it."""
        error = self._metadata(self.topic).topics[self.topic].error
        return error is None or error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART

    def spans(self) -> dict[TopicPartition, OffsetRange]:
        """Return the offset range of each partition, up to the first open transaction."""
        found = {}
        for number in self._partition_numbers(self.topic):
            partition = TopicPartition(self.topic, number)
            low, high = watermarks(self._connected(), partition)
            found[partition] = OffsetRange(low, max(low, high))
        return found

    def read(self, spans: Mapping[TopicPartition, OffsetRange]) -> Iterator[Sequence[Message]]:
        """Yield the records of the ranges in chunks, in offset order within each partition.

        Raise Unavailable if nothing is received for half a minute.
        """
        consumer = self._connected()
        left = {partition: span for partition, span in spans.items() if span.first < span.end}
        consumer.assign([RawPartition(*partition, span.first) for partition, span in left.items()])
        received_at = time.monotonic()
        try:
            while left:
                messages = consumer.consume(10_000, 0.2)
                if messages:
                    received_at = time.monotonic()
                elif time.monotonic() - received_at > _SILENCE_SECONDS:
                    raise Unavailable(
                        f"reading {self.topic}: nothing was received for {_SILENCE_SECONDS:g} s"
                    )
                records = [m for m in messages if self._is_within(m, left)]
                if records:
                    yield records
        finally:
            consumer.unassign()

    def _is_within(self, message: Message, left: dict[TopicPartition, OffsetRange]) -> bool:
        """Return whether this is a record of its range; removes ranges that are read to their end."""
        topic, number, offset = message.topic(), message.partition(), message.offset()
        error = message.error()
        if topic is None or number is None or offset is None:
            if error is not None and not error.retriable():
                raise translate(error, f"reading {self.topic}")
            return False
        partition = TopicPartition(topic, number)
        if partition not in left:
            return False
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                raise translate(error, f"reading {partition}")
            left.pop(partition)
            return False
        span = left[partition]
        if offset + 1 >= span.end:
            left.pop(partition)
            self._connected().incremental_unassign([RawPartition(*partition)])
        return offset < span.end

    def open(self) -> None:
        """Become the only client that can append markers; aborts another one's open transaction."""
        producer = self._broker.connect(
            Producer,
            **{
                "transactional.id": self._transactional_id,
                "transaction.timeout.ms": _TRANSACTION_MS,
                "message.max.bytes": self._broker.default("message.max.bytes", 100 << 20),
            },
        )
        try:
            producer.init_transactions(_OPEN_SECONDS)
        except KafkaException as exception:
            raise self._translated(exception, "opening") from exception
        self._producer = producer

    def mark(
        self, partition: TopicPartition, headers: Sequence[tuple[str, bytes]], value: bytes
    ) -> None:
        """Append a marker to the partition, acknowledged by all replicas; call `open` first.

        Raise AssignmentLost if another client has opened the topic since; nothing was appended then.
        After Unavailable the result is not known: close, and read the topic again.
        """
        producer = self._producer
        assert producer is not None, "open was not called"
        try:
            producer.begin_transaction()
            producer.produce(
                partition.topic, value, partition=partition.partition, headers=list(headers)
            )
            producer.commit_transaction(_MARK_SECONDS)
        except KafkaException as exception:
            raise self._translated(exception, "marking") from exception

    def _translated(self, exception: KafkaException, doing: str) -> OctaneError:
        error = error_of(exception)
        if error.code() in _FENCED or (error.fatal() and "fenced" in text_of(error).lower()):
            return AssignmentLost(
                f"another retry of {self.topic} has begun: this one ends, and the other one continues "
                "from its progress"
            )
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return NeedsOperator(
                f"{doing} {self.topic} for a retry: {text_of(error)}; grant the user WRITE and DESCRIBE "
                f"on the transactional id {self._transactional_id}"
            )
        return translate(error, f"{doing} {self.topic} for a retry")
