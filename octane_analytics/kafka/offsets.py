"""A partition's ends and a group's offsets, asked of a broker; each call blocks."""

from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import OFFSET_END, Consumer, IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as RawPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, error_of, translate
from octane_analytics.kafka.conversions import committed_of, from_confluent, to_confluent
from octane_analytics.types import Commit, Committed, TopicPartition


def watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset that the log holds, and its end as the consumer sees it.

    For a consumer that reads committed records only, which is the default, that is the last stable
    offset: the first record of the oldest open transaction, where there is one. `log_ends` answers the
    log's end itself. Raises Unavailable or NeedsOperator.
    """
    try:
        low, high = consumer.get_watermark_offsets(to_confluent(partition), timeout=REQUEST_SECONDS)
    except KafkaException as exception:
        raise translate(error_of(exception), f"asking for the ends of {partition}") from exception
    return int(low), int(high)


def log_ends(
    admin: AdminClient, partitions: Iterable[TopicPartition], *, is_stable: bool = False
) -> dict[TopicPartition, int]:
    """The offset that each partition's next record gets; with `is_stable` the last stable offset, from
    which on an open transaction keeps records from consumers. Raises Unavailable or NeedsOperator."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = dict.fromkeys(map(to_confluent, partitions), latest)
    if not asked:
        return {}
    doing = "asking for the ends of the partitions"
    level = IsolationLevel.READ_COMMITTED if is_stable else IsolationLevel.READ_UNCOMMITTED
    try:
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=REQUEST_SECONDS)
        return {
            from_confluent(raw): answer.result(timeout=REQUEST_SECONDS + 1.0).offset
            for raw, answer in answers.items()
        }
    except KafkaException as exception:
        raise translate(error_of(exception), doing) from exception
    except TimeoutError as error:
        raise Unavailable(f"{doing}: no answer in time") from error


def known_ends(
    consumer: Consumer, partitions: Iterable[TopicPartition], seconds: float
) -> dict[TopicPartition, int]:
    """The ends that the consumer reads to, of the partitions whose broker answers within `seconds`."""
    asked = [to_confluent(partition, OFFSET_END) for partition in partitions]
    try:
        answer = consumer.offsets_for_times(asked, timeout=seconds)
    except KafkaException:
        return {}  # an outage shows elsewhere
    return {from_confluent(raw): raw.offset for raw in answer if raw.error is None}


def offsets_at(
    consumer: Consumer, partitions: Iterable[TopicPartition], epoch_seconds: float
) -> dict[TopicPartition, int | None]:
    """The first offset with that timestamp or a later one; None where there is none.

    Raises Unavailable or NeedsOperator.
    """
    milliseconds = int(epoch_seconds * 1000)
    doing = "looking up offsets by time"
    try:
        answer = consumer.offsets_for_times(
            [to_confluent(partition, milliseconds) for partition in partitions],
            timeout=REQUEST_SECONDS,
        )
    except KafkaException as exception:
        raise translate(error_of(exception), doing) from exception
    found: dict[TopicPartition, int | None] = {}
    for raw in answer:
        if raw.error is not None:
            raise translate(raw.error, doing)
        found[from_confluent(raw)] = raw.offset if raw.offset >= 0 else None
    return found


def committed_by(
    consumer: Consumer, partitions: Sequence[TopicPartition]
) -> Mapping[TopicPartition, Committed]:
    """What the consumer's group has committed: all of them or an error, see `client.translate`."""
    try:
        answer = consumer.committed([to_confluent(p) for p in partitions], REQUEST_SECONDS)
    except KafkaException as exception:
        raise translate(error_of(exception), "asking for committed offsets") from exception
    found = {}
    for raw in answer:
        if raw.error is not None:
            raise translate(raw.error, f"asking for the committed offset of {from_confluent(raw)}")
        found[from_confluent(raw)] = committed_of(raw)
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
            raise translate(committed.error, f"committing {from_confluent(committed)}")
