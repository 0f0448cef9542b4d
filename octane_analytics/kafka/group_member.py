"""Consumer group member that reports the result of a commit partition by partition."""

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import AssignmentLost, OctaneError, Unavailable
from octane_analytics.kafka.client import error_of, translate
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.kafka.conversions import from_confluent
from octane_analytics.types import Commit, CommitOutcome

_REFUSALS = frozenset(
    {
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._WAIT_COORD,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.OFFSET_METADATA_TOO_LARGE,
        KafkaError.INVALID_COMMIT_OFFSET_SIZE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
"""Errors after which nothing of the refused partition is stored."""


class KafkaGroupMember(KafkaSource):
    """Group member (see `interfaces.GroupMember`); not thread-safe."""

    def commit(self, commits: Sequence[Commit]) -> CommitOutcome:  # type: ignore[override]
        raw = [
            RawPartition(c.partition.topic, c.partition.partition, c.offset, c.metadata)
            for c in commits
        ]
        try:
            answer = self._client.get().commit(offsets=raw, asynchronous=False)
        except KafkaException as exception:
            error = error_of(exception)
            return CommitOutcome(
                is_unknown=error.code() not in _REFUSALS,
                error=_unavailable(translate(error, "committing offsets")),
            )
        errors = {from_confluent(r): r.error for r in answer or () if r.error is not None}
        self._assignment.committed([c for c in commits if c.partition not in errors])
        return CommitOutcome(
            frozenset(c.partition.partition for c in commits if c.partition not in errors),
            any(error.code() not in _REFUSALS for error in errors.values()),
            next((_unavailable(translate(e, f"committing {p}")) for p, e in errors.items()), None),
        )


def _unavailable(error: OctaneError) -> Unavailable:
    if isinstance(error, AssignmentLost):
        raise error
    return error if isinstance(error, Unavailable) else Unavailable(str(error))
