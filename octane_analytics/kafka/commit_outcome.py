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
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.INVALID_GROUP_ID,
        # Stored for none of the partitions to which it applies.
        KafkaError.OFFSET_METADATA_TOO_LARGE,
        KafkaError.INVALID_COMMIT_OFFSET_SIZE,
        # librdkafka has not sent the request.
        KafkaError._WAIT_COORD,
        KafkaError._ASSIGNMENT_LOST,
    }
)
"""Errors that prove that nothing was stored.

Not among them are NOT_COORDINATOR and COORDINATOR_NOT_AVAILABLE. The coordinator also answers these when
it has written the offsets, and then lost its partition's leadership or found too few replicas (Kafka's
GroupMetadataManager.storeOffsets)."""


def commit(consumer: Consumer, commits: Sequence[Commit]) -> CommitOutcome:
    """Commit in one request; block until the coordinator has answered, or librdkafka has given up.

    Return the result of each partition. Raise AssignmentLost if this member was replaced for good.
    """
    if not commits:
        return CommitOutcome()
    began = time.monotonic()
    try:
        answer = consumer.commit(offsets=[_raw(each) for each in commits], asynchronous=False)
    except KafkaException as exception:
        # Raised if every partition failed; the results are not returned then. The error is the last one.
        errors = {each.partition.partition: error_of(exception) for each in commits}
        has_one_cause = len({len(each.metadata) for each in commits}) == 1
    else:
        errors = {r.partition: r.error for r in answer or () if r.error is not None}
        has_one_cause = True
    is_resent = time.monotonic() - began >= _RESENT_SECONDS
    return _outcome(commits, errors, is_resent=is_resent, has_one_cause=has_one_cause)


def _outcome(
    commits: Sequence[Commit],
    errors: dict[int, KafkaError],
    *,
    is_resent: bool,
    has_one_cause: bool,
) -> CommitOutcome:
    accepted = frozenset(each.partition.partition for each in commits) - errors.keys()
    if not errors:
        return CommitOutcome(accepted)
    first = next(iter(errors.values()))
    error = translate(first, "committing offsets")
    if isinstance(error, AssignmentLost):
        raise error
    assert isinstance(error, Unavailable), "translate returns no other error"
    is_refused = all(each.code() in _REFUSALS for each in errors.values())
    if first.code() == KafkaError.OFFSET_METADATA_TOO_LARGE and not has_one_cause:
        is_refused = False  # the error of partitions with shorter metadata is not known
    if is_refused and not (is_resent and accepted):
        return CommitOutcome(accepted, may_be_stored=is_resent, error=error)
    return CommitOutcome(is_unknown=True, error=error)


def _raw(commit: Commit) -> RawPartition:
    where = commit.partition
    return RawPartition(where.topic, where.partition, commit.offset, commit.metadata)
