import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from octane_analytics.kafka.client import REQUEST_SECONDS
from octane_analytics.kafka.topics import TopicInspector
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.loading import load
from tests.support.command import COMMAND, environment, run, running, wait_until

TOPIC = "octane.events"
PARTITIONS = 4


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(topics={TOPIC: PARTITIONS}) as started:
        yield started


def _messages(kafka: EmbeddedKafka, count: int) -> list[tuple[int, bytes | None, bytes]]:
    """Return partition, key and value of all messages of the topic; there must be `count` of them."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    found: list[tuple[int, bytes | None, bytes]] = []
    ended = 0
    consumer.subscribe([TOPIC])
    deadline = time.monotonic() + 30.0
    try:
        while ended < PARTITIONS:
            assert time.monotonic() < deadline
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error() is not None:
                ended += 1
                continue
            partition, value = message.partition(), message.value()
            assert partition is not None
            assert value is not None
            found.append((partition, message.key(), value))
    finally:
        consumer.close()
    assert len(found) == count
    return found


def _produce(
    kafka: EmbeddedKafka, *arguments: str, given: str | bytes = b""
) -> subprocess.CompletedProcess[str]:
    return run("produce", *arguments, given=given, settings=_settings(kafka))


def _settings(kafka: EmbeddedKafka) -> dict[str, str]:
    return {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}


def test_lines_of_a_file_arrive_unchanged(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    event = json.dumps(
        {"app_id": "a", "event_name": "e", "user_id": "u1", "timestamp": "2026-02-02T12:00:00Z"}
    ).encode()
    path = tmp_path / "events"
    path.write_bytes(event + b"\r\n\n   \n{broken\n\xff\xfe\n" + event)
    done = _produce(kafka, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("4 delivered, 0 failed in ")
    messages = _messages(kafka, 4)
    assert sorted(value for _, _, value in messages) == sorted(
        [event, event, b"{broken", b"\xff\xfe"]
    )
    assert {key for _, key, value in messages if value == event} == {b"u1"}
    assert {key for _, key, value in messages if value != event} == {None}
    assert len({partition for partition, _, value in messages if value == event}) == 1


def test_standard_input_needs_no_name(kafka: EmbeddedKafka) -> None:
    assert _produce(kafka, given="a\nb").stdout.startswith("2 delivered")
    assert _produce(kafka, "-", given="c\n").stdout.startswith("1 delivered")
    _messages(kafka, 3)


def test_generated_events_are_the_same_for_a_seed(kafka: EmbeddedKafka) -> None:
    arguments = ("--generate", "500", "--seed", "3", "--until", "2026-02-02T12:00:00Z")
    for _ in range(2):
        assert _produce(kafka, *arguments).stdout.startswith("500 delivered, 0 failed")
    values = [value for _, _, value in _messages(kafka, 1000)]
    assert len(set(values)) == 500
    assert all(json.loads(value)["timestamp"] < "2026-02-02T12:00:00" for value in values)


def test_rate_limits_the_events_per_second(kafka: EmbeddedKafka) -> None:
    started = time.monotonic()
    assert _produce(kafka, "--generate", "150", "--rate", "100").returncode == 0
    assert time.monotonic() - started >= 1.45


def test_line_too_large_does_not_fail_others(kafka: EmbeddedKafka) -> None:
    settings = _settings(kafka) | {"KAFKA_RDKAFKA_MESSAGE_MAX_BYTES": "1000000"}
    lines = b"a\n" + b"x" * 3_000_000 + b"\nb\n" + b"y" * 20_000_000
    done = run("produce", given=lines, settings=settings)
    assert done.returncode == 1
    assert done.stdout.startswith("2 delivered, 2 failed")
    assert "1 failed, first line 2: " in done.stderr
    assert "Message size too large" in done.stderr
    assert "1 failed, first line 4: longer than this command sends" in done.stderr
    _messages(kafka, 2)


def _await_records(kafka: EmbeddedKafka, count: int) -> None:
    with TopicInspector(load(_settings(kafka)).settings.kafka, client_id="tests") as view:
        wait_until(lambda: view.lag(TOPIC) >= count)


def test_max_lag_waits_for_the_group(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    arguments = ("produce", "--generate", "300", "--max-lag", "100")
    with running(tmp_path / "output", *arguments, settings=_settings(kafka)) as command:
        _await_records(kafka, 100)
        time.sleep(0.5)
        assert command.child.poll() is None
        command.interrupt()
        assert command.wait(40.0) == 130
        assert command.output.startswith("100 delivered, 0 failed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_flushes_and_prints_the_counts(
    kafka: EmbeddedKafka, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = ("produce", "--generate", "100000", "--rate", "200")
    with running(tmp_path / "output", *arguments, settings=_settings(kafka)) as command:
        _await_records(kafka, 1)
        command.child.send_signal(number)
        assert command.wait(40.0) == code
        output = command.output
    assert ", 0 failed in " in output
    assert "not acknowledged" not in output
    _messages(kafka, int(output.partition(" ")[0].replace(",", "")))


def test_signal_ends_a_wait_for_input(kafka: EmbeddedKafka) -> None:
    child = subprocess.Popen(
        [COMMAND, "produce", "-"],
        env=environment(_settings(kafka)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"a\nb\nunfinished")
        child.stdin.flush()
        _await_records(kafka, 2)  # now the command waits for the end of the line
        child.send_signal(signal.SIGINT)
        assert child.wait(15.0) == 130
        assert child.stdout.read().startswith(b"2 delivered, 0 failed")
    finally:
        child.kill()
        child.communicate()


def test_unreachable_broker_is_one_line_within_seconds() -> None:
    assert REQUEST_SECONDS <= 6.0, "the time of a request"
    done = run("produce", "--generate", "5", settings={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert done.returncode == 69
    assert done.stderr.startswith(
        "octane-analytics: error: cannot reach a Kafka broker at 127.0.0.1:1"
    )
    assert done.stderr.count("\n") == 1


def test_records_lost_with_the_broker_are_counted(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    arguments = ("produce", "--generate", "100000", "--rate", "100")
    with running(tmp_path / "output", *arguments, settings=_settings(kafka)) as command:
        _await_records(kafka, 1)
        kafka.stop()
        time.sleep(1.0)
        command.interrupt()
        assert command.wait(40.0) == 130
        assert "not acknowledged" in command.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--generate", "5", "a-file"],
        ["/nonexistent"],
        ["--generate", "0"],
        ["--generate", "5", "--until", "yesterday"],
        ["--generate", "5", "--rate", "0"],
        ["/"],
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str]) -> None:
    done = run("produce", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("octane-analytics: error: ")
    assert done.stderr.count("\n") == 1


def test_progress_is_a_bar_on_a_terminal(kafka: EmbeddedKafka) -> None:
    leader, follower = os.openpty()
    child = subprocess.Popen(
        [COMMAND, "produce", "--generate", "300", "--rate", "200"],
        env=environment(_settings(kafka) | {"TERM": "xterm"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    shown = b""

    def has_ended() -> bool:
        nonlocal shown
        try:
            data = os.read(leader, 65536)
        except OSError:  # Linux reports EIO when the other end is closed
            return True
        shown += data
        return not data

    try:
        wait_until(has_ended)
        output = child.communicate(timeout=10.0)[0]
    finally:
        child.kill()
        child.wait()
        os.close(leader)
    assert "━".encode() in shown
    assert b"300 delivered" in shown
    assert output.startswith(b"300 delivered")
