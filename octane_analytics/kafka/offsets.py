"""A partition's ends and a group's offsets, asked of a broker through a consumer; each call blocks."""

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.kafka.client import REQUEST_SECONDS, error_of, translate
from octane_analytics.kafka.partitions import committed_of, partition_of, raw_of
from octane_analytics.types import Commit, Committed, TopicPartition


def ends_of(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset that the log holds, and the one that its next record gets.

    Raises Unavailable or NeedsOperator.
    """
    try:
        low, high = consumer.get_watermark_offsets(raw_of(partition), timeout=REQUEST_SECONDS)
    except KafkaException as exception:
        raise translate(error_of(exception), f"asking for the ends of {partition}") from exception
    return int(low), int(high)


def committed_by(
    consumer: Consumer, partitions: Sequence[TopicPartition]
) -> Mapping[TopicPartition, Committed]:
    """What the consumer's group has committed: all of them or an error, see `client.translate`."""
    try:
        answer = consumer.committed([raw_of(p) for p in partitions], REQUEST_SECONDS)
    except KafkaException as exception:
        raise translate(error_of(exception), "asking for committed offsets") from exception
    found = {}
    for raw in answer:
        if raw.error is not None:
            raise translate(raw.error, f"asking for the committed offset of {partition_of(raw)}")
        found[partition_of(raw)] = committed_of(raw)
    return found


def commit(consumer: Consumer, commits: Sequence[Commit]) -> None:
    """Returns when the broker has all of them. Raises as `client.translate` says."""
    raw = [
        RawPartition(c.partition.topic, c.partition.partition, c.offset, c.metadata)
        for c in commits
    ]
    try:
        answer = consumer.commit(offsets=raw, asynchronous=False)
    except KafkaException as exception:
        raise translate(error_of(exception), "committing offsets") from exception
    for committed in answer or ():
        if committed.error is not None:
            raise translate(committed.error, f"committing {partition_of(committed)}")
