"""Classification of librdkafka.s messages: none of one call may be lost."""

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
    """Methods of confluent_kafka.s Message that the source uses."""

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
    """Consumer whose first `consume` returns the given messages."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)
        self.calls: list[tuple[int, float]] = []

    def consume(self, count: int, timeout_seconds: float) -> list[Message]:
        self.calls.append((count, timeout_seconds))
        messages, self._messages = self._messages, []
        return messages


def poll(*messages: Message) -> Polled:
    source = KafkaSource(KafkaSettings(), None)
    source._client._consumer = Consumer(messages)  # type: ignore[assignment]
    return source.poll(100, 0.0)


ERROR = Message(KafkaError._ALL_BROKERS_DOWN)
RECORD = Message(at=7)


@pytest.mark.parametrize(
    ("gather_seconds", "calls"),
    [(0.0, [(1, 1.0), (99, 0.1)]), (0.5, [(1, 1.0), (99, 0.5)]), (1.0, [(100, 1.0)])],
)
def test_poll_gathers_records_after_the_first(
    gather_seconds: float, calls: list[tuple[int, float]]
) -> None:
    source = KafkaSource(KafkaSettings(), None)
    consumer = Consumer([RECORD])
    source._client._consumer = consumer  # type: ignore[assignment]
    source._identities.warm_up = lambda: None  # type: ignore[method-assign]
    source.poll(100, 1.0, gather_seconds)
    assert consumer.calls == calls


@pytest.mark.parametrize(
    "messages",
    [(ERROR, RECORD), (RECORD, ERROR), (ERROR, ERROR, RECORD)],
)
def test_records_beside_error_are_returned(messages: Sequence[Message]) -> None:
    assert [record.offset() for record in poll(*messages).records] == [RECORD.at]


def test_end_and_gone_offset_beside_error_are_returned() -> None:
    partition = TopicPartition(_TOPIC, 0)
    polled = poll(
        ERROR, Message(KafkaError._PARTITION_EOF, 9), Message(KafkaError.OFFSET_OUT_OF_RANGE, 3)
    )
    assert polled.ends == [EndOfPartition(partition, 9)]
    assert polled.gone == [OffsetGone(partition, 3)]


def test_error_without_records_is_raised() -> None:
    with pytest.raises(Unavailable, match="reading"):
        poll(ERROR)


class RebalancingConsumer(Consumer):
    """Consumer whose `consume` revokes a partition while it returns records of another."""

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


class RaisingListener:
    """Listener whose `revoked` raises."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        raise AssignmentLost("fenced")

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        pass


def test_records_beside_raising_listener_are_returned() -> None:
    # confluent_kafka discards its records when a callback raises, and continues after them.
    source, consumer = KafkaSource(KafkaSettings(), None), RebalancingConsumer([RECORD])
    source._client._consumer = consumer  # type: ignore[assignment]
    source.subscribe(RaisingListener())
    assert [record.offset() for record in source.poll(100, 0.0).records] == [RECORD.at]
    assert [raw.partition for raw in consumer.unassigned] == [1]
    with pytest.raises(AssignmentLost, match="fenced"):
        source.poll(100, 0.0)
    assert source.poll(100, 0.0).records == [], "raised once"
