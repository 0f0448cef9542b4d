"""Reading committed offsets while the group's coordinator moves."""

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError

from octane_analytics.errors import NeedsOperator
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.lag import LagProbe
from octane_analytics.kafka.standalone_client import StandaloneClient
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.kafka.topics import TopicInspector
from octane_analytics.sandbox.kafka import ApiKey, EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.settings.loading import load
from octane_analytics.types import TopicPartition

TOPIC = "watched"

ClientFactory = Callable[[KafkaSettings], tuple[StandaloneClient, Callable[[], object]]]


def group(settings: KafkaSettings) -> tuple[StandaloneClient, Callable[[], object]]:
    client = ConsumerGroupAdmin(settings, client_id="tests")
    return client, lambda: client.committed([TopicPartition(TOPIC, 0)])


def view(settings: KafkaSettings) -> tuple[StandaloneClient, Callable[[], object]]:
    client = TopicInspector(settings, client_id="tests")
    return client, lambda: client.lag(TOPIC)


def probe(settings: KafkaSettings) -> tuple[StandaloneClient, Callable[[], object]]:
    client = LagProbe(settings, client_id="tests")
    return client, client.measure


def log(settings: KafkaSettings) -> tuple[StandaloneClient, Callable[[], object]]:
    client = TopicReader(settings, client_id="tests")
    return client, lambda: client.committed([0])


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(topics={TOPIC: 1}) as broker:
        yield broker


@pytest.fixture
def settings(kafka: EmbeddedKafka) -> KafkaSettings:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KAFKA_TOPIC": TOPIC}
    return load(environ).settings.kafka


@pytest.mark.parametrize("create", [group, view, probe, log])
def test_committed_waits_for_moving_coordinator(
    kafka: EmbeddedKafka, settings: KafkaSettings, create: ClientFactory
) -> None:
    client, request = create(settings)
    with client:
        before = request()
        kafka.push_request_errors(ApiKey.OFFSET_FETCH, [KafkaError.NOT_COORDINATOR] * 4)
        assert request() == before


@pytest.mark.parametrize("create", [group, view, probe, log])
def test_missing_right_raises_at_once(
    kafka: EmbeddedKafka, settings: KafkaSettings, create: ClientFactory
) -> None:
    client, request = create(settings)
    with client:
        kafka.push_request_errors(ApiKey.OFFSET_FETCH, [KafkaError.GROUP_AUTHORIZATION_FAILED])
        with pytest.raises(NeedsOperator, match="grant the user READ on the group"):
            request()
        request()  # the error was raised once
