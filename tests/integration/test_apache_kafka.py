"""Behaviour of the Apache Kafka test broker that other tests depend on."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.tools.kafka.apache import ApacheKafka, KafkaError

ROOT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], object], deadline_seconds: float) -> None:
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def produce(kafka: ApacheKafka, topic: str, partition: int, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(20) == 0


def consumer_of(kafka: ApacheKafka, group: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )


def read(consumer: Consumer, count: int, deadline_seconds: float = 30) -> list[bytes]:
    values: list[bytes] = []
    deadline = time.monotonic() + deadline_seconds
    while len(values) < count:
        assert time.monotonic() < deadline, f"{len(values)} of {count} messages arrived in time"
        for message in consumer.consume(count, timeout=0.1):
            if message.error() is None:
                value = message.value()
                assert isinstance(value, bytes)
                values.append(value)
    return values


def test_records_and_commit_metadata_survive_kill(kafka: ApacheKafka) -> None:
    kafka.create_topic("survivors", partitions=2)
    written = [b"%d" % number for number in range(100)]
    produce(kafka, "survivors", 1, written)
    where = TopicPartition("survivors", 1)
    consumer = consumer_of(kafka, "readers")
    consumer.subscribe(["survivors"])
    assert read(consumer, 100) == written
    intent = TopicPartition("survivors", 1, 40, metadata="end=100")
    consumer.commit(offsets=[intent], asynchronous=False)
    consumer.close()

    address = kafka.bootstrap_servers
    kafka.kill()
    assert not kafka.is_running
    kafka.restart()

    assert kafka.bootstrap_servers == address
    successor = consumer_of(kafka, "readers")
    deadline = time.monotonic() + 20
    while True:
        try:
            (committed,) = successor.committed([where], timeout=20)
            break
        except KafkaException:  # the broker has just become the group's coordinator again
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert (committed.offset, committed.metadata) == (40, "end=100")
    assert successor.get_watermark_offsets(where, timeout=20) == (0, 100)
    successor.subscribe(["survivors"])
    assert read(successor, 60) == written[40:]
    successor.close()
    assert kafka.lag("readers") == {("survivors", 1): 60}


def test_recreated_topic_has_other_id_and_no_records(kafka: ApacheKafka) -> None:
    kafka.create_topic("phoenix")
    produce(kafka, "phoenix", 0, [b"before"])
    first = _topic_id(kafka, "phoenix")
    kafka.delete_topic("phoenix")
    assert "phoenix" not in kafka.topics("--list").split()
    kafka.create_topic("phoenix")
    assert _topic_id(kafka, "phoenix") != first
    consumer = consumer_of(kafka, "watchers")
    assert consumer.get_watermark_offsets(TopicPartition("phoenix", 0), timeout=20) == (0, 0)
    consumer.close()


def _topic_id(kafka: ApacheKafka, topic: str) -> str:
    return kafka.topics("--describe", "--topic", topic).partition("TopicId:")[2].split()[0]


def test_unknown_topic_raises_and_is_not_created(kafka: ApacheKafka) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    assert producer.list_topics("mistyped", timeout=20).topics["mistyped"].error is not None
    with pytest.raises(KafkaError, match="deleting topic mistyped"):
        kafka.delete_topic("mistyped")


def test_paused_broker_answers_after_resume(kafka: ApacheKafka) -> None:
    kafka.create_topic("frozen")
    client = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    kafka.pause()
    try:
        assert kafka.is_running
        with pytest.raises(KafkaException):
            client.list_topics("frozen", timeout=0.5)
    finally:
        kafka.resume()
    produce(kafka, "frozen", 0, [b"thawed"])


def test_broker_ends_with_killed_process(kafka: ApacheKafka) -> None:
    script = (
        "import sys, time\n"
        "from tests.tools.kafka.apache import ApacheKafka\n"
        "broker = ApacheKafka()\n"
        "broker.start()\n"
        "print(broker.pid, broker.directory, flush=True)\n"
        "time.sleep(100)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split(maxsplit=1)
        owner.kill()
    try:
        wait_until(lambda: not _is_alive(int(pid)), deadline_seconds=10)
    finally:
        subprocess.run(["rm", "-rf", directory.strip()], check=True)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_stopped_broker_keeps_given_directory(tmp_path: Path, kafka: ApacheKafka) -> None:
    with ApacheKafka(tmp_path, partitions=3) as other:
        other.create_topic("kept")
        produce(other, "kept", 0, [b"record"])
        other.stop()
        assert not other.is_running
    with ApacheKafka(tmp_path) as again:
        consumer = consumer_of(again, "anyone")
        assert consumer.get_watermark_offsets(TopicPartition("kept", 0), timeout=20) == (0, 1)
        consumer.close()
    assert (tmp_path / "broker.log").exists()
