"""Behaviour of the Kafka cluster of the tests that other tests depend on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.command import wait_until
from tests.tools.kafka import background, command
from tests.tools.kafka.cluster import KafkaCluster
from tests.tools.kafka.fixtures import require_apache


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    require_apache()
    with KafkaCluster() as started:
        started.create_topic("events", partitions=3)
        yield started


def produce(cluster: KafkaCluster, topic: str, count: int) -> None:
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap_servers, "acks": "all", "log_level": 0}
    )
    for number in range(count):
        producer.produce(topic, b"%d" % number, partition=number % 3)
    assert producer.flush(30) == 0


def ids(cluster: KafkaCluster, topic: str, group: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []

    def has_all() -> bool:
        for message in consumer.consume(count, timeout=0.2):
            if message.error() is None:
                values.append(bytes(message.value() or b""))
        return len(values) >= count

    try:
        wait_until(has_all)
        consumer.commit(asynchronous=False)
        return values
    finally:
        consumer.close()


def test_records_survive_each_broker_killed(cluster: KafkaCluster) -> None:
    cluster.create_topic("killed", partitions=3)
    for broker in cluster.brokers:
        broker.kill()
        produce(cluster, "killed", 30)
        broker.start()
    read = ids(cluster, "killed", "after-kills", 90)
    assert sorted(read, key=int) == [b"%d" % (number // 3) for number in range(90)]


def test_records_pass_without_controller(cluster: KafkaCluster) -> None:
    cluster.create_topic("uncontrolled", partitions=3)
    produce(cluster, "uncontrolled", 3)
    ids(cluster, "uncontrolled", "first", 3)  # the first group creates the topic of offsets
    cluster.controller.pause()
    try:
        produce(cluster, "uncontrolled", 30)
        assert len(ids(cluster, "uncontrolled", "without-controller", 33)) == 33
    finally:
        cluster.controller.resume()


def test_leader_moves_when_killed(cluster: KafkaCluster) -> None:
    cluster.create_topic("moving", partitions=3)
    first = cluster.leader("moving", 0)
    first.kill()
    wait_until(lambda: cluster.leader("moving", 0) is not first)
    first.start()


def test_coordinator_moves_when_killed(cluster: KafkaCluster) -> None:
    cluster.create_topic("coordinated", partitions=3)
    produce(cluster, "coordinated", 3)
    assert len(ids(cluster, "coordinated", "moves", 3)) == 3
    first = cluster.coordinator("moves")
    first.kill()
    wait_until(lambda: cluster.coordinator("moves") is not first)
    first.start()


def test_background_cluster_keeps_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_apache()
    monkeypatch.setattr(background, "RECORDS", tmp_path / "records")
    start = ["start", "--brokers", "2", "--dir", str(tmp_path / "data")]
    stop = ["stop", "--dir", str(tmp_path / "data")]
    assert command.main(start) == 0
    address = capsys.readouterr().out.strip()
    try:
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        admin.create_topics([NewTopic("kept", 1)])["kept"].result(20)
        assert command.main(start) == 0
        assert capsys.readouterr().out.strip() == address
        assert command.main(stop) == 0
        assert command.main(start) == 0
        admin = AdminClient({"bootstrap.servers": capsys.readouterr().out.strip(), "log_level": 0})
        (partition,) = admin.list_topics(timeout=20).topics["kept"].partitions.values()
        assert sorted(partition.replicas) == [1, 2]
    finally:
        assert command.main(stop) == 0
    assert background.running() == []


def test_port_of_cluster_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    require_apache()
    assert command.main(["start", "--brokers", "3", "--port", "9092"]) == 1
    assert "--port is for one broker" in capsys.readouterr().err
