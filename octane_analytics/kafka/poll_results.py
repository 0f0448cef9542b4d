"""Classification of librdkafka's messages: records, partition ends, lost positions and errors."""

from collections.abc import Sequence

from confluent_kafka import KafkaError, Message

from octane_analytics.types import EndOfPartition, OffsetGone, Polled, TopicPartition

_GONE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})


def classify_messages(messages: Sequence[Message]) -> tuple[Polled, KafkaError | None]:
    """Return the poll's results, and the last error among them."""
    records, ends, gone = [], [], []
    last_error: KafkaError | None = None
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
        # After an exceeded poll interval the callback for lost partitions follows.
        if error.code() != KafkaError._MAX_POLL_EXCEEDED:
            last_error = error
    return Polled(records, ends, gone), last_error
