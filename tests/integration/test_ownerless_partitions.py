"""Partitions without an owner in a stable group, on Apache Kafka."""

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.ownerless_partitions import OwnerlessPartitionsWatch, rebalance_group
from octane_analytics.settings.connections import KafkaSettings
from tests.support.command import wait_until
from tests.tools.kafka.apache import ApacheKafka

PARTITIONS = 4
MEMBER = """
import os, signal, sys
from confluent_kafka import Consumer

servers, group, name, is_killed = sys.argv[1:]

def revoked(consumer, partitions):
    if is_killed == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

consumer = Consumer({
    "bootstrap.servers": servers, "group.id": group, "group.instance.id": name, "log_level": 0,
    "partition.assignment.strategy": "cooperative-sticky", "enable.auto.commit": False,
    "session.timeout.ms": 60000, "heartbeat.interval.ms": 200,
})
consumer.subscribe([group], on_revoke=revoked)
while True:
    consumer.poll(0.2)
"""


class Members:
    """Static members in processes of their own, of a group with the name of its topic."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, fate: str = "lives") -> subprocess.Popen[bytes]:
        servers, group = self._settings.bootstrap_servers, self._settings.group_id
        member = subprocess.Popen([sys.executable, "-c", MEMBER, servers, group, name, fate])
        self._running.append(member)
        return member

    def kill(self) -> None:
        for member in self._running:
            member.kill()
            member.wait()


@pytest.fixture
def settings(kafka: ApacheKafka) -> KafkaSettings:
    topic = f"ownerless-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic, PARTITIONS)
    kafka.create_topic(f"{topic}.dlq", 1)
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic=topic, group_id=topic)


@pytest.fixture
def members(settings: KafkaSettings) -> Iterator[Members]:
    members = Members(settings)
    yield members
    members.kill()


def test_partitions_without_owner_are_assigned_again(
    settings: KafkaSettings, members: Members
) -> None:
    reports: list[str] = []
    with ConsumerGroupAdmin(settings, client_id="tests") as group:

        def owned() -> list[int]:
            state = group.state()
            if state.state != "stable":
                return []
            return sorted(len(member.partitions) for member in state.members)

        watch = OwnerlessPartitionsWatch(
            group,
            settings.topic,
            lambda: rebalance_group(settings, client_id="tests-rebalance"),
            reports.append,
        )
        first = members.start("a", "killed")
        wait_until(lambda: owned() == [PARTITIONS])
        assert not watch.look()
        members.start("b")
        first.wait(30)  # killed between the two steps of the rebalance
        members.start("a")
        wait_until(lambda: owned() == [0, PARTITIONS // 2])
        wait_until(lambda: watch.look() and bool(reports))
        wait_until(lambda: owned() == [PARTITIONS // 2] * 2)
        assert not watch.look()
    assert reports == [
        f"2 partitions of {settings.topic} have no owner in a stable group: rebalancing the group"
    ]
