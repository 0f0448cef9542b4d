"""Worker process: creates its clients after the fork, runs ingestion, returns an exit code."""

import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.errors import ConfigError, OctaneError, Unavailable
from octane_analytics.events.decoders import COMPILED, choose
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.kafka.dlq_producer import KafkaDeadLetters
from octane_analytics.kafka.range_reader import KafkaRangeReader
from octane_analytics.kafka.record_headers import headers_of
from octane_analytics.pipeline.batch import BatchLimits
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.pipeline.dlq_limit import DlqLimitConfig
from octane_analytics.pipeline.ingest_loop import IngestLoop, IngestOptions
from octane_analytics.pipeline.log_confirmation import SharedWord
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal, drop_supervisor_handlers
from octane_analytics.runtime.timing import Backoff, SystemClock
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.status_board import SlotStatusWriter
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry import metrics_files, tracing
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.process_metrics import ProcessMetrics, ProcessSampler
from octane_analytics.telemetry.worker_metrics import WorkerMetrics
from octane_analytics.worker.preflight import check_table
from octane_analytics.worker.slot_observer import SlotObserver
from octane_analytics.worker.table_mark import MAX_SECONDS, read_table_mark

_LOG = logging.getLogger(__name__)
ROLE = "worker"
_GC_ALLOCATIONS = 50_000
_FIRST_BACKOFF_SECONDS = 0.2
_CAP_BACKOFF_SECONDS = 10.0
_LAG_UPDATE_SECONDS = 2.0
_SESSION_SECONDS = 45.0
"""Default session timeout of librdkafka."""
_QUIET_POLL_SECONDS = 1.0
"""Longest poll, which keeps the CPU time of a worker with little to do low. It delays signals, not
events."""


def run_worker(
    settings: Settings,
    slot: int,
    metrics_directory: Path,
    slot_status: SlotStatusWriter,
    ready: Callable[[], None],
    processes: Callable[[], int],
    confirmation: SharedWord,
) -> int:
    """Consume until SIGTERM or SIGINT, then drain; return the exit code. Blocks.

    Call it in the forked process. `ready` is called once the signal handlers are installed;
    `slot_status` receives a heartbeat in every iteration of the loop. `processes` returns the number of
    workers, which SIGTTIN and SIGTTOU change; `confirmation` is shared by them.
    """
    drop_supervisor_handlers()
    stop = StopSignal().install()
    ready()
    # Messages are allocated by the ten thousand and never form a cycle: with its default threshold the
    # garbage collector would traverse each of them several times.
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 10, 10)
    name = metrics_files.ProcessName(ROLE, slot)
    logs.configure(settings.log.level, settings.log.format, name())
    metrics_files.open_directory(metrics_directory, name)
    metrics = WorkerMetrics()
    clock = SystemClock()
    observer = SlotObserver(
        metrics, InsertedEventCounter(metrics_directory, name()), slot_status, clock
    )
    sample = ProcessSampler(ProcessMetrics(), name(), observer.tick)
    traces = tracing.start(name())
    slot_status.extend_deadline(clock.now() + MAX_SECONDS)
    member = KafkaSource(
        settings.kafka,
        slot,
        table=read_table_mark(settings),
        flush_seconds=settings.batch.flush_seconds,
        on_queue=metrics.queue_bytes.set,
        on_stall=observer.stalled,
    )
    decoder = choose(settings.worker.decoder)
    shards = ClickHouseShards(
        settings.clickhouse,
        client_name=f"octane-analytics {name()}",
        first=slot,
        traceparent=tracing.traceparent if traces else None,
        on_statement=lambda seconds: slot_status.extend_deadline(clock.now() + seconds),
        on_skip=_report_skipped_shard,
        check=lambda sink, own: check_table(sink, replace(settings, clickhouse=own)),
        sorts_rows=decoder.name == COMPILED,
    )
    dead_letters = KafkaDeadLetters(
        settings.kafka,
        client_id=f"octane-analytics-dlq-{slot}",
        instrumented=traces.instrument_producer if traces else None,
    )
    ingest = IngestLoop(
        member,
        KafkaRangeReader(settings.kafka, client_id=f"octane-analytics-recovery-{slot}"),
        shards,
        dead_letters,
        decoder.decode,
        clock,
        observer,
        _options(settings, processes, confirmation),
        Backoff(_FIRST_BACKOFF_SECONDS, _CAP_BACKOFF_SECONDS),
        traces.batch_tracer(settings.kafka.group_id, headers_of) if traces else None,
    )

    lag_updated_at = 0.0

    def should_stop() -> bool:
        nonlocal lag_updated_at
        now = clock.now()
        slot_status.heartbeat(now)
        sample()
        if now - lag_updated_at >= _LAG_UPDATE_SECONDS:
            lag_updated_at = now
            slot_status.set_lag(member.lag())
        return stop.is_set()

    try:
        is_drained = ingest.run(should_stop, settings.worker.drain_seconds)
    except OctaneError as error:
        _LOG.error("worker gives up", extra=logs.fields(error=str(error)))
        # An operator may fix a grant or a table while the supervisor retries, but not a setting.
        return int(Exit.CONFIG if isinstance(error, ConfigError) else Exit.UNAVAILABLE)
    finally:
        dead_letters.close()
        shards.close()
        if traces is not None:
            traces.stop()
    if not is_drained:
        _LOG.warning("drain timed out; the next owner will insert the rest")
    return int(Exit.OK)


def _report_skipped_shard(shard: str, error: Unavailable) -> None:
    _LOG.warning(
        "shard gets no batch; its turn goes to another one",
        extra=logs.fields(shard=shard, error=str(error)),
    )


def _options(
    settings: Settings, processes: Callable[[], int], confirmation: SharedWord
) -> IngestOptions:
    batch = settings.batch
    return IngestOptions(
        topic=settings.kafka.topic,
        limits=BatchLimits(
            batch.size,
            batch.flush_seconds,
            batch.max_rows,
            batch.max_bytes,
        ),
        delivery=Delivery(batch.delivery),
        inserts_per_second=batch.inserts_per_second,
        processes=processes,
        confirmation=confirmation,
        session_seconds=_session_seconds(settings.kafka.rdkafka),
        dlq_limit=DlqLimitConfig(batch.dlq_max_ratio, batch.dlq_max_consecutive),
        quiet_poll_seconds=min(_QUIET_POLL_SECONDS, batch.flush_seconds / 4),
    )


def _session_seconds(rdkafka: Mapping[str, str]) -> float:
    """Return the session timeout of the group, also where the operator sets it."""
    try:
        return float(rdkafka["session.timeout.ms"]) / 1000
    except (KeyError, ValueError):
        return _SESSION_SECONDS
