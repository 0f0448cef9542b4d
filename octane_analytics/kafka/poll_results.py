"""What librdkafka hands out, told apart: records, ends of partitions, lost positions, complaints."""

from collections.abc import Sequence

from confluent_kafka import KafkaError, Message

from octane_analytics.types import EndOfPartition, OffsetGone, Polled, TopicPartition

_GONE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})


def classify_messages(messages: Sequence[Message]) -> tuple[Polled, KafkaError | None]:
    """What came in, and the last complaint that stood beside it."""
    records, ends, gone = [], [], []
    trouble: KafkaError | None = None
    for message in messages:
        error = message.error()
        if error is None:
            records.append(message)
            continue
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is not None and partition is not None and offset is not None:
            where = TopicPartition(topic, partition)
            if error.code() == KafkaError._PARTITION_EOF:
                ends.append(EndOfPartition(where, offset))
                continue
            if error.code() in _GONE:
                gone.append(OffsetGone(where, offset))
                continue
        if (
            error.code() != KafkaError._MAX_POLL_EXCEEDED
        ):  # the callback for lost partitions follows
            trouble = error
    return Polled(records, ends, gone), trouble
