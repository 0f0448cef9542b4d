"""The dead-letter topic on Apache Kafka: made where it is missing, and what does not fit into it."""

import random

import pytest
from confluent_kafka import Consumer

from octane_analytics.errors import NeedsOperator
from octane_analytics.kafka.inspection import check_topic, ensure_topic
from octane_analytics.kafka.producers import KafkaDeadLetters
from octane_analytics.settings.sections import KafkaSettings
from octane_analytics.types import Rejected, TopicPartition
from tests.acceptance.command import wait_until
from tests.fakes import FakeRecord
from tests.kafka.apache import ApacheKafka


def _rejected(offset: int, value: bytes) -> Rejected:
    where = TopicPartition("octane.events", 3)
    return Rejected(FakeRecord(where, offset, value, b"key"), "not_json", "it is not")


def test_missing_topic_is_made_once(kafka: ApacheKafka) -> None:
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    with pytest.raises(NeedsOperator, match="made-to-order"):
        check_topic(settings, "made-to-order")
    for _ in range(2):
        ensure_topic(settings, "made-to-order")
    wait_until(lambda: _exists(settings, "made-to-order"))


def _exists(settings: KafkaSettings, topic: str) -> bool:
    try:
        check_topic(settings, topic)
    except NeedsOperator:
        return False  # brokers hear of a new topic a little later
    return True


def test_record_too_large_for_the_topic_goes_without_its_value(kafka: ApacheKafka) -> None:
    kafka.create_topic("narrow", 1, {"max.message.bytes": "2000"})
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, dlq_topic_or_none="narrow")
    letters = KafkaDeadLetters(settings, client_id="tests")
    incompressible = random.Random(0).randbytes(10_000)
    letters.send([_rejected(1, b"small"), _rejected(2, incompressible), _rejected(3, b"small too")])
    letters.close()
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["narrow"])
    found = {}
    for message in consumer.consume(3, 30.0):
        assert message.error() is None
        headers = message.headers()
        assert isinstance(headers, list)
        found[dict(headers)["octane.offset"]] = (message.value(), dict(headers))
    consumer.close()
    assert found[b"1"][0] == b"small"
    assert found[b"3"][0] == b"small too"
    value, headers_of_large = found[b"2"]
    assert value is None
    assert headers_of_large["octane.value_bytes"] == str(len(incompressible)).encode()
