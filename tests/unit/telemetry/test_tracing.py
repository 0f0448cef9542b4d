"""Which records' contexts a batch takes, and when traces are wanted at all."""

import logging
import socket
import subprocess
import sys

import pytest
from opentelemetry import trace

from octane_analytics.errors import ConfigError
from octane_analytics.kafka.record_headers import headers_of
from octane_analytics.telemetry import tracing
from octane_analytics.types import OffsetRange, TopicPartition
from tests.fakes.kafka import FakeRecord

SAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + b"0"


def _record(*headers: tuple[str, bytes | None]) -> FakeRecord:
    return FakeRecord(TopicPartition("t", 0), 0, b"", record_headers=headers)


def _found(*records: FakeRecord, room: int = 128) -> int:
    batches = tracing.BatchTracer(trace.NoOpTracer(), "group", headers_of)
    return len(batches.contexts(records, room))


def test_only_sampled_contexts_are_taken() -> None:
    assert _found(_record()) == 0
    assert _found(_record(("traceparent", UNSAMPLED))) == 0
    assert _found(_record(("other", b"1"), ("traceparent", SAMPLED))) == 1


@pytest.mark.parametrize(
    "header", [b"", None, b"1", b"no-trace-at-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"]
)
def test_a_malformed_context_is_passed_over(header: bytes | None) -> None:
    assert _found(_record(("traceparent", header))) == 0


def test_contexts_are_bounded() -> None:
    assert _found(*[_record(("traceparent", SAMPLED))] * 200) == 128
    assert _found(*[_record(("traceparent", SAMPLED))] * 200, room=3) == 3


def test_looks_at_headers_are_bounded_by_time_and_records() -> None:
    now = [0.0]
    batches = tracing.BatchTracer(trace.NoOpTracer(), "group", headers_of, lambda: now[0])
    records = [_record(("traceparent", SAMPLED))] * 1600

    def looked_at() -> int:
        return len(batches.contexts(records, len(records)))

    for _ in range(20):
        now[0] += 1.0
        assert looked_at() == 1600, "at a moderate pace all are"
    at_once = [looked_at() for _ in range(100)]
    assert 100 * 100 <= sum(at_once) <= 100 * 100 + 4000, "one in sixteen, and what was left"
    assert min(at_once) > 50, "and no call finds nothing left"
    now[0] += 2.0
    assert looked_at() == 1600


@pytest.mark.parametrize(
    ("environ", "is_wanted"),
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
def test_traces_are_wanted_by_opentelemetry_s_variables(
    environ: dict[str, str], is_wanted: bool
) -> None:
    assert tracing.is_configured(environ) is is_wanted


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_an_exporter_that_is_not_there_is_an_error(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(reversed(environ))):
        tracing.is_configured(environ)


def test_without_traces_nothing_is_started() -> None:
    assert tracing.start("worker-0", {}) is None


def test_without_traces_nothing_of_the_sdk_is_loaded() -> None:
    told = (
        "import sys; from octane_analytics.cli import main; from octane_analytics import worker; "
        "from octane_analytics.telemetry import tracing; assert tracing.start('worker-0', {}) is None; "
        "print([n for n in sys.modules if n.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', "
        "'opentelemetry.instrumentation'))])"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_collector_that_does_not_answer_is_not_waited_for_for_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        started = tracing.start("tests")
        assert started is not None
        started.batches("group", headers_of).begin(
            TopicPartition("t", 0), OffsetRange(0, 0), []
        ).end(1)
        with caplog.at_level(logging.WARNING):
            started.stop()
    assert [record.message for record in caplog.records if record.name == tracing.__name__] == [
        "traces were not taken in time: the last spans are lost"
    ]
