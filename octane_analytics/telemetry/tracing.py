"""Traces: from an event's producer through Kafka to the insert of its batch into ClickHouse.

Disabled unless the standard OTEL_* variables name an exporter; the SDK is not loaded then. The SDK reads
its other settings from those variables: sampler, limits, resource, headers, timeouts. Start it after the
fork, because the exporter has a thread, and stop it when the process has drained.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace

from octane_analytics import __version__
from octane_analytics.errors import ConfigError
from octane_analytics.telemetry import logging as logs
from octane_analytics.types import OffsetRange, Record, TopicPartition

_LOG = logging.getLogger(__name__)
_SERVICE = "octane-analytics"
FLUSH_SECONDS = 5.0
"""Longest time for which an exiting process waits for the export of its last spans."""
_READS_PER_SECOND = 2_000
_READS_PER_RECORD = 1 / 16
"""Budget for reading record headers. A read takes 2.5 µs if the record has a header, more than all other
work for an event. A busy worker, or one with a part of a processor, therefore reads the headers of
evenly spaced records, and an idle one those of all records."""
_SAMPLED = frozenset(b"13579bdf")
_KINDS = {
    "intent": {"messaging.operation.type": "settle", "messaging.system": "kafka"},
    "insert": {"db.operation.name": "INSERT", "db.system.name": "clickhouse"},
}

P = TypeVar("P")
HeadersOf = Callable[[Record], Iterable[tuple[str | bytes, bytes | None]]]
"""Returns name and value of a record's headers; names that are not UTF-8 are bytes."""


def is_configured(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether OpenTelemetry's variables ask for an export of traces.

    Raise ConfigError for an unsupported exporter or protocol, instead of silently exporting nothing.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in ("", "otlp", "none"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER={exporter} is not supported: use otlp or none")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    is_requested = exporter == "otlp" or any(environ.get(name) for name in endpoints)
    if not is_requested or exporter == "none":
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if environ.get(name, "http/protobuf") != "http/protobuf":
            raise ConfigError(
                f"{name}={environ[name]} is not supported: use http/protobuf, "
                "which every collector accepts on port 4318"
            )
    return True


def start(name: str, environ: Mapping[str, str] = os.environ) -> "Tracing | None":
    """Start to export this process's spans; return None if traces are not configured.

    `name` identifies this process: its role and slot. From now on, log lines within a span carry its
    ids. Raise ConfigError.
    """
    return Tracing(name, environ) if is_configured(environ) else None


class Tracing:
    """OpenTelemetry SDK of one process: see `start`."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        # Imported here, so that a process without traces does not load the SDK.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        attributes = {
            "service.version": __version__,
            "service.instance.id": f"{socket.gethostname()}/{name}",
        }
        if not environ.get("OTEL_SERVICE_NAME"):
            attributes["service.name"] = _SERVICE
        self.provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer(_SERVICE, __version__)
        for handler in logging.getLogger().handlers:
            handler.addFilter(_add_ids)

    def batch_tracer(self, group: str, headers_of: HeadersOf) -> "BatchTracer":
        """Return the tracer of a worker's batches; `group` is its consumer group."""
        return BatchTracer(self._tracer, group, headers_of)

    def instrument_producer(self, producer: P) -> P:
        """Return a proxy of a confluent_kafka Producer that adds the current trace to each record."""
        from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor

        client: Any = producer
        proxy: Any = _TraceContinuingProducer(
            ConfluentKafkaInstrumentor.instrument_producer(client, self.provider)
        )
        return cast("P", proxy)

    def instrument_app(self, app: Any, excluded_paths: Sequence[str]) -> Any:
        """Return an ASGI application that adds a span to each request, except to excluded paths."""
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(
            app,
            excluded_urls=",".join(f"{path}$" for path in excluded_paths),
            tracer_provider=self.provider,
            exclude_spans=["receive", "send"],
        )

    def stop(self) -> None:
        """Export the remaining spans. Blocks for FLUSH_SECONDS at most; spans that remain are lost."""
        # The SDK's force_flush ignores its timeout (opentelemetry-python, issue 4568), and its shutdown
        # takes up to half a minute.
        shutdown = threading.Thread(target=self.provider.shutdown, daemon=True)
        shutdown.start()
        shutdown.join(FLUSH_SECONDS)
        if shutdown.is_alive():
            _LOG.warning(
                "export of traces timed out: the last spans are lost",
                extra=logs.fields(seconds=FLUSH_SECONDS),
            )


def traceparent() -> str | None:
    """Return the W3C traceparent header of the current span; None if it is not sampled."""
    span = trace.get_current_span().get_span_context()
    if not (span.is_valid and span.trace_flags.sampled):
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-01"


class BatchTracer:
    """Tracer of batches (see `interfaces.Tracer`)."""

    def __init__(
        self,
        tracer: trace.Tracer,
        group: str,
        headers_of: HeadersOf,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracer = tracer
        self._group = group
        self._headers_of = headers_of
        self._now = now
        self._read_budget = 2.0 * _READS_PER_SECOND
        self._budget_at = now()

    def contexts(self, records: Sequence[Record], room: int) -> Sequence[trace.SpanContext]:
        contexts = []
        for record in records[:: self._sampling_step(len(records))]:
            for name, value in self._headers_of(record):
                if name == "traceparent" and value and value[-1] in _SAMPLED:
                    context = _parse_traceparent(value)
                    if context is not None:
                        contexts.append(context)
            if len(contexts) >= room:
                break
        return contexts[:room]

    def _sampling_step(self, records: int) -> int:
        """Return n, such that the budget allows reading the headers of every n-th record."""
        now = self._now()
        earned = (now - self._budget_at) * _READS_PER_SECOND + records * _READS_PER_RECORD
        self._read_budget, self._budget_at = (
            min(2 * _READS_PER_SECOND, self._read_budget + earned),
            now,
        )
        # At most half of the budget, so that some remains for the next call.
        step = -(-records // max(1, int(self._read_budget / 2))) or 1
        self._read_budget -= min(self._read_budget, records // step)
        return step

    def begin(
        self, partition: TopicPartition, span: OffsetRange, contexts: Sequence[object]
    ) -> "BatchTrace":
        """Start a span that links to all contexts and belongs to the trace of the first one.

        One trace id thus leads from that event's producer to ClickHouse, and a batch is recorded if one
        of its events is, independent of the sampling ratio.
        """
        sampled = [context for context in contexts if isinstance(context, trace.SpanContext)]
        parent = trace.NonRecordingSpan(sampled[0]) if sampled else trace.INVALID_SPAN
        flush = self._tracer.start_span(
            f"flush {partition.topic}",
            context=trace.set_span_in_context(parent, _EMPTY),
            kind=trace.SpanKind.CONSUMER,
            links=[trace.Link(context) for context in sampled],
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.name": "flush",
                "messaging.operation.type": "process",
                "messaging.destination.name": partition.topic,
                "messaging.destination.partition.id": str(partition.partition),
                "messaging.consumer.group.name": self._group,
                "messaging.kafka.offset": span.first,
                "octane.offsets": str(span),
            },
        )
        return BatchTrace(self._tracer, flush)


class BatchTrace:
    """Trace of one batch (see `interfaces.Trace`)."""

    def __init__(self, tracer: trace.Tracer, flush: trace.Span) -> None:
        self._tracer = tracer
        self._flush = flush

    def step(self, name: str) -> AbstractContextManager[object]:
        return self._tracer.start_as_current_span(
            name,
            context=trace.set_span_in_context(self._flush, _EMPTY),
            kind=trace.SpanKind.CLIENT if name in _KINDS else trace.SpanKind.INTERNAL,
            attributes=_KINDS.get(name),
        )

    def entered(self) -> AbstractContextManager[object]:
        return trace.use_span(self._flush)

    def end(self, rows: int | None) -> None:
        if rows is None:
            self._flush.set_status(trace.StatusCode.ERROR, "left to the partition's next owner")
        else:
            self._flush.set_attribute("messaging.batch.message_count", rows)
        self._flush.end()


_EMPTY = otel_context.Context()


class _TraceContinuingProducer:
    """Producer proxy that continues the trace of a forwarded record.

    The instrumentation alone would add a second traceparent after the first.
    """

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self.poll: Callable[..., int] = producer.poll
        self.flush: Callable[..., int] = producer.flush
        self.purge: Callable[..., None] = producer.purge

    def produce(self, topic: str, **arguments: Any) -> None:
        with _extracted_trace(arguments):
            self._producer.produce(topic, **arguments)


@contextlib.contextmanager
def _extracted_trace(arguments: dict[str, Any]) -> Iterator[None]:
    """Move the trace from the record's headers to the current context."""
    headers = arguments.get("headers") or []
    carrier = {name: value.decode(errors="replace") for name, value in headers if value is not None}
    fields = propagate.get_global_textmap().fields
    if not any(name in carrier for name in fields):
        yield
        return
    arguments["headers"] = [(name, value) for name, value in headers if name not in fields]
    token = otel_context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        otel_context.detach(token)


def _parse_traceparent(header: bytes) -> trace.SpanContext | None:
    """Return the context of a traceparent header; None for a malformed one."""
    parts = header.split(b"-")
    try:
        context = trace.SpanContext(
            int(parts[1], 16), int(parts[2], 16), True, trace.TraceFlags(trace.TraceFlags.SAMPLED)
        )
    except (ValueError, IndexError):
        return None
    return context if context.is_valid else None


def _add_ids(record: logging.LogRecord) -> bool:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        logs.add_fields(record, trace_id=f"{span.trace_id:032x}", span_id=f"{span.span_id:016x}")
    return True
