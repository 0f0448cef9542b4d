"""The command with its metrics and traces timed: `python -m tests.tools.bench.timed FILE worker …`.

What a worker spends on them, in CPU time of the thread that does, goes into the file as JSON after each
batch. This tells apart what two runs on a busy machine cannot: there the same work takes now a tenth
more, now less. What it leaves out is librdkafka's making of its statistics.
"""

import functools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from octane_analytics.__main__ import main
from octane_analytics.kafka import consumer_config
from octane_analytics.telemetry import batch_tracing, tracing
from octane_analytics.telemetry.process_metrics import ProcessSampler
from octane_analytics.worker.slot_observer import SlotObserver

METRICS, TRACES = "metrics", "traces"


class Times:
    """Seconds by purpose. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = {METRICS: 0.0, TRACES: 0.0}

    @contextmanager
    def spent(self, on: str) -> Iterator[None]:
        began = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[on] += time.thread_time() - began

    def timed(self, owner: Any, name: str, on: str) -> None:
        """Wrap a function of the owner so that each call is counted."""
        real: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(real)
        def call(*given: Any, **named: Any) -> Any:
            with self.spent(on):
                return real(*given, **named)

        setattr(owner, name, call)

    def timed_manager(self, owner: Any, name: str, on: str) -> None:
        """Wrap a function that returns a context manager, whose block is not counted."""
        real: Callable[..., AbstractContextManager[Any]] = getattr(owner, name)

        @contextmanager
        def manage(*given: Any) -> Iterator[Any]:
            with self.spent(on):
                manager = real(*given)
                entered = manager.__enter__()
            try:
                yield entered
            except BaseException as error:
                with self.spent(on):
                    manager.__exit__(type(error), error, error.__traceback__)
                raise
            with self.spent(on):
                manager.__exit__(None, None, None)

        setattr(owner, name, manage)


def install(times: Times, file: Path) -> None:
    for name in ("consumed", "rejected", "dead_lettered", "call_finished", "inserted"):
        times.timed(SlotObserver, name, METRICS)
    times.timed(ProcessSampler, "__call__", METRICS)
    times.timed(consumer_config, "queue_bytes", METRICS)
    for owner, name in (
        (batch_tracing.BatchTracer, "contexts"),
        (batch_tracing.BatchTracer, "begin"),
        (batch_tracing.BatchTrace, "end"),
        (tracing, "traceparent"),
    ):
        times.timed(owner, name, TRACES)
    for name in ("step", "entered"):
        times.timed_manager(batch_tracing.BatchTrace, name, TRACES)
    start: Callable[..., Any] = tracing.start

    def started(*given: Any) -> Any:
        traces = start(*given)
        if traces is not None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            times.timed(OTLPSpanExporter, "export", TRACES)
        return traces

    setattr(tracing, "start", started)  # noqa: B010
    inserted = SlotObserver.inserted

    def told(self: SlotObserver, batch: Any) -> None:
        inserted(self, batch)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(times.seconds))
        fresh.replace(file)

    setattr(SlotObserver, "inserted", told)  # noqa: B010


if __name__ == "__main__":
    install(Times(), Path(sys.argv.pop(1)))
    sys.exit(main())
