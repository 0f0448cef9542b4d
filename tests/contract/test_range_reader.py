"""Contract of RangeReader, for the fake, on the embedded broker and on Apache Kafka."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from octane_analytics.errors import Unavailable
from octane_analytics.interfaces import RangeReader
from octane_analytics.kafka.range_reader import KafkaRangeReader
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import PartitionRange
from tests.fakes.clock import FakeClock
from tests.fakes.group_member import FakeRangeReader
from tests.fakes.kafka import FakeBroker
from tests.tools.kafka.apache import ApacheKafka

PARTITIONS = 3
DEADLINE_SECONDS = 30.0


class Bench(Protocol):
    """One topic with three partitions and ten records in each."""

    def reader(self) -> RangeReader: ...
    def delete_before(self, partition: int, offset: int) -> None: ...


class FakeBench:
    def __init__(self) -> None:
        self._broker = FakeBroker(FakeClock(), PARTITIONS)
        for number in range(PARTITIONS):
            self._broker.append(number, *_values())

    def reader(self) -> RangeReader:
        return FakeRangeReader(self._broker)

    def delete_before(self, partition: int, offset: int) -> None:
        self._broker.delete_before(partition, offset)


class KafkaBench:
    def __init__(self, servers: str, topic: str) -> None:
        self.settings = KafkaSettings(bootstrap_servers=servers, topic=topic, group_id=topic)
        self._readers: list[KafkaRangeReader] = []
        producer = Producer({"bootstrap.servers": servers, "log_level": 0})
        for number in range(PARTITIONS):
            for value in _values():
                producer.produce(topic, value, partition=number)
        assert producer.flush(DEADLINE_SECONDS) == 0

    def reader(self, stall_seconds: float = 10.0) -> KafkaRangeReader:
        made = KafkaRangeReader(self.settings, client_id="tests", stall_seconds=stall_seconds)
        self._readers.append(made)
        return made

    def delete_before(self, partition: int, offset: int) -> None:
        servers = self.settings.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        where = TopicPartition(self.settings.topic, partition, offset)
        for future in admin.delete_records([where], request_timeout=DEADLINE_SECONDS).values():
            future.result(DEADLINE_SECONDS)

    def await_end(self, partition: int, offset: int) -> None:
        """Block until the partition's log ends there."""
        consumer = Consumer({"bootstrap.servers": self.settings.bootstrap_servers, "group.id": "-"})
        where = TopicPartition(self.settings.topic, partition)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while consumer.get_watermark_offsets(where, 10.0)[1] < offset:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        consumer.close()

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


class EmbeddedBench(KafkaBench):
    def __init__(self, kafka: EmbeddedKafka, topic: str) -> None:
        self.kafka = kafka
        kafka.create_topic(topic, PARTITIONS)
        super().__init__(kafka.bootstrap_servers, topic)

    def delete_before(self, partition: int, offset: int) -> None:
        self.kafka.delete_records(self.settings.topic, partition, offset)


def _values() -> list[bytes]:
    return [b"%d" % number for number in range(10)]


@pytest.fixture
def topic() -> str:
    return f"ranges-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=2) as broker:
        yield broker


@pytest.fixture
def embedded_bench(embedded: EmbeddedKafka, topic: str) -> Iterator[EmbeddedBench]:
    made = EmbeddedBench(embedded, topic)
    yield made
    made.close()


@pytest.fixture
def apache_bench(kafka: ApacheKafka, topic: str) -> Iterator[KafkaBench]:
    kafka.create_topic(topic, PARTITIONS)
    made = KafkaBench(kafka.bootstrap_servers, topic)
    yield made
    made.close()


@pytest.fixture(params=["fake", "embedded", "apache"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        return FakeBench()
    made: Bench = request.getfixturevalue(f"{request.param}_bench")
    return made


def read(reader: RangeReader, max_records: int = 1000) -> dict[int, list[int]]:
    """Return the offsets that are read, by partition."""
    found: dict[int, list[int]] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not reader.is_done:
        assert time.monotonic() < deadline, "the ranges did not end in time"
        records = reader.poll(max_records, 0.1)
        assert len(records) <= max_records
        for record in records:
            number, offset = record.partition(), record.offset()
            assert number is not None
            assert offset is not None
            assert record.value() == b"%d" % offset
            found.setdefault(number, []).append(offset)
    return found


@pytest.mark.parametrize("max_records", [1, 4, 1000])
def test_records_of_ranges_are_read_in_order(bench: Bench, max_records: int) -> None:
    reader = bench.reader()
    assert reader.begin([PartitionRange(0, 2, 5), PartitionRange(2, 0, 10)]) == []
    assert read(reader, max_records) == {0: [2, 3, 4], 2: list(range(10))}


def test_reading_begins_again_after_its_end(bench: Bench) -> None:
    reader = bench.reader()
    for first in (0, 7):
        assert reader.begin([PartitionRange(1, first, 9)]) == []
        assert read(reader) == {1: list(range(first, 9))}


def test_new_reading_abandons_earlier_one(bench: Bench) -> None:
    reader = bench.reader()
    reader.begin([PartitionRange(0, 0, 10), PartitionRange(1, 0, 10)])
    reader.poll(1, 0.1)
    reader.begin([PartitionRange(1, 4, 6)])
    assert read(reader) == {1: [4, 5]}


def test_reading_without_ranges_is_done(bench: Bench) -> None:
    reader = bench.reader()
    assert reader.begin([]) == []
    assert reader.is_done


def test_removed_parts_are_returned_and_not_read(bench: Bench) -> None:
    bench.delete_before(0, 4)
    bench.delete_before(1, 8)
    reader = bench.reader()
    gone = reader.begin([PartitionRange(0, 2, 6), PartitionRange(1, 3, 7), PartitionRange(2, 1, 2)])
    assert sorted(gone) == [PartitionRange(0, 2, 4), PartitionRange(1, 3, 7)]
    assert read(reader) == {0: [4, 5], 2: [1]}


def test_deleted_partition_is_returned_whole(bench: Bench) -> None:
    reader = bench.reader()
    absent = PartitionRange(PARTITIONS, 3, 9)
    assert reader.begin([absent, PartitionRange(0, 8, 10)]) == [absent]
    assert read(reader) == {0: [8, 9]}


def test_offsets_after_log_end_are_returned(embedded_bench: EmbeddedBench) -> None:
    reader = embedded_bench.reader()
    wanted = [PartitionRange(0, 8, 14), PartitionRange(1, 12, 14)]
    assert reader.begin(wanted) == [PartitionRange(0, 10, 14), wanted[1]]
    assert read(reader) == {0: [8, 9]}


@pytest.mark.parametrize("kind", ["embedded", "apache"])
def test_records_removed_during_reading_are_not_skipped(
    request: pytest.FixtureRequest, kind: str
) -> None:
    bench: KafkaBench = request.getfixturevalue(f"{kind}_bench")
    reader = bench.reader()
    whole = PartitionRange(0, 2, 10)
    assert reader.begin([whole]) == []
    bench.delete_before(0, 6)
    found = {0: list(range(2, 10))}  # if the client had fetched the records before
    with contextlib.suppress(Unavailable):
        found = read(reader)
    assert found == {0: list(range(2, 10))}
    assert reader.begin([whole]) == [PartitionRange(0, 2, 6)]
    assert read(reader) == {0: [6, 7, 8, 9]}


def test_refused_offset_is_named(embedded_bench: EmbeddedBench) -> None:
    embedded_bench.delete_before(0, 10)
    embedded_bench.delete_before(0, 3)  # the mock cluster's log begins there again, without records
    reader = embedded_bench.reader()
    assert reader.begin([PartitionRange(0, 2, 10)]) == [PartitionRange(0, 2, 3)]
    with pytest.raises(Unavailable, match=r"refuses offset 3 of .* as out of range"):
        read(reader)


def test_partition_without_leader_is_awaited(embedded_bench: EmbeddedBench) -> None:
    reader = embedded_bench.reader(stall_seconds=1.0)
    topic, wanted = embedded_bench.settings.topic, [PartitionRange(0, 0, 10)]
    embedded_bench.kafka.set_partition_leader(topic, 0, -1)

    def attempt() -> None:
        reader.begin(wanted)
        read(reader)

    with pytest.raises(Unavailable):
        attempt()
    embedded_bench.kafka.set_partition_leader(topic, 0, 1)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while _raises(lambda: reader.begin(wanted)):
        assert time.monotonic() < deadline
    assert read(reader) == {0: list(range(10))}


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except Unavailable:
        return True
    return False


@pytest.mark.parametrize("is_committed", [False, True])
def test_range_ends_with_transaction_marker(apache_bench: KafkaBench, is_committed: bool) -> None:
    topic, servers = apache_bench.settings.topic, apache_bench.settings.bootstrap_servers
    producer = Producer({"bootstrap.servers": servers, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(DEADLINE_SECONDS)
    producer.begin_transaction()
    producer.produce(topic, b"10", partition=0)
    assert producer.flush(DEADLINE_SECONDS) == 0
    end = producer.commit_transaction if is_committed else producer.abort_transaction
    end(DEADLINE_SECONDS)
    apache_bench.await_end(0, 12)  # the coordinator answers before it has written the marker
    reader = apache_bench.reader()
    assert reader.begin([PartitionRange(0, 8, 12)]) == []  # 11 is the marker
    assert read(reader) == {0: [8, 9, 10] if is_committed else [8, 9]}
