"""Conversions between confluent_kafka's topic partitions and ours."""

from confluent_kafka import OFFSET_INVALID
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.types import Committed, TopicPartition


def to_confluent(partition: TopicPartition, offset: int = OFFSET_INVALID) -> RawPartition:
    return RawPartition(partition.topic, partition.partition, offset)


def from_confluent(raw: RawPartition) -> TopicPartition:
    return TopicPartition(raw.topic, raw.partition)


def committed_of(raw: RawPartition) -> Committed:
    """Convert a response item without an error. Metadata that is not UTF-8, and so not ours, counts as
    empty."""
    try:
        metadata = raw.metadata or ""
    except UnicodeDecodeError:
        metadata = ""
    return Committed(raw.offset if raw.offset >= 0 else None, metadata)
