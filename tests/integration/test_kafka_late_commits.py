"""Offset commits that arrive late: unknown outcomes, and refusal after the client was recreated."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import Commit, Committed, TopicPartition
from tests.tools.kafka.apache import ApacheKafka
from tests.tools.kafka.proxy import KafkaProxy

DEADLINE_SECONDS = 40.0
LATE_SECONDS = 1.0
"""Time in which a released commit has reached the broker."""


class Listener:
    def __init__(self) -> None:
        self.assignments = 0
        self.owned: set[TopicPartition] = set()

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.assignments += bool(partitions)
        self.owned |= set(partitions)
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.owned -= set(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.owned -= set(partitions)


class Member:
    """Group member of one topic with one partition, connected through the proxy."""

    def __init__(self, servers: str, topic: str, instance_prefix: str) -> None:
        self.partition = TopicPartition(topic, 0)
        self.listener = Listener()
        self.source = KafkaSource(
            KafkaSettings(
                bootstrap_servers=servers,
                topic=topic,
                group_id=topic,
                instance_prefix=instance_prefix,
                rdkafka={
                    "session.timeout.ms": "6000",
                    "heartbeat.interval.ms": "100",
                    "socket.timeout.ms": "1500",
                },
            ),
            slot=0,
        )
        self.source.subscribe(self.listener)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            self.source.poll(10, 0.05)

    def committed(self) -> Committed:
        return self.source.committed([self.partition])[self.partition]


@pytest.fixture(params=["embedded", "apache"])
def broker_port(request: pytest.FixtureRequest, topic: str) -> Iterator[int]:
    if request.param == "apache":
        kafka: ApacheKafka = request.getfixturevalue("kafka")
        kafka.create_topic(topic, 1)
        yield kafka.port
        return
    with EmbeddedKafka(topics={topic: 1}, initial_rebalance_delay_ms=10) as embedded:
        yield int(embedded.bootstrap_servers.rpartition(":")[2])


@pytest.fixture
def topic() -> str:
    return f"late-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def proxy(broker_port: int) -> Iterator[KafkaProxy]:
    with KafkaProxy(broker_port) as running:
        yield running


@pytest.mark.parametrize("instance_prefix", ["", "host"], ids=["dynamic", "static"])
def test_late_commit_of_recreated_client_is_refused(
    proxy: KafkaProxy, topic: str, instance_prefix: str
) -> None:
    member = Member(proxy.bootstrap_servers, topic, instance_prefix)
    member.until(lambda: member.listener.owned)
    assert member.source.commit([Commit(member.partition, 1, "before")]).accepted == {0}
    proxy.hold_commits()
    outcome = member.source.commit([Commit(member.partition, 2, "late")])
    assert outcome.is_unknown
    assert outcome.error is not None
    assert proxy.held >= 1
    proxy.pass_commits()
    assert member.committed() == Committed(1, "before")
    member.source.recreate_client()
    member.until(lambda: member.listener.assignments == 2)
    assert member.committed() == Committed(1, "before")
    assert proxy.release() >= 1
    deadline = time.monotonic() + LATE_SECONDS
    member.until(lambda: time.monotonic() > deadline)
    assert member.committed() == Committed(1, "before")
    assert member.source.commit([Commit(member.partition, 3, "after")]).accepted == {0}
    assert member.committed() == Committed(3, "after")
    member.source.close()


def test_late_commit_of_same_client_is_stored(proxy: KafkaProxy, topic: str) -> None:
    member = Member(proxy.bootstrap_servers, topic, "")
    member.until(lambda: member.listener.owned)
    proxy.hold_commits()
    assert member.source.commit([Commit(member.partition, 2, "late")]).is_unknown
    assert member.committed() == Committed(None, "")
    proxy.release()
    member.until(lambda: member.committed() == Committed(2, "late"))
    proxy.pass_commits()
    member.source.close()
