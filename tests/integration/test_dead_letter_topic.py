"""Dead-letter topic on Apache Kafka: creation, and messages that are too large for it."""

import random

import pytest
from confluent_kafka import Consumer, Message
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import NeedsOperator
from octane_analytics.kafka.dlq_producer import KafkaDeadLetters
from octane_analytics.kafka.record_headers import headers_of
from octane_analytics.kafka.topics import check_topic, ensure_topic
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import RejectedRecord, TopicPartition
from tests.fakes.kafka import FakeRecord
from tests.support.command import wait_until
from tests.tools.kafka.apache import ApacheKafka


def _rejected(offset: int, value: bytes) -> RejectedRecord:
    where = TopicPartition("octane.events", 3)
    return RejectedRecord(FakeRecord(where, offset, value, b"key"), "not_json", "it is not")


def test_missing_topic_is_created_once(kafka: ApacheKafka) -> None:
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
        return False  # brokers know a new topic a little later
    return True


def test_record_too_large_for_topic_loses_value(kafka: ApacheKafka) -> None:
    kafka.create_topic("narrow", 1, {"max.message.bytes": "2000"})
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, dlq_topic_or_none="narrow")
    dead_letters = KafkaDeadLetters(settings, client_id="tests")
    incompressible = random.Random(0).randbytes(10_000)
    dead_letters.send(
        [_rejected(1, b"small"), _rejected(2, incompressible), _rejected(3, b"small too")]
    )
    dead_letters.close()
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


PARTS = {"value": 5_000, "headers": 6_000, "key": 7_000}
INCOMPRESSIBLE = random.Random(0)


@pytest.mark.parametrize(
    ("large", "dropped"),
    [
        (["value"], ["value"]),
        (["headers"], ["headers"]),
        (["key"], ["key"]),
        (["value", "headers"], ["value", "headers"]),
        (["value", "key"], ["value", "key"]),
        (["headers", "key"], ["headers", "key"]),
        (["value", "headers", "key"], ["value", "headers", "key"]),
    ],
)
def test_record_too_large_for_topic_loses_large_parts(
    kafka: ApacheKafka, large: list[str], dropped: list[str]
) -> None:
    topic = f"narrow-{'-'.join(large)}"
    kafka.create_topic(topic, 1, {"max.message.bytes": "3000"})
    size = {name: PARTS[name] if name in large else 100 for name in PARTS}
    value, foreign, key = (INCOMPRESSIBLE.randbytes(size[name]) for name in PARTS)
    record = FakeRecord(
        TopicPartition("octane.events", 3), 7, value, key, (("a", foreign[10:]), ("b" * 9, None))
    )
    headers, left = _only_message(kafka, topic, RejectedRecord(record, "not_json", "is not"))
    for name, content, original in (("value", left.value(), value), ("key", left.key(), key)):
        assert content == (None if name in dropped else original)
    assert ("a" in headers) == ("headers" not in dropped)
    assert headers["octane.offset"] == b"7"
    sizes = {name: headers.get(f"octane.{name}_bytes") for name in PARTS}
    assert sizes == {name: str(size[name]).encode() if name in dropped else None for name in PARTS}


def test_record_with_too_large_small_parts_is_emptied(
    kafka: ApacheKafka,
) -> None:
    kafka.create_topic("narrowest", 1, {"max.message.bytes": "700"})
    value, foreign, key = (INCOMPRESSIBLE.randbytes(900) for _ in range(3))
    record = FakeRecord(TopicPartition("octane.events", 3), 7, value, key, (("a", foreign),))
    headers, left = _only_message(kafka, "narrowest", RejectedRecord(record, "not_json", "is not"))
    assert (left.value(), left.key()) == (None, None)
    assert {name: headers[f"octane.{name}_bytes"] for name in PARTS} == {
        "value": b"900",
        "headers": b"901",
        "key": b"900",
    }


def test_record_too_large_for_client_loses_value(kafka: ApacheKafka) -> None:
    kafka.create_topic("client-limit", 1)
    record = FakeRecord(TopicPartition("octane.events", 3), 7, b"x" * 50_000, b"key")
    item = RejectedRecord(record, "not_json", "is not")
    _, left = _only_message(kafka, "client-limit", item, {"message.max.bytes": "20000"})
    assert (left.value(), left.key()) == (None, b"key")


def test_record_too_large_for_segment_loses_value(kafka: ApacheKafka) -> None:
    limits = {"segment.bytes": "1048576", "max.message.bytes": "5000000"}
    kafka.create_topic("segment-limit", 1, limits)
    value = INCOMPRESSIBLE.randbytes(2_000_000)
    record = FakeRecord(TopicPartition("octane.events", 3), 7, value, b"key")
    _, left = _only_message(kafka, "segment-limit", RejectedRecord(record, "not_json", "is not"))
    assert (left.value(), left.key()) == (None, b"key")


def _only_message(
    kafka: ApacheKafka, topic: str, item: RejectedRecord, rdkafka: dict[str, str] | None = None
) -> tuple[dict[str | bytes, bytes | None], Message]:
    """Return the dead-letter message of the rejected record, sent between two others."""
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, dlq_topic_or_none=topic, rdkafka=rdkafka or {}
    )
    dead_letters = KafkaDeadLetters(settings, client_id="tests")
    dead_letters.send([_rejected(1, b"small"), item, _rejected(8, b"small too")])
    dead_letters.close()
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "reader"})
    consumer.assign([RawPartition(topic, 0, 0)])
    messages = consumer.consume(3, 30.0)
    consumer.close()
    assert [message.error() for message in messages] == [None] * 3
    found = {
        headers["octane.offset"]: message
        for message in messages
        if (headers := dict(headers_of(message)))
    }
    assert (found[b"1"].value(), found[b"8"].value()) == (b"small", b"small too")
    return dict(headers_of(found[b"7"])), found[b"7"]
