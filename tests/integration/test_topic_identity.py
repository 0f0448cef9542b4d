"""The topic's identity from a real broker."""

import pytest

from octane_analytics.errors import Unavailable
from octane_analytics.kafka import topic_identity
from octane_analytics.kafka.client import Broker
from octane_analytics.kafka.topic_identity import TopicIdentityClient
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from tests.support.command import wait_until

_CONTROLLER = 1


def test_identity_is_found_once_controller_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was created without the controller does not wait for its next metadata."""
    monkeypatch.setattr(topic_identity, "REQUEST_SECONDS", 1.0)
    with EmbeddedKafka(topics={"events": 1}, brokers=2) as kafka:
        settings = KafkaSettings(
            bootstrap_servers=kafka.bootstrap_servers, rdkafka={"log_level": "0"}
        )
        client = TopicIdentityClient(Broker(settings, "tests"), "")
        kafka.set_broker_down(_CONTROLLER)
        with pytest.raises(Unavailable):
            client.fetch("events")
        kafka.set_broker_up(_CONTROLLER)

        def is_found() -> bool:
            try:
                return bool(client.fetch("events").topic_id)
            except Unavailable:
                return False

        wait_until(is_found)
        client.close()
