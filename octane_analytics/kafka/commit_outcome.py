"""Commits, and what became of each partition: stored, refused, or not known.

A commit that is not known to be refused may have been stored, or may still arrive at the coordinator. So
an error counts as a refusal only if it proves that nothing was stored: every other error, and one that
this module does not know, makes the outcome unknown.
"""

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import AssignmentLost, Unavailable
from octane_analytics.kafka.client import error_of, translate
from octane_analytics.types import Commit, CommitOutcome

RETRY_BACKOFF_MS = 1_000
"""librdkafka sends a commit again by itself, this time after the first attempt failed, less 20 %. The
coordinator may then refuse the second of two requests of which it has stored the first."""
_RESENT_SECONDS = 0.7
"""Time after which an answer may be that to a second request."""

_REFUSALS = frozenset(
    {
        # The coordinator checks member and generation before it stores anything.
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.GROUP_ID_NOT_FOUND,
        # It has not loaded the group yet.
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        # The broker checks these before the coordinator has the request.
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.INVALID_GROUP_ID,
        # All offsets are one write, which is too large.
        KafkaError.INVALID_COMMIT_OFFSET_SIZE,
        # librdkafka has not sent the request.
        KafkaError._WAIT_COORD,
        KafkaError._ASSIGNMENT_LOST,
    }
)
"""Errors that prove that nothing was stored, in any partition of the request.

Not among them are NOT_COORDINATOR and COORDINATOR_NOT_AVAILABLE. The coordinator also answers these when
it has written the offsets, and then lost its partition's leadership or found too few replicas (Kafka's
GroupMetadataManager.storeOffsets)."""
_PARTITION_REFUSALS = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.OFFSET_METADATA_TOO_LARGE}
)
"""Errors that prove that the offset of the partition was not stored; those of others may have been."""


def commit(consumer: Consumer, commits: Sequence[Commit]) -> CommitOutcome:
    """Commit in one request; block until the coordinator has answered, or librdkafka has given up.

    Return the result of each partition. Raise AssignmentLost if this member was replaced for good.
    """
    if not commits:
        return CommitOutcome()
    began = time.monotonic()
    numbers = frozenset(each.partition.partition for each in commits)
    try:
        answer = consumer.commit(offsets=[_raw(each) for each in commits], asynchronous=False)
    except KafkaException as exception:
        # Raised if any partition failed. The other results are not returned, and may be successes.
        error = error_of(exception)
        return _failed(error, frozenset(), _is_refused(error, commits), began)
    errors = {each.partition: each.error for each in answer or () if each.error is not None}
    if not errors:
        return CommitOutcome(numbers)
    is_refused = all(e.code() in _REFUSALS | _PARTITION_REFUSALS for e in errors.values())
    return _failed(next(iter(errors.values())), numbers - errors.keys(), is_refused, began)


def _is_refused(error: KafkaError, commits: Sequence[Commit]) -> bool:
    """Return whether one partition's error proves that the whole request was refused."""
    code = error.code()
    if code == KafkaError.OFFSET_METADATA_TOO_LARGE:
        return len({len(each.metadata.encode()) for each in commits}) == 1
    return code in _REFUSALS or (code in _PARTITION_REFUSALS and len(commits) == 1)


def _failed(
    first: KafkaError, accepted: frozenset[int], is_refused: bool, began: float
) -> CommitOutcome:
    error = translate(first, "committing offsets")
    if isinstance(error, AssignmentLost):
        raise error
    assert isinstance(error, Unavailable), "translate returns no other error"
    is_resent = time.monotonic() - began >= _RESENT_SECONDS
    if is_refused and not (is_resent and accepted):
        return CommitOutcome(accepted, may_be_stored=is_resent, error=error)
    return CommitOutcome(is_unknown=True, error=error)


def _raw(commit: Commit) -> RawPartition:
    where = commit.partition
    return RawPartition(where.topic, where.partition, commit.offset, commit.metadata)
