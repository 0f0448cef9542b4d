"""Contract of DeadLetters, for the fake and for Kafka's producer."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pytest
from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.interfaces import DeadLetters
from octane_analytics.kafka.dlq_producer import KafkaDeadLetters
from octane_analytics.sandbox.kafka import ApiKey, EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import Record, RejectedRecord, TopicPartition
from tests.fakes.clock import FakeClock
from tests.fakes.dead_letters import FakeDeadLetters
from tests.fakes.kafka import FakeBroker, FakeRecord

WHERE = TopicPartition("octane.events", 3)
DEADLINE_SECONDS = 20.0


class Bench(Protocol):
    """An empty dead-letter topic with one partition."""

    dead_letters: DeadLetters

    def values(self, count: int) -> list[tuple[bytes | None, bytes | None]]:
        """Return key and value of `count` dead-letter messages."""
        ...

    def fail_next(self) -> None: ...
    def close(self) -> None: ...


class FakeBench:
    def __init__(self) -> None:
        self._broker = FakeBroker(FakeClock())
        self.dead_letters: DeadLetters = FakeDeadLetters(self._broker)

    def values(self, count: int) -> list[tuple[bytes | None, bytes | None]]:
        assert len(self._broker.dead_letters) == count
        return [(r.record.key(), r.record.value()) for r in self._broker.dead_letters]

    def fail_next(self) -> None:
        self._broker.faults.push("dead_letters", Unavailable("down"))

    def close(self) -> None:
        self.dead_letters.close()


class KafkaBench:
    def __init__(self, kafka: EmbeddedKafka) -> None:
        self._kafka = kafka
        self.topic = f"dead-letters-{uuid.uuid4().hex[:8]}"
        kafka.create_topic(self.topic, 1)
        self.dead_letters: DeadLetters = KafkaDeadLetters(
            KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, dlq_topic_or_none=self.topic),
            client_id="tests",
        )

    def messages(self, count: int) -> list[tuple[bytes | None, bytes | None, dict[str, bytes]]]:
        consumer = Consumer(
            {
                "bootstrap.servers": self._kafka.bootstrap_servers,
                "group.id": "tests",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        consumer.assign([RawPartition(self.topic, 0, 0)])
        found: list[tuple[bytes | None, bytes | None, dict[str, bytes]]] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(found) < count:
            assert time.monotonic() < deadline, (
                f"{len(found)} of {count} dead-letter messages are stored"
            )
            for message in consumer.consume(count, 0.1):
                assert message.error() is None
                record: Record = message
                headers = {name: value or b"" for name, value in record.headers() or ()}
                found.append((record.key(), record.value(), headers))
        consumer.close()
        return found

    def values(self, count: int) -> list[tuple[bytes | None, bytes | None]]:
        return [(key, value) for key, value, _ in self.messages(count)]

    def fail_next(self) -> None:
        self._kafka.push_request_errors(
            ApiKey.PRODUCE, [int(KafkaError.TOPIC_AUTHORIZATION_FAILED)]
        )

    def close(self) -> None:
        self.dead_letters.close()


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as engine:
        yield engine


@pytest.fixture(params=["fake", "kafka"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    make: dict[str, Callable[[], Bench]] = {
        "fake": FakeBench,
        "kafka": lambda: KafkaBench(request.getfixturevalue("kafka")),
    }
    made = make[request.param]()
    yield made
    made.close()


@pytest.fixture
def kafka_bench(kafka: EmbeddedKafka) -> Iterator[KafkaBench]:
    made = KafkaBench(kafka)
    yield made
    made.close()


def rejected(
    offset: int,
    value: bytes | None,
    key: bytes | None = None,
    headers: Sequence[tuple[str, bytes | None]] = (),
    detail: str = "what is wrong",
) -> RejectedRecord:
    return RejectedRecord(FakeRecord(WHERE, offset, value, key, tuple(headers)), "not_json", detail)


def test_send_returns_after_messages_are_stored(bench: Bench) -> None:
    bench.dead_letters.send([rejected(0, b"a", b"k"), rejected(1, b"b")])
    bench.dead_letters.send([rejected(2, b"c")])
    assert bench.values(3) == [(b"k", b"a"), (None, b"b"), (None, b"c")]


def test_send_distinguishes_tombstone_from_empty_value(bench: Bench) -> None:
    bench.dead_letters.send([rejected(0, None, b""), rejected(1, b"")])
    assert bench.values(2) == [(b"", None), (None, b"")]


def test_send_raises_unless_all_are_acknowledged(
    bench: Bench,
) -> None:
    bench.fail_next()
    with pytest.raises(Unavailable):
        bench.dead_letters.send([rejected(0, b"a")])
    bench.dead_letters.send([rejected(0, b"a")])
    assert bench.values(1) == [(None, b"a")]


def test_dead_letters_can_be_used_after_close(bench: Bench) -> None:
    bench.dead_letters.close()
    bench.dead_letters.send([rejected(0, b"a")])
    bench.dead_letters.close()
    bench.dead_letters.close()
    assert bench.values(1) == [(None, b"a")]


def test_send_accepts_many_messages(bench: Bench) -> None:
    records = [rejected(number, b"%d" % number) for number in range(3000)]
    bench.dead_letters.send(records)
    assert [value for _, value in bench.values(3000)] == [b"%d" % n for n in range(3000)]


def test_kafka_message_has_own_and_added_headers(kafka_bench: KafkaBench) -> None:
    headers = [("trace", b"\x00\xff"), ("none", None)]
    kafka_bench.dead_letters.send([rejected(7, b"a", headers=headers, detail="é is odd")])
    ((_, _, found),) = kafka_bench.messages(1)
    assert found == {
        "trace": b"\x00\xff",
        "none": b"",
        "octane.error": "not_json: é is odd".encode(),
        "octane.topic": b"octane.events",
        "octane.partition": b"3",
        "octane.offset": b"7",
        "octane.timestamp": b"1770000000000",
    }


def test_missing_kafka_topic_is_named(kafka: EmbeddedKafka) -> None:
    dead_letters = KafkaDeadLetters(
        KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic="nowhere"),
        client_id="tests",
    )
    try:
        with pytest.raises(NeedsOperator, match=r"nowhere\.dlq"):
            dead_letters.send([rejected(0, b"a")])
    finally:
        dead_letters.close()


def test_kafka_message_of_largest_size_is_sent(kafka_bench: KafkaBench) -> None:
    # Refusing a large record would halt its partition for good.
    largest = b"x" * (1_048_588 - 100)
    kafka_bench.dead_letters.send([rejected(0, largest)])
    ((_, value, _),) = kafka_bench.messages(1)
    assert value == largest


def test_kafka_message_truncates_long_explanation(kafka_bench: KafkaBench) -> None:
    # A server's message may quote the refused row.
    kafka_bench.dead_letters.send([rejected(0, b"x" * 600_000, detail="y" * 600_000)])
    ((_, _, headers),) = kafka_bench.messages(1)
    assert len(headers["octane.error"]) <= 4096
