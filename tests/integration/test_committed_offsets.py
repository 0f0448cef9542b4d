"""What looks at a group's committed offsets, while the group's coordinator is moving."""

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

Look = Callable[[KafkaSettings], tuple[StandaloneClient, Callable[[], object]]]


def group(settings: KafkaSettings) -> tuple[StandaloneClient, Callable[[], object]]:
    looker = ConsumerGroupAdmin(settings, client_id="tests")
    return looker, lambda: looker.committed([TopicPartition(TOPIC, 0)])


def view(settings: KafkaSettings) -> tuple[StandaloneClient, Callable[[], object]]:
    looker = TopicInspector(settings, client_id="tests")
    return looker, lambda: looker.lag(TOPIC)


def probe(settings: KafkaSettings) -> tuple[StandaloneClient, Callable[[], object]]:
    looker = LagProbe(settings, client_id="tests")
    return looker, looker.measure


def log(settings: KafkaSettings) -> tuple[StandaloneClient, Callable[[], object]]:
    looker = TopicReader(settings, client_id="tests")
    return looker, lambda: looker.committed([0])


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(topics={TOPIC: 1}) as broker:
        yield broker


@pytest.fixture
def settings(kafka: EmbeddedKafka) -> KafkaSettings:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KAFKA_TOPIC": TOPIC}
    return load(environ).settings.kafka


@pytest.mark.parametrize("look", [group, view, probe, log])
def test_committed_waits_for_moving_coordinator(
    kafka: EmbeddedKafka, settings: KafkaSettings, look: Look
) -> None:
    looker, ask = look(settings)
    with looker:
        before = ask()
        kafka.push_request_errors(ApiKey.OFFSET_FETCH, [KafkaError.NOT_COORDINATOR] * 4)
        assert ask() == before


@pytest.mark.parametrize("look", [group, view, probe, log])
def test_missing_right_raises_at_once(
    kafka: EmbeddedKafka, settings: KafkaSettings, look: Look
) -> None:
    looker, ask = look(settings)
    with looker:
        kafka.push_request_errors(ApiKey.OFFSET_FETCH, [KafkaError.GROUP_AUTHORIZATION_FAILED])
        with pytest.raises(NeedsOperator, match="grant the user READ on the group"):
            ask()
        ask()  # one answer was enough
