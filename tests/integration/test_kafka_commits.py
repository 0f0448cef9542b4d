"""Results of commits by partition: errors injected into the embedded broker, and Apache Kafka's own."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence

import pytest
from confluent_kafka import KafkaError

from octane_analytics.errors import AssignmentLost, Rebalancing
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.sandbox.kafka import ApiKey, EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import Commit, CommitOutcome, Committed, TopicPartition
from tests.tools.kafka.apache import ApacheKafka

DEADLINE_SECONDS = 30.0
PARTITIONS = 2
TOO_LONG = "x" * 4096
"""Metadata as long as the broker's offset.metadata.max.bytes, by default, which it refuses."""


class Listener:
    def __init__(self) -> None:
        self.owned: set[TopicPartition] = set()

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.owned |= set(partitions)
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.owned -= set(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.owned -= set(partitions)


def joined(servers: str, topic: str) -> KafkaSource:
    listener = Listener()
    source = KafkaSource(
        KafkaSettings(
            bootstrap_servers=servers,
            topic=topic,
            group_id=topic,
            rdkafka={"session.timeout.ms": "6000", "heartbeat.interval.ms": "100"},
        ),
        slot=None,
    )
    source.subscribe(listener)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(listener.owned) < PARTITIONS:
        assert time.monotonic() < deadline, "not assigned in time"
        source.poll(10, 0.05)
    return source


def commits(topic: str, offset: int, *metadata: str) -> list[Commit]:
    return [Commit(TopicPartition(topic, n), offset, text) for n, text in enumerate(metadata)]


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(initial_rebalance_delay_ms=10) as broker:
        yield broker


@pytest.fixture
def topic() -> str:
    return f"commits-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def member(embedded: EmbeddedKafka, topic: str) -> Iterator[KafkaSource]:
    embedded.create_topic(topic, PARTITIONS)
    source = joined(embedded.bootstrap_servers, topic)
    yield source
    embedded.clear_request_errors(ApiKey.OFFSET_COMMIT)
    source.close()


_GENERATION, _MOVED = KafkaError.ILLEGAL_GENERATION, KafkaError.NOT_COORDINATOR


@pytest.mark.parametrize(
    ("codes", "is_unknown", "may_be_stored"),
    [
        ([_GENERATION], False, False),
        ([KafkaError.UNKNOWN_MEMBER_ID], False, False),
        ([KafkaError.REBALANCE_IN_PROGRESS], False, False),
        ([KafkaError.GROUP_AUTHORIZATION_FAILED], False, False),
        ([KafkaError.OFFSET_METADATA_TOO_LARGE], False, False),
        ([KafkaError.NETWORK_EXCEPTION], True, False),
        ([KafkaError.UNKNOWN], True, False),
        # librdkafka sends the request again, and the answer is that to the second one.
        ([_MOVED, _GENERATION], False, True),
        ([_MOVED, _MOVED, _GENERATION], False, True),
        ([KafkaError.COORDINATOR_NOT_AVAILABLE, _GENERATION], False, True),
        ([KafkaError.REQUEST_TIMED_OUT, _GENERATION], False, True),
    ],
    ids=lambda value: "-".join(KafkaError(c).name() for c in value) if type(value) is list else "",
)
def test_injected_error_decides_outcome(
    embedded: EmbeddedKafka,
    member: KafkaSource,
    topic: str,
    codes: Sequence[int],
    is_unknown: bool,
    may_be_stored: bool,
) -> None:
    assert member.commit(commits(topic, 1, "a", "b")).accepted == {0, 1}
    embedded.push_request_errors(ApiKey.OFFSET_COMMIT, [int(code) for code in codes])
    outcome = member.commit(commits(topic, 2, "c", "d"))
    assert outcome.error is not None
    assert not outcome.accepted
    assert (outcome.is_unknown, outcome.may_be_stored) == (is_unknown, may_be_stored)


def test_repeated_request_can_be_accepted(
    embedded: EmbeddedKafka, member: KafkaSource, topic: str
) -> None:
    embedded.push_request_errors(ApiKey.OFFSET_COMMIT, [int(_MOVED)])
    assert member.commit(commits(topic, 2, "c", "d")).accepted == {0, 1}


def test_fenced_member_loses_its_assignment(embedded: EmbeddedKafka, topic: str) -> None:
    embedded.create_topic(topic, PARTITIONS)
    member = joined(embedded.bootstrap_servers, topic)
    embedded.push_request_errors(ApiKey.OFFSET_COMMIT, [int(KafkaError.FENCED_INSTANCE_ID)])
    with pytest.raises(AssignmentLost):
        member.commit(commits(topic, 2, "c", "d"))
    # Not closed: after a fencing error that does not return (librdkafka 2.16.1).


def test_apache_stores_other_partitions_of_failed_commit(kafka: ApacheKafka, topic: str) -> None:
    kafka.create_topic(topic, PARTITIONS)
    member = joined(kafka.bootstrap_servers, topic)
    where = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    outcome = member.commit(commits(topic, 1, TOO_LONG, "short"))
    assert outcome.is_unknown, "confluent_kafka raises, and does not say that one was stored"
    assert "OFFSET_METADATA_TOO_LARGE" in str(outcome.error)
    assert member.committed(where) == {
        where[0]: Committed(None, ""),
        where[1]: Committed(1, "short"),
    }
    absent = Commit(TopicPartition(topic, PARTITIONS), 2, "-")
    assert member.commit([*commits(topic, 2, "a", "b"), absent]).is_unknown
    assert member.committed(where) == {where[0]: Committed(2, "a"), where[1]: Committed(2, "b")}
    member.close()


def test_apache_refuses_too_long_metadata_of_all(kafka: ApacheKafka, topic: str) -> None:
    kafka.create_topic(topic, PARTITIONS)
    member = joined(kafka.bootstrap_servers, topic)
    outcome = member.commit(commits(topic, 2, TOO_LONG, TOO_LONG))
    assert outcome == CommitOutcome(error=outcome.error)
    assert outcome.error is not None
    assert member.commit(commits(topic, 3, TOO_LONG[1:], "")).accepted == {0, 1}
    member.close()


def test_apache_refuses_outsider_of_active_group(kafka: ApacheKafka, topic: str) -> None:
    kafka.create_topic(topic, PARTITIONS)
    member = joined(kafka.bootstrap_servers, topic)
    outsider = KafkaSource(
        KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic=topic, group_id=topic), None
    )
    outcome = outsider.commit(commits(topic, 7, "mine", "mine"))
    assert isinstance(outcome.error, Rebalancing)
    assert outcome == CommitOutcome(error=outcome.error)
    assert {c.offset for c in member.committed([TopicPartition(topic, 0)]).values()} == {None}
    outsider.close()
    member.close()
