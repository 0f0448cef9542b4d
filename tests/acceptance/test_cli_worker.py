"""Installed command `worker` with real engines: counts, signals, and errors at the start."""

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import DecodeError
from octane_analytics.events.decode import REASONS, decode
from octane_analytics.events.decoders import AUTO, choose
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import BROKEN_KINDS, break_event, generate
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import Running, run, running, wait_until
from tests.support.compiled import require_compiled
from tests.support.ports import free_port

TOPIC = "octane.events"
PARTITIONS = 8
SECOND_START_SECONDS = 60.0


@dataclass
class Service:
    """Engines, the environment with their addresses, and queries of the table."""

    kafka: EmbeddedKafka
    engine: EmbeddedClickHouse
    clickhouse: ClickHouse
    environ: dict[str, str]

    def counts(self) -> tuple[int, int]:
        """Return the numbers of rows and of distinct event ids."""
        return tuple(
            self.clickhouse.select(
                "SELECT count(), uniqExact(JSONExtractString(properties, 'event_id')) "
                f"FROM {self.clickhouse.table}"
            ).rows[0]
        )

    def metric(self, name: str) -> float:
        """Return the metric, summed over its labels; 0.0 while /metrics is not served."""
        url = f"http://127.0.0.1:{self.environ['METRICS_PORT']}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0  # not up yet
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(float(value) for value in values)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    topics = {TOPIC: PARTITIONS, f"{TOPIC}.dlq": 1}
    with (
        EmbeddedClickHouse(tmp_path / "clickhouse") as engine,
        # Long enough for processes started together to join in one rebalance.
        EmbeddedKafka(topics=topics, initial_rebalance_delay_ms=500) as kafka,
    ):
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouse(settings, client_name="tests") as clickhouse:
            clickhouse.execute(schema.create_table(clickhouse.table))
            environ = {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                # The embedded broker ignores static membership; a rebalance takes a session timeout.
                "KAFKA_INSTANCE_PREFIX": "none",
                "KAFKA_RDKAFKA_SESSION_TIMEOUT_MS": "2000",
                "KAFKA_RDKAFKA_HEARTBEAT_INTERVAL_MS": "200",
                "CLICKHOUSE_HOST": engine.host,
                "CLICKHOUSE_PORT": str(engine.tcp_port),
                "FLUSH_INTERVAL": "0.3",
                "METRICS_PORT": str(free_port()),
                "LOG_FORMAT": "json",
                "LOG_LEVEL": "debug",
            }
            yield Service(kafka, engine, clickhouse, environ)


def _log(worker: Running) -> list[dict[str, object]]:
    lines = worker.output.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def _dead_letters(kafka: EmbeddedKafka, expected: int) -> list[tuple[bytes, dict[str, bytes]]]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([f"{TOPIC}.dlq"])
    found: list[tuple[bytes, dict[str, bytes]]] = []

    def is_read() -> bool:
        for message in consumer.consume(10_000, 0.5):
            headers = message.headers()
            assert message.error() is None
            assert isinstance(headers, list)
            found.append((message.value() or b"", {k: _bytes(v) for k, v in headers}))
        return len(found) >= expected

    wait_until(is_read)
    assert not consumer.consume(1, 0.5)
    consumer.close()
    return found


def _bytes(value: str | bytes | None) -> bytes:
    assert isinstance(value, bytes)
    return value


def test_worker_inserts_valid_events_dead_letters_invalid(service: Service, tmp_path: Path) -> None:
    events = 100_000
    lines = list(generate(events, seed=7, until=datetime.now(UTC)))
    broken = {}
    for index in range(50, events, 100):
        kind = BROKEN_KINDS[(index // 100) % len(BROKEN_KINDS)]
        lines[index] = break_event(lines[index], kind)
        broken[lines[index]] = kind
    lines = [line for line in lines if line]
    assert len(set(broken.values())) >= 10
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(lines) + b"\n")
    invalid = _invalid(lines)
    assert set(invalid.values()) <= set(REASONS)
    valid = len(lines) - len(invalid)

    with running(
        tmp_path / "worker.log", "worker", "--procs", "2", settings=service.environ
    ) as worker:
        # A worker that joins later would take over partitions and read their records again.
        wait_until(lambda: _are_assigned(worker, 2))
        sent = run("produce", "--max-lag", "50000", str(file), settings=service.environ)
        assert sent.returncode == 0, sent.stderr
        assert f"{len(lines):,} delivered, 0 failed" in sent.stdout
        wait_until(lambda: service.counts()[0] >= valid)
        found = _dead_letters(service.kafka, len(invalid))
        wait_until(lambda: service.metric("analytics_dead_letters_total") >= len(invalid))
        assert service.counts() == (valid, valid)
        assert service.metric("analytics_events_inserted_total") == valid
        assert service.metric("analytics_events_rejected_total") == len(invalid)
        assert service.metric("analytics_events_consumed_total") == len(lines)
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output

    (started,) = (line for line in _log(worker) if line["message"] == "starting")
    assert started["decoder"] == choose(AUTO).name
    assert Counter(value for value, _ in found) == Counter(list(invalid))
    for value, headers in found:
        reason = headers["octane.error"].decode().partition(":")[0]
        assert reason == invalid[value]
        assert headers["octane.topic"] == TOPIC.encode()
        assert headers["octane.partition"].isdigit()
        assert headers["octane.offset"].isdigit()
    assert service.counts() == (valid, valid)


@pytest.mark.parametrize("decoder", ["auto", "python"])
def test_worker_sorts_rows_unless_decoder_is_python(
    service: Service, tmp_path: Path, decoder: str
) -> None:
    require_compiled("_decoding")
    require_compiled("_ordering")
    # In the middle of a month: a block of one row in another partition would be sorted by chance.
    until = datetime.now(UTC).replace(day=15, hour=12) - timedelta(days=31)
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(generate(5_000, seed=9, until=until)))
    with running(tmp_path / "produce.log", "produce", str(file), settings=service.environ) as sent:
        assert sent.wait() == 0, sent.output
    batches = {"BATCH_SIZE": "3000", "FLUSH_INTERVAL": "300", "DECODER": decoder}
    settings = service.environ | batches
    with running(tmp_path / "worker.log", "worker", "--procs", "1", settings=settings) as worker:
        wait_until(lambda: service.counts()[0] >= 3_000)
        found = service.clickhouse.select(
            "SELECT sum(value) FROM system.events "
            "WHERE event = 'MergeTreeDataWriterBlocksAlreadySorted'"
        ).rows
        worker.interrupt()
        assert worker.wait() == 0, worker.output
    assert found == [(1 if decoder == "auto" else 0,)]
    rows, distinct = service.counts()
    assert rows == distinct


def _invalid(lines: list[bytes]) -> dict[bytes, str]:
    """Return the invalid lines with their reasons."""
    invalid = {}
    for line in lines:
        try:
            decode(line)
        except DecodeError as error:
            invalid[line] = error.reason
    return invalid


def test_worker_shares_partitions_and_resumes_after_sigterm(
    service: Service, tmp_path: Path
) -> None:
    events = 30_000
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(generate(events, seed=8, until=datetime.now(UTC))))
    arguments = ("worker", "--procs", "4")
    # After a session timeout less a second, the mock cluster continues without members that a busy
    # machine has kept from rejoining. Unlike Kafka it does not fence them, so that two members would own
    # a partition.
    settings = service.environ | {"KAFKA_RDKAFKA_SESSION_TIMEOUT_MS": "4000"}
    with running(tmp_path / "first.log", *arguments, settings=settings) as worker:
        wait_until(lambda: _are_assigned(worker, 4))
        with running(
            tmp_path / "produce.log",
            *("produce", "--rate", "5000", str(file)),
            settings=service.environ,
        ) as producing:
            wait_until(lambda: _inserted(worker) == {f"worker-{slot}" for slot in range(4)})
            worker.child.send_signal(signal.SIGTERM)
            assert worker.wait() == 0, worker.output
            between_runs = service.counts()
            assert producing.wait() == 0, producing.output
    assert between_runs[0] == between_runs[1] < events
    with running(tmp_path / "second.log", *arguments, settings=settings) as worker:
        wait_until(lambda: service.counts()[0] >= events, SECOND_START_SECONDS)
        worker.interrupt()
        assert worker.wait() == 0, worker.output
    assert service.counts() == (events, events)


def _inserted(worker: Running) -> set[object]:
    return {e["process"] for e in _log(worker) if e["message"] == "batch inserted"}


def _are_assigned(worker: Running, processes: int) -> bool:
    """Return whether each partition has one owner and each process owns some."""
    owned: dict[object, set[int]] = {}
    for line in _log(worker):
        if line["message"] == "assignment changed":
            partitions = line["partitions"]
            assert isinstance(partitions, list)
            own = owned.setdefault(line["process"], set())
            (own.update if line["kind"] == "assigned" else own.difference_update)(partitions)
    shares = [own for own in owned.values() if own]
    return (
        len(shares) == processes
        and sum(map(len, shares)) == PARTITIONS
        and set[int]().union(*shares) == set(range(PARTITIONS))
    )


def test_worker_replaces_a_process_that_was_killed(service: Service, tmp_path: Path) -> None:
    with running(
        tmp_path / "worker.log", "worker", "--procs", "2", settings=service.environ
    ) as worker:
        wait_until(lambda: len(_pids(worker)) == 2)
        victim = _pids(worker)["worker-1"]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: _pids(worker)["worker-1"] != victim)
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output


def test_worker_replaces_a_process_that_hangs(service: Service, tmp_path: Path) -> None:
    short_timeouts = {"HEARTBEAT_TIMEOUT": "5", "CLICKHOUSE_TIMEOUT": "4"}
    with running(
        tmp_path / "worker.log", "worker", "--procs", "2", settings=service.environ | short_timeouts
    ) as worker:
        wait_until(lambda: len(_pids(worker)) == 2)
        victim = _pids(worker)["worker-0"]
        os.kill(victim, signal.SIGSTOP)
        worker.wait_for("worker hangs: killing it")
        wait_until(lambda: _pids(worker)["worker-0"] != victim)
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output


def _pids(worker: Running) -> dict[object, int]:
    return {
        event["slot"]: int(str(event["pid"]))
        for event in _log(worker)
        if event["message"] == "process started" and str(event["slot"]).startswith("worker-")
    }


def test_killing_the_supervisor_leaves_no_process(service: Service, tmp_path: Path) -> None:
    with running(
        tmp_path / "worker.log", "worker", "--procs", "2", settings=service.environ
    ) as worker:
        wait_until(lambda: len(_pids(worker)) == 2)
        pids = _pids(worker).values()
        os.kill(worker.child.pid, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5.0)


def test_second_signal_ends_the_worker_at_once(service: Service, tmp_path: Path) -> None:
    with running(
        tmp_path / "worker.log", "worker", "--procs", "1", settings=service.environ
    ) as worker:
        worker.wait_for("assignment changed")
        service.engine.pause()
        sent = run("produce", "--generate", "100", settings=service.environ)
        assert sent.returncode == 0, sent.stderr
        wait_until(lambda: service.metric("analytics_events_consumed_total") >= 100)
        worker.child.send_signal(signal.SIGTERM)
        worker.wait_for("stopping: workers finish")
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 128 + signal.SIGTERM
        service.engine.resume()


def test_worker_resumes_when_clickhouse_is_back(service: Service, tmp_path: Path) -> None:
    with running(
        tmp_path / "worker.log", "worker", "--procs", "1", settings=service.environ
    ) as worker:
        worker.wait_for("assignment changed")
        service.engine.kill()
        sent = run("produce", "--generate", "5000", settings=service.environ)
        assert sent.returncode == 0, sent.stderr
        worker.wait_for("waiting for a dependency")
        wait_until(lambda: service.metric("analytics_outage") == 1)
        service.engine.start()
        wait_until(lambda: service.counts()[0] >= 5000)
        worker.wait_for("dependency serves again")
        assert worker.output.count("waiting for a dependency") == 1
        assert service.metric("analytics_outage") == 0
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output
    assert service.counts() == (5000, 5000)


def test_worker_stops_before_dead_lettering_a_whole_topic(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b'{"no": "event"}\n' * 20_000)
    sent = run("produce", str(file), settings=service.environ)
    assert sent.returncode == 0, sent.stderr
    with running(
        tmp_path / "worker.log", "worker", "--procs", "1", settings=service.environ
    ) as worker:
        assert worker.wait() == 78, worker.output
        assert "DLQ_MAX_CONSECUTIVE" in worker.output
    generous = {"DLQ_MAX_RATIO": "1", "DLQ_MAX_CONSECUTIVE": "0"}
    with running(
        tmp_path / "again.log", "worker", "--procs", "1", settings=service.environ | generous
    ) as worker:
        _dead_letters(service.kafka, 20_000)
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output


def test_worker_dead_letters_only_rows_clickhouse_rejects(service: Service, tmp_path: Path) -> None:
    service.clickhouse.execute(
        f"ALTER TABLE {service.clickhouse.table} ADD CONSTRAINT sane CHECK user_id != 'nobody'"
    )
    lines = list(generate(5_000, seed=9, until=datetime.now(UTC)))
    for index in range(100, 5_000, 250):
        lines[index] = re.sub(rb'"user_id":"[^"]*"', b'"user_id":"nobody"', lines[index])
    bad = [line for line in lines if b'"nobody"' in line]
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(lines))
    sent = run("produce", str(file), settings=service.environ)
    assert sent.returncode == 0, sent.stderr
    with running(
        tmp_path / "worker.log", "worker", "--procs", "1", settings=service.environ
    ) as worker:
        found = _dead_letters(service.kafka, len(bad))
        wait_until(lambda: service.counts()[0] >= len(lines) - len(bad))
        worker.child.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.output
    assert Counter(value for value, _ in found) == Counter(bad)
    assert all(h["octane.error"].startswith(b"refused_by_clickhouse") for _, h in found)
    assert service.counts() == (len(lines) - len(bad),) * 2


@pytest.mark.parametrize(
    ("changed", "code", "expected"),
    [
        ({"CLICKHOUSE_PORT": "8123"}, 78, "CLICKHOUSE_PORT is 8123"),
        ({"CLICKHOUSE_PORT": "1"}, 69, "Connection refused"),
        ({"CLICKHOUSE_PASSWORD": "wrong"}, 78, "CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"),
        ({"CLICKHOUSE_CA_FILE": "/missing.pem"}, 78, "CLICKHOUSE_CA_FILE: cannot use /missing.pem"),
        ({"CLICKHOUSE_CA_FILE": __file__}, 78, "no PEM certificate"),
        ({"CLICKHOUSE_TABLE": "missing"}, 78, "octane-analytics schema apply"),
        ({"CLICKHOUSE_DATABASE": "missing"}, 78, "octane-analytics schema apply"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 69, "KAFKA_BOOTSTRAP_SERVERS"),
        ({"KAFKA_TOPIC": "missing"}, 78, "topic missing"),
        ({"KAFKA_RDKAFKA_NO_SUCH": "1"}, 78, "no.such"),
        ({"BATCH_SIZE": "many"}, 78, "BATCH_SIZE"),
        ({"CLICKHOUSE_TIMEOUT": "90"}, 78, "must be shorter than DRAIN_TIMEOUT (90 s)"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, 78, "OTEL_TRACES_EXPORTER=zipkin is not supported"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_worker_start_failure_is_one_line(
    service: Service, changed: dict[str, str], code: int, expected: str
) -> None:
    settings = service.environ | {"LOG_LEVEL": "info"} | changed
    ended = run("worker", "--procs", "1", settings=settings)
    assert ended.returncode == code, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("octane-analytics: error: ")
    assert expected in ended.stderr


def test_worker_names_the_port_in_use(service: Service) -> None:
    with socket.create_server(("127.0.0.1", int(service.environ["METRICS_PORT"]))):
        ended = run("worker", settings=service.environ)
    assert ended.returncode == 78
    assert ended.stderr.startswith("octane-analytics: error: METRICS_PORT: ")


def test_worker_refuses_table_without_window_with_advice(service: Service) -> None:
    table = service.clickhouse.table
    service.clickhouse.execute(schema.alter_window(table, schema.WINDOW_SETTING, 0))
    ended = run("worker", settings=service.environ)
    assert ended.returncode == 78
    assert f"ALTER TABLE {table} MODIFY SETTING {schema.WINDOW_SETTING}" in ended.stderr
