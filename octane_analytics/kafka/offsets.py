"""Requests for partition ends, offsets by time and a group's committed offsets. Each call blocks."""

import time
from collections.abc import Iterable, Sequence

from confluent_kafka import OFFSET_END, Consumer, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as RawPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, error_of, translate
from octane_analytics.kafka.conversions import committed_of, from_confluent, to_confluent
from octane_analytics.types import Committed, OffsetRange, TopicPartition

_COORDINATOR_PAUSE_SECONDS = 0.2
COORDINATOR_MOVES = frozenset(
    {
        KafkaError._WAIT_COORD,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)
"""Errors while a group's coordinator is being found, or has just changed: repeat the request."""


def watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Return the first offset that the log holds, and the end up to which the consumer reads.

    For a consumer that reads committed records only, which is the default, the end is the last stable
    offset: the first record of the oldest open transaction, if there is one. `log_ends` returns the end
    of the log itself. Raise Unavailable or NeedsOperator.
    """
    try:
        low, high = consumer.get_watermark_offsets(to_confluent(partition), timeout=REQUEST_SECONDS)
    except KafkaException as exception:
        raise translate(error_of(exception), f"asking for the ends of {partition}") from exception
    return int(low), int(high)


def log_ends(
    admin: AdminClient, partitions: Iterable[TopicPartition], *, is_stable: bool = False
) -> dict[TopicPartition, int]:
    """Return the offset of each partition's next record; with `is_stable` the last stable offset, after
    which an open transaction hides records from consumers. Raise Unavailable or NeedsOperator."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    return _list_offsets(admin, partitions, latest, is_stable=is_stable)


def log_bounds(
    admin: AdminClient, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, OffsetRange]:
    """Return the offsets that the log of each partition holds, also those after an open transaction.

    Raise Unavailable or NeedsOperator.
    """
    earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    firsts = _list_offsets(admin, partitions, earliest, is_stable=False)
    ends = log_ends(admin, partitions)
    return {p: OffsetRange(firsts[p], max(ends[p], firsts[p])) for p in partitions}


def _list_offsets(
    admin: AdminClient,
    partitions: Iterable[TopicPartition],
    specification: OffsetSpec,
    *,
    is_stable: bool,
) -> dict[TopicPartition, int]:
    requested = dict.fromkeys(map(to_confluent, partitions), specification)
    if not requested:
        return {}
    doing = "asking for the ends of the partitions"
    level = IsolationLevel.READ_COMMITTED if is_stable else IsolationLevel.READ_UNCOMMITTED
    try:
        futures = admin.list_offsets(
            requested, isolation_level=level, request_timeout=REQUEST_SECONDS
        )
        return {
            from_confluent(raw): future.result(timeout=REQUEST_SECONDS + 1.0).offset
            for raw, future in futures.items()
        }
    except KafkaException as exception:
        raise translate(error_of(exception), doing) from exception
    except TimeoutError as error:
        raise Unavailable(f"{doing}: no answer in time") from error


def known_ends(
    consumer: Consumer, partitions: Iterable[TopicPartition], seconds: float
) -> dict[TopicPartition, int]:
    """Return the ends, up to which the consumer reads, of the partitions whose broker answers within
    `seconds`."""
    requested = [to_confluent(partition, OFFSET_END) for partition in partitions]
    try:
        found = consumer.offsets_for_times(requested, timeout=seconds)
    except KafkaException:
        return {}  # other calls report the outage
    return {from_confluent(raw): raw.offset for raw in found if raw.error is None}


def offsets_at(
    consumer: Consumer, partitions: Iterable[TopicPartition], epoch_seconds: float
) -> dict[TopicPartition, int | None]:
    """Return the first offset with that timestamp or a later one; None if there is none.

    Raise Unavailable or NeedsOperator.
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
    consumer: Consumer,
    group: str,
    partitions: Sequence[TopicPartition],
    *,
    coordinator_seconds: float = 0.0,
) -> dict[TopicPartition, Committed]:
    """Return the committed offsets of the consumer's group, in the order of `partitions`.

    All of them, or an error (see `client.translate`). Repeats the request for up to
    `coordinator_seconds` while another broker becomes the group's coordinator.
    """
    requested = [to_confluent(partition) for partition in partitions]
    deadline = time.monotonic() + coordinator_seconds
    while True:
        found, error = _request_committed(consumer, requested)
        if error is None:
            return found
        if error.code() not in COORDINATOR_MOVES or time.monotonic() >= deadline:
            raise translate(error, f"asking for the committed offsets of group {group}")
        time.sleep(_COORDINATOR_PAUSE_SECONDS)


def _request_committed(
    consumer: Consumer, requested: list[RawPartition]
) -> tuple[dict[TopicPartition, Committed], KafkaError | None]:
    found = {}
    try:
        for raw in consumer.committed(requested, timeout=REQUEST_SECONDS):
            if raw.error is not None:
                return {}, raw.error
            found[from_confluent(raw)] = committed_of(raw)
    except KafkaException as exception:
        return {}, error_of(exception)
    return found, None
