"""The dead-letter topic as a whole: read from end to end, and marked by whoever retries its letters.

Marks are written under one transactional id for each group and topic, so that a second retry fences
the first: whoever opens the log last is the only one that can mark it.
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
    """The configured dead-letter topic. Every method blocks; raises Unavailable where no broker
    answers, NeedsOperator for a topic or a right that is missing."""

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
        self._transactional_id = f"octane-retry-{settings.group_id}-{self.topic}"
        self._producer: Producer | None = None

    def close(self) -> None:
        super().close()
        self._producer = None

    def has_topic(self) -> bool:
        """Whether the topic exists. A worker's first dead-letter message may be what creates it."""
        error = self._metadata(self.topic).topics[self.topic].error
        return error is None or error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART

    def spans(self) -> dict[TopicPartition, OffsetRange]:
        """What each partition holds, as far as no transaction is open."""
        found = {}
        for number in self._partition_numbers(self.topic):
            where = TopicPartition(self.topic, number)
            low, high = watermarks(self._connected(), where)
            found[where] = OffsetRange(low, max(low, high))
        return found

    def read(self, spans: Mapping[TopicPartition, OffsetRange]) -> Iterator[Sequence[Message]]:
        """Every record of the spans that is there, in order within each partition, in portions.

        Raises Unavailable when nothing comes for half a minute.
        """
        consumer = self._connected()
        left = {where: span for where, span in spans.items() if span.first < span.end}
        consumer.assign([RawPartition(*where, span.first) for where, span in left.items()])
        heard_at = time.monotonic()
        try:
            while left:
                messages = consumer.consume(10_000, 0.2)
                if messages:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > _SILENCE_SECONDS:
                    raise Unavailable(
                        f"reading {self.topic}: nothing came for {_SILENCE_SECONDS:g} s"
                    )
                records = [m for m in messages if self._is_within(m, left)]
                if records:
                    yield records
        finally:
            consumer.unassign()

    def _is_within(self, message: Message, left: dict[TopicPartition, OffsetRange]) -> bool:
        """Whether this is a record of its span; takes spans that are read to their end out."""
        topic, number, offset = message.topic(), message.partition(), message.offset()
        error = message.error()
        if topic is None or number is None or offset is None:
            if error is not None and not error.retriable():
                raise translate(error, f"reading {self.topic}")
            return False
        where = TopicPartition(topic, number)
        if where not in left:
            return False
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                raise translate(error, f"reading {where}")
            left.pop(where)
            return False
        span = left[where]
        if offset + 1 >= span.end:
            left.pop(where)
            self._connected().incremental_unassign([RawPartition(*where)])
        return offset < span.end

    def open(self) -> None:
        """Makes this the only one that can mark the log; ends what another one had under way."""
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
        """Adds a record to the partition, acknowledged by all replicas; `open` comes first.

        Raises AssignmentLost when another one has opened the log since; nothing was added then.
        After Unavailable nobody knows: close, and find out by reading.
        """
        producer = self._producer
        assert producer is not None, "to be opened first"
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
                f"another retry of {self.topic} has begun: this one ends, and that one goes on from "
                "what is done"
            )
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return NeedsOperator(
                f"{doing} {self.topic} for a retry: {text_of(error)}; grant the user WRITE and DESCRIBE "
                f"on the transactional id {self._transactional_id}"
            )
        return translate(error, f"{doing} {self.topic} for a retry")
