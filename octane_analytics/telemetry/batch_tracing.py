"""Spans of batches: each is linked to the traces of the events that it inserts."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from opentelemetry import context as otel_context
from opentelemetry import trace

from octane_analytics.types import PartitionRange, Record

_READS_PER_SECOND = 2_000
_READS_PER_RECORD = 1 / 16
"""Budget for reading record headers. A read takes 2.5 µs if the record has a header, more than all other
work for an event. A busy worker, or one with a part of a processor, therefore reads the headers of
evenly spaced records, and an idle one those of all records."""
_SAMPLED = frozenset(b"13579bdf")
_STEP_ATTRIBUTES = {
    "intent": {"messaging.operation.type": "settle", "messaging.system": "kafka"},
    "insert": {"db.operation.name": "INSERT", "db.system.name": "clickhouse"},
}
_EMPTY_CONTEXT = otel_context.Context()

HeadersOf = Callable[[Record], Iterable[tuple[str | bytes, bytes | None]]]
"""Returns name and value of a record's headers; names that are not UTF-8 are bytes."""


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
        self, topic: str, ranges: Sequence[PartitionRange], contexts: Sequence[object]
    ) -> "BatchTrace":
        """Start a span that links to all contexts and belongs to the trace of the first one.

        One trace id thus leads from that event's producer to ClickHouse, and a batch is recorded if one
        of its events is, independent of the sampling ratio.
        """
        sampled = [context for context in contexts if isinstance(context, trace.SpanContext)]
        parent = trace.NonRecordingSpan(sampled[0]) if sampled else trace.INVALID_SPAN
        flush = self._tracer.start_span(
            f"flush {topic}",
            context=trace.set_span_in_context(parent, _EMPTY_CONTEXT),
            kind=trace.SpanKind.CONSUMER,
            links=[trace.Link(context) for context in sampled],
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.name": "flush",
                "messaging.operation.type": "process",
                "messaging.destination.name": topic,
                "messaging.consumer.group.name": self._group,
                "octane.offsets": [str(item) for item in ranges],
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
            context=trace.set_span_in_context(self._flush, _EMPTY_CONTEXT),
            kind=trace.SpanKind.CLIENT if name in _STEP_ATTRIBUTES else trace.SpanKind.INTERNAL,
            attributes=_STEP_ATTRIBUTES.get(name),
        )

    def entered(self) -> AbstractContextManager[object]:
        return trace.use_span(self._flush)

    def end(self, rows: int | None) -> None:
        if rows is None:
            self._flush.set_status(
                trace.StatusCode.ERROR, "left to the next owners of its partitions"
            )
        else:
            self._flush.set_attribute("messaging.batch.message_count", rows)
        self._flush.end()


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
