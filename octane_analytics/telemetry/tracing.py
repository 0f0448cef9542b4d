"""Traces: from an event's producer over Kafka through a batch's insert into ClickHouse.

Off unless the standard OTEL_* variables name an exporter; nothing of the SDK is loaded then. On, the SDK
reads all else from those variables itself: sampler, limits, resource, headers, time-outs. To be started
after the fork, for the exporter has a thread, and stopped when the process has drained.
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

from opentelemetry import context as contexts
from opentelemetry import propagate, trace

from octane_analytics import __version__
from octane_analytics.errors import ConfigError
from octane_analytics.telemetry import logging as logs
from octane_analytics.types import OffsetRange, Record, TopicPartition

_LOG = logging.getLogger(__name__)
_SERVICE = "octane-analytics"
FLUSH_SECONDS = 5.0
"""How long a process that ends waits for its last spans to be taken."""
_LOOKS_PER_SECOND = 2_000
_LOOKS_PER_RECORD = 1 / 16
"""To read a record's headers costs 2.5 µs where it has one, more than all else that an event costs. So a
worker that has much to do, or only a part of a processor, looks at evenly spaced records, otherwise at
all."""
_SAMPLED = frozenset(b"13579bdf")
_KINDS = {
    "intent": {"messaging.operation.type": "settle", "messaging.system": "kafka"},
    "insert": {"db.operation.name": "INSERT", "db.system.name": "clickhouse"},
}

P = TypeVar("P")
HeadersOf = Callable[[Record], Iterable[tuple[str | bytes, bytes | None]]]
"""How a record's headers are read, whatever bytes their names are."""


def is_configured(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether traces are to be exported, by OpenTelemetry's variables.

    Raises ConfigError for an exporter or protocol that is not there: no traces at all would be a
    strange answer to a wish for traces.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in ("", "otlp", "none"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER={exporter} is not supported: use otlp or none")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    is_wanted = exporter == "otlp" or any(environ.get(name) for name in endpoints)
    if not is_wanted or exporter == "none":
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if environ.get(name, "http/protobuf") != "http/protobuf":
            raise ConfigError(
                f"{name}={environ[name]} is not supported: use http/protobuf, "
                "which every collector takes on port 4318"
            )
    return True


def start(name: str, environ: Mapping[str, str] = os.environ) -> "Tracing | None":
    """Begins to export this process's spans; None where that is not configured.

    `name` tells this process from the others: its role and slot. Log lines written within a span
    carry its ids from now on. Raises ConfigError.
    """
    return Tracing(name, environ) if is_configured(environ) else None


class Tracing:
    """The SDK of one process: see `start`."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        # Only here, so that a process without traces never loads them.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        told = {
            "service.version": __version__,
            "service.instance.id": f"{socket.gethostname()}/{name}",
        }
        if not environ.get("OTEL_SERVICE_NAME"):
            told["service.name"] = _SERVICE
        self.provider = TracerProvider(resource=Resource.create(told), shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer(_SERVICE, __version__)
        for handler in logging.getLogger().handlers:
            handler.addFilter(_add_ids)

    def batches(self, group: str, headers_of: HeadersOf) -> "BatchTracer":
        """What follows a worker's batches; `group` is its consumer group."""
        return BatchTracer(self._tracer, group, headers_of)

    def instrumented(self, producer: P) -> P:
        """A confluent_kafka Producer whose records carry the trace they belong to."""
        from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor

        client: Any = producer
        proxy: Any = _Forwarding(
            ConfluentKafkaInstrumentor.instrument_producer(client, self.provider)
        )
        return cast("P", proxy)

    def served(self, app: Any, quiet: Sequence[str]) -> Any:
        """An ASGI application with a span around each request, but for those to `quiet` paths."""
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(
            app,
            excluded_urls=",".join(f"{path}$" for path in quiet),
            tracer_provider=self.provider,
            exclude_spans=["receive", "send"],
        )

    def stop(self) -> None:
        """Sends what is not sent yet. Blocks for FLUSH_SECONDS at most; what is left then is lost."""
        # The SDK's force_flush heeds no time-out (opentelemetry-python, issue 4568), and its shutdown
        # waits for half a minute.
        sending = threading.Thread(target=self.provider.shutdown, daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)
        if sending.is_alive():
            _LOG.warning(
                "traces were not taken in time: the last spans are lost",
                extra=logs.fields(seconds=FLUSH_SECONDS),
            )


def traceparent() -> str | None:
    """The current span as the W3C's header names it; None where none is recorded."""
    span = trace.get_current_span().get_span_context()
    if not (span.is_valid and span.trace_flags.sampled):
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-01"


class BatchTracer:
    """See `types.Tracer`."""

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
        self._looks = 2.0 * _LOOKS_PER_SECOND
        self._looked_at = now()

    def contexts(self, records: Sequence[Record], room: int) -> Sequence[trace.SpanContext]:
        found = []
        for record in records[:: self._step(len(records))]:
            for name, value in self._headers_of(record):
                if name == "traceparent" and value and value[-1] in _SAMPLED:
                    context = _parse(value)
                    if context is not None:
                        found.append(context)
            if len(found) >= room:
                break
        return found[:room]

    def _step(self, records: int) -> int:
        """Every which record may be looked at."""
        now = self._now()
        earned = (now - self._looked_at) * _LOOKS_PER_SECOND + records * _LOOKS_PER_RECORD
        self._looks, self._looked_at = min(2 * _LOOKS_PER_SECOND, self._looks + earned), now
        # Half of what is left, so that no call leaves nothing for the next.
        step = -(-records // max(1, int(self._looks / 2))) or 1
        self._looks -= min(self._looks, records // step)
        return step

    def begin(
        self, partition: TopicPartition, span: OffsetRange, contexts: Sequence[object]
    ) -> "BatchTrace":
        """A span that is linked to all of the contexts. It belongs to the first one's trace, so that
        one id leads from that event's producer to ClickHouse, and so that a batch is recorded where
        one of its events is, whatever the share of sampled events."""
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
    """See `types.Trace`."""

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


_EMPTY = contexts.Context()


class _Forwarding:
    """A producer that goes on with the trace which a forwarded record came with.

    The instrumentation would add a second traceparent behind the first.
    """

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self.poll: Callable[..., int] = producer.poll
        self.flush: Callable[..., int] = producer.flush
        self.purge: Callable[..., None] = producer.purge

    def produce(self, topic: str, **given: Any) -> None:
        with _carried(given):
            self._producer.produce(topic, **given)


@contextlib.contextmanager
def _carried(given: dict[str, Any]) -> Iterator[None]:
    headers = given.get("headers") or []
    carrier = {name: value.decode(errors="replace") for name, value in headers if value is not None}
    fields = propagate.get_global_textmap().fields
    if not any(name in carrier for name in fields):
        yield
        return
    given["headers"] = [(name, value) for name, value in headers if name not in fields]
    token = contexts.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        contexts.detach(token)


def _parse(header: bytes) -> trace.SpanContext | None:
    """The context in a traceparent header; None for one that is malformed."""
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
