"""Trace of an event (producer, flush, insert, ClickHouse) and of a request, by trace id."""

import contextlib
import http.client
import json
import signal
import socket
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import run, running, wait_until
from tests.support.otlp import Received, Receiver, receiver
from tests.support.ports import free_port

TOPIC = "octane.events"
EVENTS = 60
GIVEN_TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"), system_logs=True) as engine:
        yield engine


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as received:
        yield received


def _environ(engine: EmbeddedClickHouse, collector: Receiver) -> dict[str, str]:
    return {
        "CLICKHOUSE_HOST": engine.host,
        "CLICKHOUSE_PORT": str(engine.tcp_port),
        "METRICS_PORT": "0",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",  # long, so that only the drain sends spans
    }


def _in_span_log(clickhouse: ClickHouse, trace_id: str) -> list[str]:
    clickhouse.execute("SYSTEM FLUSH LOGS")
    rows = clickhouse.select(
        "SELECT operation_name FROM system.opentelemetry_span_log WHERE trace_id = {trace:UUID}",
        {"trace": str(uuid.UUID(trace_id))},
    ).rows
    return [name for (name,) in rows]


def test_event_trace_leads_from_producer_to_clickhouse(
    engine: EmbeddedClickHouse, collector: Receiver, tmp_path: Path
) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
    with (
        EmbeddedKafka(topics={TOPIC: 2, f"{TOPIC}.dlq": 1}) as kafka,
        ClickHouse(settings, client_name="tests") as clickhouse,
    ):
        clickhouse.execute(schema.create_table(clickhouse.table))
        environ = _environ(engine, collector) | {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_INSTANCE_PREFIX": "none",
            "FLUSH_INTERVAL": "0.3",
        }
        log = tmp_path / "worker.log"
        with running(log, "worker", "--procs", "1", settings=environ) as worker:
            worker.wait_for("assignment changed")
            event = {"app_id": "a", "event_name": "e", "user_id": "u"}
            event["timestamp"] = datetime.now(UTC).isoformat()
            given = b"\n".join([json.dumps(event).encode()] * EVENTS + [b"no event", b""])
            sent = run("produce", "-", given=given, settings=environ)
            assert sent.returncode == 0, sent.stderr
            wait_until(lambda: _count(clickhouse) == EVENTS)
            worker.wait_for("record is not a valid event")
            worker.child.send_signal(signal.SIGTERM)
            assert worker.wait() == 0, worker.output
        sends = [s for s in collector.spans if s.process == "produce"]
        produced = {s.trace_id for s in sends}
        assert len(produced) == EVENTS + 1
        flushes = collector.named(f"flush {TOPIC}")
        assert sorted(_linked(collector)) == sorted(produced)
        assert all(f.trace_id in f.links for f in flushes)
        flush = next(f for f in flushes if f.attributes.get("messaging.batch.message_count"))
        assert flush.attributes["messaging.system"] == "kafka"
        assert flush.attributes["messaging.consumer.group.name"] == "analytics-worker"
        (insert,) = [s for s in collector.named("insert") if s.trace_id == flush.trace_id]
        assert insert.parent_id == flush.span_id
        (intent,) = [s for s in collector.named("intent") if s.trace_id == flush.trace_id]
        assert intent.parent_id == flush.span_id
        (dead_letter,) = _dlq(collector)
        assert dead_letter.trace_id in {s.trace_id for s in sends}
        assert "query" in _in_span_log(clickhouse, flush.trace_id)
        lines = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
        logged = [line for line in lines if line["message"] == "batch inserted"]
        assert flush.trace_id in {line["trace_id"] for line in logged}
        assert {"ranges", "process"} <= logged[0].keys()


def _count(clickhouse: ClickHouse) -> int:
    ((count,),) = clickhouse.select(f"SELECT count() FROM {clickhouse.table}").rows
    return int(count)


def _linked(collector: Receiver) -> list[str]:
    return [trace for flush in collector.named(f"flush {TOPIC}") for trace in flush.links]


def _dlq(collector: Receiver) -> list[Received]:
    return collector.named(f"{TOPIC}.dlq send")


def test_request_trace_leads_to_clickhouse(
    engine: EmbeddedClickHouse, collector: Receiver, tmp_path: Path
) -> None:
    port = free_port()
    environ = _environ(engine, collector) | {"API_PORT": str(port), "API_WORKERS": "1"}
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
    with (
        ClickHouse(settings, client_name="tests") as clickhouse,
        running(tmp_path / "api.log", "api", settings=environ) as api,
    ):
        clickhouse.execute(schema.create_table(clickhouse.table))
        wait_until(lambda: _is_up(port))
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {
            "Content-Type": "application/json",
            "traceparent": f"00-{GIVEN_TRACE}-b7ad6b7169203331-01",
        }
        client.request("POST", "/query", b'{"sql": "SELECT 42"}', headers)
        answer = client.getresponse()
        assert json.loads(answer.read())["row_count"] == 1
        client.close()
        wait_until(lambda: "query" in _in_span_log(clickhouse, GIVEN_TRACE))
        api.child.send_signal(signal.SIGTERM)
        assert api.wait() == 0, api.output
        (served,) = [s for s in collector.spans if s.process == "api-0"]
        assert (served.trace_id, served.parent_id) == (GIVEN_TRACE, "b7ad6b7169203331")
        assert served.attributes["http.status_code"] == 200
        logged = [
            json.loads(x) for x in api.output.splitlines() if '"request"' in x and "/query" in x
        ]
        assert logged[0]["trace_id"] == GIVEN_TRACE


def _is_up(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
