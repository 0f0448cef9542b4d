"""Stall recovery against Apache Kafka: partitions that librdkafka silently stops reading are reassigned,
idle ones are not, and a record ends a long poll at once."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import Commit, EndOfPartition, TopicPartition
from tests.tools.kafka.apache import ApacheKafka

DEADLINE_SECONDS = 30.0
CHECK_SECONDS = 1.3
"""Time in which the source has checked for stalls at least once."""


class Member:
    """Source that reads a topic of two partitions, with the offsets that it has returned."""

    def __init__(self, kafka: ApacheKafka) -> None:
        self.topic = f"events-{uuid.uuid4().hex[:8]}"
        kafka.create_topic(self.topic, 2)
        self._bootstrap_servers = kafka.bootstrap_servers
        self.recreate_producer()
        self.stalls: list[tuple[TopicPartition, int]] = []
        self.offsets: dict[int, list[int | None]] = {0: [], 1: []}
        self.ends: list[EndOfPartition] = []
        self.owned: set[TopicPartition] = set()
        self.source = KafkaSource(
            KafkaSettings(
                bootstrap_servers=kafka.bootstrap_servers,
                topic=self.topic,
                group_id=self.topic,
                rdkafka={"fetch.wait.max.ms": "50"},
            ),
            slot=None,
            on_stall=lambda partition, position: self.stalls.append((partition, position)),
            quiet_seconds=0.3,
            grace_seconds=0.5,
            revival_seconds=0.5,
        )
        self.source.subscribe(self)

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.source.log_identity(self.topic)  # as the pipeline does
        self.owned.update(partitions)
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.owned.difference_update(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.owned.difference_update(partitions)

    def partition(self, number: int) -> TopicPartition:
        return TopicPartition(self.topic, number)

    def recreate_producer(self) -> None:
        """Create a new producer: the old one caches the state of a recreated topic too."""
        self._producer = Producer({"bootstrap.servers": self._bootstrap_servers, "log_level": 0})

    def produce(self, number: int, records: int) -> None:
        for _ in range(records):
            self._producer.produce(self.topic, b"x", partition=number)
        assert self._producer.flush(DEADLINE_SECONDS) == 0

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            with contextlib.suppress(Unavailable):  # the broker may have just restarted
                polled = self.source.poll(1000, 0.05)
                assert not (polled.records and polled.ends)
                self.ends += polled.ends
                for record in polled.records:
                    self.offsets[record.partition() or 0].append(record.offset())

    def poll_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    @property
    def client(self) -> Consumer:
        return self.source._client.get()


@pytest.fixture
def member(kafka: ApacheKafka) -> Iterator[Member]:
    made = Member(kafka)
    made.produce(0, 3)
    made.until(lambda: len(made.owned) == 2 and len(made.offsets[0]) == 3)
    made.poll_for(CHECK_SECONDS)  # so that the source knows the positions
    yield made
    made.source.close()


# States that librdkafka may reach by itself in a race, caused without the source's knowledge.
_STOPS = {
    "paused for good": lambda client, raw: client.pause(raw),
    "no longer assigned": lambda client, raw: client.incremental_unassign(raw),
}


@pytest.mark.parametrize("stop", _STOPS.values(), ids=_STOPS)
def test_stalled_partition_is_reassigned_at_its_position(
    member: Member, stop: Callable[[Consumer, list[RawPartition]], None]
) -> None:
    stop(member.client, [RawPartition(member.topic, 0)])
    member.produce(0, 2)
    member.until(lambda: len(member.offsets[0]) == 5)
    assert member.offsets[0] == [0, 1, 2, 3, 4]
    assert member.stalls == [(member.partition(0), 3)], "not the idle partition"


def test_client_is_recreated_when_reassignment_has_no_effect(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after a leader change and a recreated topic.
    monkeypatch.setattr(
        member.source._assignment, "reassign", lambda consumer, raw, is_paused: None
    )
    old_client = member.client
    old_client.incremental_unassign([RawPartition(member.topic, 0)])
    member.produce(0, 2)
    member.until(lambda: len(member.offsets[0]) == 8)
    assert member.offsets[0] == [0, 1, 2, 0, 1, 2, 3, 4]
    assert member.client is not old_client
    assert member.stalls == [(member.partition(0), 3)]


def test_recreated_topic_is_read_after_leader_change(
    kafka: ApacheKafka,
) -> None:
    # One new log ends before the position, the other one after it. librdkafka reports neither.
    members = {2: Member(kafka), 7: Member(kafka)}

    def until_each(condition: Callable[[Member, int], bool]) -> None:
        for records, member in members.items():
            member.until(lambda member=member, records=records: condition(member, records))  # type: ignore[misc]

    for member in members.values():
        member.produce(0, 3)
    until_each(lambda member, _: len(member.offsets[0]) == 3)
    kafka.kill()
    kafka.start()
    for member in members.values():
        member.produce(0, 1)
    until_each(lambda member, _: len(member.offsets[0]) == 4 and member.source.lag() == 4)
    clients = [member.client for member in members.values()]
    for records, member in members.items():
        kafka.delete_topic(member.topic)
        kafka.create_topic(member.topic, 2)
        member.recreate_producer()
        member.produce(0, records)
    until_each(lambda member, records: len(member.offsets[0]) == 4 + records)
    for (records, member), client in zip(members.items(), clients, strict=True):
        assert member.offsets[0] == [0, 1, 2, 3, *range(records)]
        assert member.client is not client
        assert member.stalls == []
        member.source.close()


def test_partition_stalled_before_first_record_is_reassigned(
    member: Member,
) -> None:
    member.source.seek(member.partition(0), 1)
    member.client.incremental_unassign([RawPartition(member.topic, 0)])
    member.offsets[0].clear()
    member.until(lambda: len(member.offsets[0]) == 2)
    assert member.offsets[0] == [1, 2]
    assert member.stalls == [(member.partition(0), 1)]


def test_pause_and_idleness_are_not_stalls(member: Member) -> None:
    member.source.pause()
    member.produce(0, 2)
    member.poll_for(CHECK_SECONDS)
    member.source.resume()
    member.until(lambda: len(member.offsets[0]) == 5)
    member.poll_for(2 * CHECK_SECONDS)
    assert member.stalls == []


def test_end_after_marker_of_returned_record_is_reported(kafka: ApacheKafka) -> None:
    # The client passes a marker in the same fetch by itself: the broker's end is its position.
    made = Member(kafka)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": made.topic}
    )
    producer.init_transactions(DEADLINE_SECONDS)
    producer.begin_transaction()
    producer.produce(made.topic, b"x", partition=0)
    producer.commit_transaction(DEADLINE_SECONDS)
    made.until(lambda: EndOfPartition(made.partition(0), 2) in made.ends)
    assert made.offsets[0] == [0]
    assert made.stalls == []
    made.source.close()


def test_end_moved_by_transaction_is_not_stall(kafka: ApacheKafka, member: Member) -> None:
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": member.topic}
    )
    producer.init_transactions(DEADLINE_SECONDS)
    producer.begin_transaction()
    producer.produce(member.topic, b"x", partition=0)
    assert producer.flush(DEADLINE_SECONDS) == 0
    member.poll_for(2 * CHECK_SECONDS)  # open: the log has a record, and none is visible
    producer.abort_transaction(DEADLINE_SECONDS)
    # Now the log ends with a marker instead of a record.
    end = EndOfPartition(member.partition(0), 5)
    member.until(lambda: end in member.ends)
    member.poll_for(2 * CHECK_SECONDS)
    assert member.ends.count(end) == 1
    member.produce(0, 1)
    member.until(lambda: member.offsets[0] == [0, 1, 2, 5])
    assert member.stalls == []


def test_record_ends_a_long_poll(member: Member) -> None:
    began = time.monotonic()
    threading.Timer(0.2, member.produce, (0, 2)).start()
    while not (records := member.source.poll(1000, DEADLINE_SECONDS).records):
        assert time.monotonic() - began < DEADLINE_SECONDS
    assert time.monotonic() - began < DEADLINE_SECONDS / 2
    assert records[0].offset() == 3


def test_lag_counts_uncommitted_records(member: Member) -> None:
    member.until(lambda: member.source.lag() == 3)
    member.produce(0, 20)
    member.until(lambda: len(member.offsets[0]) == 23)
    assert member.source.lag() == 23
    member.source.commit([Commit(member.partition(0), 20, "")])
    assert member.source.lag() == 3
    member.source.seek(member.partition(0), 10)
    assert member.source.lag() == 3
    member.source.commit([Commit(member.partition(0), 23, "")])
    assert member.source.lag() == 0
