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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace

from octane_analytics import __version__
from octane_analytics.errors import ConfigError
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry.batch_tracing import BatchTracer, HeadersOf

_LOG = logging.getLogger(__name__)
_SERVICE = "octane-analytics"
FLUSH_SECONDS = 5.0
"""Longest time for which an exiting process waits for the export of its last spans."""
P = TypeVar("P")


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

    def batch_tracer(self, group: str, headers_of: HeadersOf) -> BatchTracer:
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


def _add_ids(record: logging.LogRecord) -> bool:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        logs.add_fields(record, trace_id=f"{span.trace_id:032x}", span_id=f"{span.span_id:016x}")
    return True
