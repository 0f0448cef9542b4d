"""Refused group membership, on Apache Kafka and on a broker with injected errors."""

import time
from collections.abc import Iterator, Mapping, Sequence

import pytest
from confluent_kafka import Consumer, KafkaError

from octane_analytics.errors import NeedsOperator, OctaneError
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.sandbox.kafka import ApiKey, EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import TopicPartition
from tests.support.command import wait_until
from tests.support.operations_fixtures import Site, events, site

__all__ = ["site"]


def test_member_of_other_application_is_reported_with_advice(site: Site) -> None:
    foreign = Consumer(
        {
            "bootstrap.servers": site.kafka.bootstrap_servers,
            "group.id": site.group,
            "partition.assignment.strategy": "range",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    foreign.subscribe([site.topic])
    wait_until(lambda: foreign.poll(0.2) is not None or bool(foreign.assignment()))
    site.send(*events(range(3)))
    with site.worker() as worker:
        wait_until(lambda: "set another KAFKA_GROUP_ID" in worker.output)
        deadline = time.monotonic() + 8.0  # several attempts of librdkafka
        wait_until(lambda: (foreign.poll(0.1), time.monotonic() > deadline)[1])
        assert worker.output.count("waiting for a dependency") == 1
        assert "dependency serves again" not in worker.output
        foreign.close()
        wait_until(lambda: site.rows() == 3)
        wait_until(lambda: "dependency serves again" in worker.output)
        worker.child.terminate()
        assert worker.wait() == 0, worker.output


class Listener:
    def __init__(self) -> None:
        self.has_assignment = False

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.has_assignment = True
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None: ...
    def lost(self, partitions: Sequence[TopicPartition]) -> None: ...


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(topics={"refused": 1}) as broker:
        yield broker


@pytest.mark.parametrize(
    ("api", "error"),
    [
        (ApiKey.JOIN_GROUP, KafkaError.INCONSISTENT_GROUP_PROTOCOL),
        (ApiKey.JOIN_GROUP, KafkaError.GROUP_MAX_SIZE_REACHED),
        (ApiKey.JOIN_GROUP, KafkaError.INVALID_SESSION_TIMEOUT),
        (ApiKey.JOIN_GROUP, KafkaError.GROUP_AUTHORIZATION_FAILED),
        (ApiKey.FIND_COORDINATOR, KafkaError.GROUP_AUTHORIZATION_FAILED),
    ],
)
def test_refused_member_fails_every_poll_until_joined(
    embedded: EmbeddedKafka, api: ApiKey, error: int
) -> None:
    settings = KafkaSettings(
        bootstrap_servers=embedded.bootstrap_servers,
        topic="refused",
        group_id=f"group-{api}-{error}",
        rdkafka={"session.timeout.ms": "3000", "heartbeat.interval.ms": "100"},
    )
    source, listener = KafkaSource(settings, None), Listener()
    embedded.push_request_errors(api, [error] * 3)
    source.subscribe(listener)
    outcomes: list[OctaneError | None] = []
    deadline = time.monotonic() + 60
    while not listener.has_assignment:
        assert time.monotonic() < deadline
        try:
            source.poll(10, 0.05)
        except OctaneError as refused:
            outcomes.append(refused)
        else:
            outcomes.append(None)
    source.close()
    first = next(index for index, outcome in enumerate(outcomes) if outcome is not None)
    assert all(isinstance(outcome, NeedsOperator) for outcome in outcomes[first:-1])
    assert len(outcomes) > first + 2
