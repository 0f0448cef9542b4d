"""Contexts that a batch takes from its records, and the configuration of traces."""

import logging
import socket
import subprocess
import sys

import pytest
from opentelemetry import trace

from octane_analytics.errors import ConfigError
from octane_analytics.kafka.record_headers import headers_of
from octane_analytics.telemetry import batch_tracing, tracing
from octane_analytics.types import PartitionRange, TopicPartition
from tests.fakes.kafka import FakeRecord

SAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + b"0"


def _record(*headers: tuple[str, bytes | None]) -> FakeRecord:
    return FakeRecord(TopicPartition("t", 0), 0, b"", record_headers=headers)


def _contexts_found(*records: FakeRecord, room: int = 128) -> int:
    tracer = batch_tracing.BatchTracer(trace.NoOpTracer(), "group", headers_of)
    return len(tracer.contexts(records, room))


def test_only_sampled_contexts_are_taken() -> None:
    assert _contexts_found(_record()) == 0
    assert _contexts_found(_record(("traceparent", UNSAMPLED))) == 0
    assert _contexts_found(_record(("other", b"1"), ("traceparent", SAMPLED))) == 1


@pytest.mark.parametrize(
    "header", [b"", None, b"1", b"no-trace-at-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"]
)
def test_malformed_context_is_skipped(header: bytes | None) -> None:
    assert _contexts_found(_record(("traceparent", header))) == 0


def test_contexts_are_limited() -> None:
    assert _contexts_found(*[_record(("traceparent", SAMPLED))] * 200) == 128
    assert _contexts_found(*[_record(("traceparent", SAMPLED))] * 200, room=3) == 3


def test_header_reads_are_limited_by_their_budget() -> None:
    now = [0.0]
    tracer = batch_tracing.BatchTracer(trace.NoOpTracer(), "group", headers_of, lambda: now[0])
    records = [_record(("traceparent", SAMPLED))] * 1600

    def contexts_read() -> int:
        return len(tracer.contexts(records, len(records)))

    for _ in range(20):
        now[0] += 1.0
        assert contexts_read() == 1600, "at a moderate rate all headers are read"
    burst = [contexts_read() for _ in range(100)]
    assert 100 * 100 <= sum(burst) <= 100 * 100 + 4000, "one in sixteen, and the remaining budget"
    assert min(burst) > 50, "no call exhausts the budget"
    now[0] += 2.0
    assert contexts_read() == 1600


@pytest.mark.parametrize(
    ("environ", "is_requested"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, False),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, False),
    ],
)
def test_traces_are_configured_by_opentelemetry_variables(
    environ: dict[str, str], is_requested: bool
) -> None:
    assert tracing.is_configured(environ) is is_requested


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_unsupported_exporter_is_an_error(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(reversed(environ))):
        tracing.is_configured(environ)


def test_start_without_configuration_returns_none() -> None:
    assert tracing.start("worker-0", {}) is None


def test_sdk_is_not_loaded_without_traces() -> None:
    program = (
        "import sys; from octane_analytics.cli import main; from octane_analytics import worker; "
        "from octane_analytics.telemetry import tracing; assert tracing.start('worker-0', {}) is None; "
        "print([n for n in sys.modules if n.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', "
        "'opentelemetry.instrumentation'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_stop_does_not_wait_for_silent_collector(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        started = tracing.start("tests")
        assert started is not None
        started.batch_tracer("group", headers_of).begin("t", [PartitionRange(0, 0, 1)], []).end(1)
        with caplog.at_level(logging.WARNING):
            started.stop()
    assert [record.message for record in caplog.records if record.name == tracing.__name__] == [
        "export of traces timed out: the last spans are lost"
    ]
