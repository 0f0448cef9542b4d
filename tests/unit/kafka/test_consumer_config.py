"""Properties of the worker's consumer that depend on others."""

from collections.abc import Mapping

import pytest
from confluent_kafka import Consumer

from octane_analytics.kafka.client import Broker
from octane_analytics.kafka.consumer_config import member_properties
from octane_analytics.settings.connections import KafkaSettings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 9_000),
        ({"session.timeout.ms": "90000"}, 18_000),
        ({"session.timeout.ms": "6000"}, 4_000),
        ({"fetch.wait.max.ms": "40000"}, 41_000),
        ({"socket.timeout.ms": "1500"}, "1500"),
        ({"session.timeout.ms": "many"}, 9_000),
    ],
)
def test_commits_time_out_before_the_session(given: Mapping[str, str], expected: object) -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", rdkafka=dict(given))
    broker = Broker(settings, "tests")
    properties = member_properties(broker, settings, None, 5.0, None)
    assert properties["socket.timeout.ms"] == expected
    if "many" not in given.values():
        broker.connect(Consumer, **properties).close()  # librdkafka accepts the combination


@pytest.mark.parametrize(
    ("flush_seconds", "given", "expected"),
    [
        (0.1, {}, 20),
        (1.0, {}, 100),
        (2.5, {}, 250),
        (5.0, {}, 500),
        (60.0, {}, 500),
        (5.0, {"fetch.wait.max.ms": "100"}, "100"),
    ],
)
def test_fetches_wait_for_a_tenth_of_the_interval(
    flush_seconds: float, given: Mapping[str, str], expected: object
) -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", rdkafka=dict(given))
    broker = Broker(settings, "tests")
    properties = member_properties(broker, settings, None, flush_seconds, None)
    assert properties["fetch.wait.max.ms"] == expected
