"""What librdkafka hands over in one call, taken apart: nothing in it may get lost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import AssignmentLost, Unavailable
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import EndOfPartition, OffsetGone, Polled, TopicPartition

_TOPIC = KafkaSettings().topic


@dataclass(frozen=True)
class Message:
    """As much of confluent_kafka's Message as is looked at."""

    code: int | None = None
    at: int | None = None

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code)

    def topic(self) -> str | None:
        return None if self.at is None else _TOPIC

    def partition(self) -> int | None:
        return None if self.at is None else 0

    def offset(self) -> int | None:
        return self.at


class Consumer:
    """Answers `consume` with the given messages, once."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)

    def consume(self, count: int, timeout_seconds: float) -> list[Message]:
        messages, self._messages = self._messages, []
        return messages


def poll(*messages: Message) -> Polled:
    source = KafkaSource(KafkaSettings(), None)
    source._consumer = Consumer(messages)  # type: ignore[assignment]
    return source.poll(100, 0.0)


COMPLAINT = Message(KafkaError._ALL_BROKERS_DOWN)
RECORD = Message(at=7)


@pytest.mark.parametrize(
    "messages",
    [(COMPLAINT, RECORD), (RECORD, COMPLAINT), (COMPLAINT, COMPLAINT, RECORD)],
)
def test_records_beside_a_complaint_are_handed_out(messages: Sequence[Message]) -> None:
    assert [record.offset() for record in poll(*messages).records] == [RECORD.at]


def test_end_and_missing_offset_beside_a_complaint_are_told() -> None:
    partition = TopicPartition(_TOPIC, 0)
    polled = poll(
        COMPLAINT, Message(KafkaError._PARTITION_EOF, 9), Message(KafkaError.OFFSET_OUT_OF_RANGE, 3)
    )
    assert polled.ends == [EndOfPartition(partition, 9)]
    assert polled.gone == [OffsetGone(partition, 3)]


def test_complaint_alone_is_raised() -> None:
    with pytest.raises(Unavailable, match="reading"):
        poll(COMPLAINT)


class Rebalanced(Consumer):
    """In whose `consume` a partition is taken away while records of another are handed out."""

    def subscribe(self, topics: Sequence[str], **callbacks: Callable[..., None]) -> None:
        self._callbacks = callbacks
        self.unassigned: list[RawPartition] = []

    def consume(self, count: int, timeout_seconds: float) -> list[Message]:
        messages = super().consume(count, timeout_seconds)
        if messages:
            self._callbacks["on_revoke"](self, [RawPartition(_TOPIC, 1)])
        return messages

    def assignment(self) -> list[RawPartition]:
        return [RawPartition(_TOPIC, 0), RawPartition(_TOPIC, 1)]

    def incremental_unassign(self, partitions: Sequence[RawPartition]) -> None:
        self.unassigned += partitions


class Refusing:
    """A listener that cannot let go in good order."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        raise AssignmentLost("fenced")

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        pass


def test_records_beside_a_listener_that_raises_are_handed_out() -> None:
    # confluent_kafka throws away what it has in hand when a callback raises, and goes on behind it.
    source, consumer = KafkaSource(KafkaSettings(), None), Rebalanced([RECORD])
    source._consumer = consumer  # type: ignore[assignment]
    source.subscribe(Refusing())
    assert [record.offset() for record in source.poll(100, 0.0).records] == [RECORD.at]
    assert [raw.partition for raw in consumer.unassigned] == [1]
    with pytest.raises(AssignmentLost, match="fenced"):
        source.poll(100, 0.0)
    assert source.poll(100, 0.0).records == [], "it is told once"
