"""One child's body: builds its edges after the fork, runs ingestion, returns an exit code.

Also what is looked at once before any worker starts, in a process of its own.
"""

import gc
import logging
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.schema import LiveTable
from octane_analytics.clickhouse.views import view_findings
from octane_analytics.errors import (
    ConfigError,
    NeedsOperator,
    OctaneError,
    StatementRejected,
    Unavailable,
)
from octane_analytics.events.decode import decode_all
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.kafka.event_producer import KafkaDeadLetters
from octane_analytics.kafka.lag import LagProbe
from octane_analytics.kafka.record_headers import headers_of
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.kafka.topics import TopicInspector, ensure_topic
from octane_analytics.operations.expired_offsets import SAMPLE_FETCH_BYTES, find_stored_record
from octane_analytics.pipeline.batch import BatchLimits
from octane_analytics.pipeline.batch_writer import Delivery
from octane_analytics.pipeline.dlq_limit import DlqLimitConfig
from octane_analytics.pipeline.ingest_loop import IngestLoop, IngestOptions
from octane_analytics.runtime import scheduling
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.periodic import PeriodicThread
from octane_analytics.runtime.timing import Backoff, SystemClock
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.status_board import CountingSink, SlotObserver, SlotStatusWriter
from octane_analytics.telemetry import exposition, tracing
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry.dedup_window import DedupWindowCollector
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.lag_metrics import LagCollector
from octane_analytics.telemetry.metrics_server import MetricsServer
from octane_analytics.telemetry.process_metrics import ProcessSampler
from octane_analytics.telemetry.worker_metrics import ProcessMetrics, WorkerMetrics

_LOG = logging.getLogger(__name__)
ROLE = "worker"
_GC_ALLOCATIONS = 50_000
_FIRST_BACKOFF_SECONDS = 0.2
_CAP_BACKOFF_SECONDS = 10.0
_LAG_SECONDS = 1.0
_METRICS_TURN_SECONDS = 2.0
_SAMPLE_SECONDS = 20.0
_QUIET_POLL_SECONDS = 1.0
"""What a signal may have to wait, for idle workers that cost next to nothing; an event does not."""


class StopSignal:
    """Whether TERM or INT has come. Installs its handlers where it is made, in the main thread."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._woken, wakes = socket.socketpair()
        self._woken.setblocking(False)
        wakes.setblocking(False)
        self._wakes = wakes
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._record)
        for number in (signal.SIGCHLD, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)  # the supervisor's, also where all are told

    def _record(self, number: int, _: object) -> None:
        self._number = number

    @property
    def is_set(self) -> bool:
        return self._number is not None

    def wait(self, seconds: float) -> None:
        """Until it is set, and for so long at most. A handler alone would not end a sleep."""
        if not self.is_set:
            select.select([self._woken], [], [], seconds)


def run_worker(
    settings: Settings,
    slot: int,
    metrics_directory: Path,
    figures: SlotStatusWriter,
    ready: Callable[[], None],
) -> int:
    """Consumes until SIGTERM or SIGINT, then drains. Blocks; answers the exit code.

    To be called in the forked process. `ready` is called once the handlers are set, `figures` hears of
    every turn of the loop.
    """
    stop = StopSignal()
    ready()
    # Messages come and go by the ten thousand without ever forming a cycle: at its default pace the
    # collector would look at each of them several times.
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 10, 10)
    name = exposition.ProcessName(ROLE, slot)
    logs.configure(settings.log.level, settings.log.format, name())
    exposition.open_directory(metrics_directory, name)
    counted = WorkerMetrics()
    clock = SystemClock()
    observer = SlotObserver(
        counted, InsertedEventCounter(metrics_directory, name()), figures, clock
    )
    sample = ProcessSampler(ProcessMetrics(), name(), observer.tick)
    traces = tracing.start(name())
    source = KafkaSource(
        settings.kafka, slot, on_queue=counted.queue_bytes.set, on_stall=observer.stalled
    )
    sink = ClickHouseSink(
        settings.clickhouse,
        client_name=f"octane-analytics {name()}",
        traceparent=tracing.traceparent if traces else None,
        on_statement=lambda: figures.extend_deadline(clock.now() + sink.patience_seconds),
    )
    dead_letters = KafkaDeadLetters(
        settings.kafka,
        client_id=f"octane-analytics-dlq-{slot}",
        instrumented=traces.instrumented if traces else None,
    )
    ingest = IngestLoop(
        source,
        CountingSink(sink, figures, clock),
        dead_letters,
        decode_all,
        clock,
        observer,
        _options(settings),
        Backoff(_FIRST_BACKOFF_SECONDS, _CAP_BACKOFF_SECONDS),
        traces.batches(settings.kafka.group_id, headers_of) if traces else None,
    )

    lag_at = 0.0

    def should_stop() -> bool:
        nonlocal lag_at
        now = clock.now()
        figures.heartbeat(now)
        sample()
        if now - lag_at >= _LAG_SECONDS:
            lag_at = now
            figures.set_lag(source.lag())
        return stop.is_set

    try:
        is_drained = ingest.run(should_stop, settings.worker.drain_seconds)
    except OctaneError as error:
        _LOG.error("worker gives up", extra=logs.fields(error=str(error)))
        # What was right at the start may be mended while we try again; a wrong setting is not.
        return int(Exit.CONFIG if isinstance(error, ConfigError) else Exit.UNAVAILABLE)
    finally:
        dead_letters.close()
        sink.close()
        if traces is not None:
            traces.stop()
    if not is_drained:
        _LOG.warning("not everything was inserted in time: the next owner does it, once")
    return int(Exit.OK)


def _options(settings: Settings) -> IngestOptions:
    batch = settings.batch
    return IngestOptions(
        topic=settings.kafka.topic,
        limits=BatchLimits(batch.size, batch.flush_seconds, batch.max_rows, batch.max_bytes),
        delivery=Delivery(batch.delivery),
        max_bytes=settings.worker.max_bytes,
        breaker=DlqLimitConfig(batch.dlq_max_ratio, batch.dlq_max_consecutive),
        quiet_poll_seconds=min(_QUIET_POLL_SECONDS, batch.flush_seconds / 4),
    )


def run_metrics(
    settings: Settings,
    listening: socket.socket,
    metrics_directory: Path,
    figures: SlotStatusWriter,
    ready: Callable[[], None],
    procs: Callable[[], int],
) -> int:
    """Serves the shared metrics until SIGTERM. Blocks; answers the exit code.

    `procs` tells how many workers there are to be just now.
    """
    stop = StopSignal()
    # A Ctrl-C from before it left the terminal's session; the metrics go on until the workers have
    # drained.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scheduling.schedule_first()
    ready()
    name = exposition.ProcessName("metrics", 0)
    logs.configure(settings.log.level, settings.log.format, "metrics")
    exposition.open_directory(metrics_directory, name)
    sample = ProcessSampler(ProcessMetrics(), name())
    probe = LagProbe(settings.kafka, client_id="octane-analytics-lag")
    clickhouse = ClickHouse(settings.clickhouse, client_name="octane-analytics metrics")

    def window() -> int | None:
        live = clickhouse.describe()
        return None if live is None else live.window

    lag, dedup = LagCollector(probe.measure), DedupWindowCollector(window)
    watching = [
        PeriodicThread("lag", lag.update, probe.close),
        PeriodicThread("window", dedup.update, clickhouse.close),
    ]

    def missing() -> list[str]:
        workers = [exposition.ProcessName(ROLE, slot)() for slot in range(procs())]
        return exposition.unready(metrics_directory, workers)

    server = MetricsServer(
        listening,
        exposition.Exposition(metrics_directory, lag, dedup),
        missing,
    )
    server.start()
    for watch in watching:
        watch.start()
    while not stop.is_set:
        figures.heartbeat(time.monotonic())
        figures.set_lag(*(lag.total or (None,)))
        sample()
        stop.wait(_METRICS_TURN_SECONDS)
    server.stop()
    for watch in watching:
        watch.stop()
    return int(Exit.OK)


def preflight(settings: Settings) -> None:
    """What must be right before it makes sense to start: one clear error beats a crash loop.

    Blocks on ClickHouse and Kafka, each for some seconds at most. Raises NeedsOperator or ConfigError
    for what has to be mended, Unavailable for what may come back by itself.
    """
    tracing.is_configured()
    with ClickHouse(settings.clickhouse, client_name="octane-analytics preflight") as clickhouse:
        check_table(clickhouse, settings)
    with TopicInspector(settings.kafka, client_id="octane-analytics-preflight") as view:
        partitions = view.partitions(settings.kafka.topic)
    if partitions < settings.worker.procs:
        _LOG.warning(
            "fewer partitions than processes: some will have nothing to do",
            extra=logs.fields(partitions=partitions, procs=settings.worker.procs),
        )
    check_committed_offsets(settings)
    try:
        ensure_topic(settings.kafka, settings.kafka.dlq_topic)
    except Unavailable as error:
        _LOG.warning(
            "no dead-letter topic: a record that is no valid event will halt its partition",
            extra=logs.fields(topic=settings.kafka.dlq_topic, error=str(error)),
        )


def check_committed_offsets(settings: Settings) -> None:
    """Raises NeedsOperator where the group would start at the first retained records and the table
    already has some of them; else as `preflight` does."""
    name = "octane-analytics-preflight"
    with (
        TopicReader(settings.kafka, client_id=name, fetch_bytes=SAMPLE_FETCH_BYTES) as log,
        ClickHouseSink(settings.clickhouse, client_name="octane-analytics preflight") as table,
    ):
        stored = find_stored_record(log, table, _SAMPLE_SECONDS)
        if stored is not None:
            raise NeedsOperator(stored.explain(log.group, table.table))


def check_table(clickhouse: ClickHouse, settings: Settings) -> None:
    """Whether the table can be inserted into as the protocol needs it. Raises as `preflight` does."""
    try:
        _check_table(clickhouse, settings)
    except StatementRejected as error:
        advice = OPERATOR_ERRORS.get(error.code, "look at the server's log")
        raise NeedsOperator(f"ClickHouse refuses: {error}; {advice}") from error


def _check_table(clickhouse: ClickHouse, settings: Settings) -> None:
    live = clickhouse.describe()
    for right in ("SELECT", "INSERT"):
        if not clickhouse.has_right(right):
            if right == "INSERT":
                clickhouse.check_profile()
            raise NeedsOperator(
                f"user {settings.clickhouse.user} lacks {right} on {clickhouse.table}: "
                f"GRANT {right} ON {clickhouse.table} TO {settings.clickhouse.user}"
            )
    if live is None:
        raise NeedsOperator(
            f"table {clickhouse.table} does not exist: create it with `octane-analytics schema apply`"
        )
    if unfit := schema.unfit_columns(live):
        raise ConfigError(
            f"table {clickhouse.table} {', '.join(unfit)}: see `octane-analytics schema check`"
        )
    if live.window < 1 and settings.batch.delivery == Delivery.EXACTLY_ONCE.value:
        alter = schema.alter_window(clickhouse.table, live.window_setting)
        raise ConfigError(
            f"table {clickhouse.table} has no deduplication window, which exactly-once depends on: run "
            f"`octane-analytics schema apply` or {alter} (or set DELIVERY=at-least-once); see "
            "`octane-analytics manual delivery`"
        )
    if settings.batch.delivery == Delivery.EXACTLY_ONCE.value:
        _check_views(clickhouse, live)


def _check_views(clickhouse: ClickHouse, live: LiveTable) -> None:
    findings = view_findings(clickhouse.table, live, clickhouse.views())
    for finding in findings:
        if not finding.is_refusal:
            _LOG.warning("a materialized view may be wrong", extra=logs.fields(why=finding.message))
    if refusals := [finding.message for finding in findings if finding.is_refusal]:
        raise ConfigError("; ".join(refusals))
