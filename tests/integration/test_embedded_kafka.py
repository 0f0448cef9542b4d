"""Embedded Kafka: behaviour that tests and demos depend on, within its documented limits."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from octane_analytics.sandbox.engine import EngineError
from octane_analytics.sandbox.kafka import ApiKey, EmbeddedKafka
from tests.support.ports import free_port

QUIET = logging.getLogger("tests.tools.kafka")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(topics={"events": 4}, brokers=2) as started:
        yield started


def producer_of(kafka: EmbeddedKafka) -> Producer:
    return Producer({"bootstrap.servers": kafka.bootstrap_servers}, logger=QUIET)


def consumer_of(kafka: EmbeddedKafka, group: str, **options: object) -> Consumer:
    settings = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 1000,
        "heartbeat.interval.ms": 100,
    }
    return Consumer(settings | options, logger=QUIET)


def poll_until(
    condition: Callable[[], object], *consumers: Consumer, deadline_seconds: float = 15.0
) -> list[Message]:
    messages = []
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        for consumer in consumers:
            message = consumer.poll(0.02)
            if message is not None:
                messages.append(message)
    return messages


def accepts(host: str, port: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
        return True
    return False


def error_of(call: Callable[[], object]) -> KafkaError:
    with pytest.raises(KafkaException) as caught:
        call()
    error = caught.value.args[0]
    assert isinstance(error, KafkaError)
    return error


def topic_id(kafka: EmbeddedKafka, topic: str) -> str:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers}, logger=QUIET)
    (future,) = admin.describe_topics(TopicCollection([topic]), request_timeout=5).values()
    return str(future.result().topic_id)


def test_messages_and_commit_metadata_round_trip(kafka: EmbeddedKafka) -> None:
    producer = producer_of(kafka)
    sent = {b"%d" % number for number in range(1000)}
    for value in sent:
        producer.produce("events", value)
    assert producer.flush(10) == 0
    consumer = consumer_of(kafka, "round-trip")
    consumer.subscribe(["events"])
    received: set[bytes | None] = set()
    deadline = time.monotonic() + 10
    while len(received) < len(sent) and time.monotonic() < deadline:
        received |= {message.value() for message in consumer.consume(1000, 0.1)}
    assert received == sent
    metadata = '{"end": 250, "token": "é"}' + "x" * 4000
    offset = TopicPartition("events", 1, 100, metadata)
    consumer.commit(offsets=[offset], asynchronous=False)
    (committed,) = consumer.committed([TopicPartition("events", 1)], timeout=5)
    assert (committed.offset, committed.metadata) == (100, metadata)
    consumer.close()


def test_recreated_topic_has_other_id(kafka: EmbeddedKafka) -> None:
    kafka.create_topic("again", 2)
    before = topic_id(kafka, "again")
    assert topic_id(kafka, "again") == before
    consumer = consumer_of(kafka, "again")
    consumer.commit(offsets=[TopicPartition("again", 0, 5)], asynchronous=False)
    kafka.delete_topic("again")
    kafka.create_topic("again", 2)
    assert topic_id(kafka, "again") != before
    (committed,) = consumer.committed([TopicPartition("again", 0)], timeout=5)
    assert committed.offset == OFFSET_INVALID
    consumer.close()


def test_commands_report_their_errors(kafka: EmbeddedKafka) -> None:
    with pytest.raises(EngineError, match="already exists"):
        kafka.create_topic("events", 1)
    with pytest.raises(EngineError, match="Unknown topic"):
        kafka.delete_topic("unheard-of")
    with pytest.raises(EngineError, match="not running"):
        EmbeddedKafka().create_topic("events", 1)


def test_partition_drops_oldest_after_five_mebibytes(kafka: EmbeddedKafka) -> None:
    kafka.create_topic("full", 1)
    producer = producer_of(kafka)
    for _ in range(80):
        producer.produce("full", os.urandom(100_000))
    assert producer.flush(10) == 0
    consumer = consumer_of(kafka, "full")
    low, high = consumer.get_watermark_offsets(TopicPartition("full", 0), timeout=5)
    assert high == 80
    assert 20 <= low <= 40
    kafka.delete_records("full", 0, 70)
    assert consumer.get_watermark_offsets(TopicPartition("full", 0), timeout=5) == (70, 80)
    consumer.close()


def test_two_cooperative_consumers_share_the_partitions(kafka: EmbeddedKafka) -> None:
    one, other = consumer_of(kafka, "pair"), consumer_of(kafka, "pair")
    one.subscribe(["events"])
    poll_until(lambda: len(one.assignment()) == 4, one)
    other.subscribe(["events"])
    poll_until(lambda: len(one.assignment()) == len(other.assignment()) == 2, one, other)
    other.close()
    poll_until(lambda: len(one.assignment()) == 4, one)
    one.close()


def test_member_that_missed_rebalance_cannot_commit(kafka: EmbeddedKafka) -> None:
    eager = {"partition.assignment.strategy": "range"}
    zombie, heir = (consumer_of(kafka, "zombie", **eager) for _ in range(2))
    zombie.subscribe(["events"])
    poll_until(lambda: len(zombie.assignment()) == 4, zombie)
    heir.subscribe(["events"])
    poll_until(heir.assignment, heir)
    offset = TopicPartition("events", 0, 1)
    error = error_of(lambda: zombie.commit(offsets=[offset], asynchronous=False))
    assert error.code() in {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID}
    heir.close()
    zombie.close()


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
    ],
)
def test_pushed_error_answers_one_commit(kafka: EmbeddedKafka, code: int) -> None:
    consumer = consumer_of(kafka, "pushed")
    kafka.push_request_errors(ApiKey.OFFSET_COMMIT, [code])
    offset = TopicPartition("events", 0, 1)
    error = error_of(lambda: consumer.commit(offsets=[offset], asynchronous=False))
    assert error.code() == code
    consumer.commit(offsets=[offset], asynchronous=False)
    kafka.push_request_errors(ApiKey.OFFSET_COMMIT, [code])
    kafka.clear_request_errors(ApiKey.OFFSET_COMMIT)
    consumer.commit(offsets=[offset], asynchronous=False)
    # No close(): after a fencing error it does not return (librdkafka 2.16.1).


def test_fenced_member_gets_fatal_error(kafka: EmbeddedKafka) -> None:
    consumer = consumer_of(kafka, "fenced", **{"group.instance.id": "slot-1"})
    consumer.subscribe(["events"])
    poll_until(lambda: len(consumer.assignment()) == 4, consumer)
    kafka.push_request_errors(ApiKey.HEARTBEAT, [KafkaError.FENCED_INSTANCE_ID])
    errors: list[KafkaError] = []
    deadline = time.monotonic() + 10
    while not errors and time.monotonic() < deadline:
        message = consumer.poll(0.05)
        if message is not None and (error := message.error()) is not None:
            errors.append(error)
    # The error returned by poll() has the code _FATAL, while its fatal() is False.
    assert errors[0].code() == KafkaError._FATAL
    assert "fenced" in errors[0].str()


def test_unknown_topic_is_created_for_producers_only(kafka: EmbeddedKafka) -> None:
    consumer = consumer_of(kafka, "unknown")
    unknown = consumer.list_topics("wanted", timeout=5).topics["wanted"]
    assert unknown.error is not None
    assert unknown.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    delivered: list[KafkaError | None] = []
    producer = producer_of(kafka)
    producer.produce("wanted", b"x", on_delivery=lambda error, message: delivered.append(error))
    assert producer.flush(10) == 0
    assert delivered == [None]
    assert len(consumer.list_topics("wanted", timeout=5).topics["wanted"].partitions) == 4
    consumer.close()


def test_end_of_partition_is_returned(kafka: EmbeddedKafka) -> None:
    kafka.create_topic("ends", 1)
    consumer = consumer_of(kafka, "ends", **{"enable.partition.eof": True})
    consumer.assign([TopicPartition("ends", 0, 0)])
    message = consumer.poll(5)
    assert message is not None
    error = message.error()
    assert error is not None
    assert error.code() == KafkaError._PARTITION_EOF
    consumer.close()


def test_broker_goes_down_and_comes_back(kafka: EmbeddedKafka) -> None:
    producer = producer_of(kafka)
    addresses = [each.rpartition(":") for each in kafka.bootstrap_servers.split(",")]
    kafka.set_broker_down()
    for host, _, port in addresses:
        assert not accepts(host, port)
    producer.produce("events", b"later")
    kafka.set_broker_up()
    assert producer.flush(10) == 0


def test_round_trip_delays_answers(kafka: EmbeddedKafka) -> None:
    producer = producer_of(kafka)
    producer.list_topics(timeout=5)
    kafka.set_round_trip_ms(300)
    began = time.monotonic()
    producer.list_topics(timeout=5)
    assert time.monotonic() - began >= 0.3
    kafka.set_round_trip_ms(0)


def test_clusters_run_in_parallel(kafka: EmbeddedKafka) -> None:
    with EmbeddedKafka(topics={"events": 1}) as other:
        assert topic_id(other, "events") != topic_id(kafka, "events")
        ids = {producer_of(each).list_topics(timeout=5).cluster_id for each in (kafka, other)}
        assert len(ids) == 2


def test_fixed_ports_are_kept_over_kill_and_outage() -> None:
    port = free_port()
    taken = pytest.raises(EngineError, match=f"port {port} .* in use")
    with socket.create_server(("127.0.0.1", port)), taken:
        EmbeddedKafka(port=port).start()
    with EmbeddedKafka(topics={"events": 1}, port=port) as kafka:
        assert kafka.bootstrap_servers == f"127.0.0.1:{port}"
        producer = producer_of(kafka)
        assert producer.list_topics(timeout=5).brokers[1].port == port
        kafka.kill()
        kafka.start()
        kafka.set_broker_down()
        kafka.set_broker_up()
        producer.produce("events", b"x")
        assert producer.flush(10) == 0


def test_paused_cluster_times_out_and_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with EmbeddedKafka() as kafka:
        monkeypatch.setattr("octane_analytics.sandbox.kafka._ANSWER_SECONDS", 0.2)
        kafka.pause()
        with pytest.raises(EngineError, match="in time"):
            kafka.create_topic("late", 1)
        kafka.resume()
        monkeypatch.setattr("octane_analytics.sandbox.kafka._ANSWER_SECONDS", 10.0)
        with pytest.raises(EngineError, match="already exists"):
            kafka.create_topic("late", 1)


def test_cluster_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with EmbeddedKafka(topics={"events": 1}):
        pass
    assert capfd.readouterr() == ("", "")


PARENT = """
import sys, time
from octane_analytics.sandbox.kafka import EmbeddedKafka

kafka = EmbeddedKafka()
kafka.start()
print(kafka.bootstrap_servers, flush=True)
time.sleep(30)
"""


def test_cluster_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        host, _, port = parent.stdout.readline().strip().rpartition(":")
        assert accepts(host, port)
        parent.kill()
        poll_until(lambda: not accepts(host, port), deadline_seconds=5)
