"""Metrics process: serves the metrics of all processes on METRICS_PORT until SIGTERM."""

import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import OctaneError
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.group_conflicts import ConflictWatch
from octane_analytics.kafka.lag import LagProbe
from octane_analytics.kafka.ownerless_partitions import OwnerlessPartitionsWatch, rebalance_group
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.runtime import scheduling
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.periodic import PeriodicThread
from octane_analytics.runtime.stop_signal import StopSignal, drop_supervisor_handlers
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.status_board import SlotStatusWriter
from octane_analytics.telemetry import exposition, metrics_files
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry.dedup_window import DedupWindowCollector
from octane_analytics.telemetry.lag_metrics import LagCollector
from octane_analytics.telemetry.metrics_server import MetricsServer
from octane_analytics.telemetry.process_metrics import ProcessMetrics, ProcessSampler
from octane_analytics.worker.process import ROLE
from octane_analytics.worker.table_mark import cached_table_mark
from octane_analytics.worker.view_watch import ViewWatch

_LOG = logging.getLogger(__name__)
_UPDATE_SECONDS = 2.0
_GROUP_SECONDS = 15.0
_VIEW_SECONDS = 60.0


def run_metrics(
    settings: Settings,
    listening: socket.socket,
    metrics_directory: Path,
    slot_status: SlotStatusWriter,
    ready: Callable[[], None],
    procs: Callable[[], int],
) -> int:
    """Serve the shared metrics until SIGTERM; return the exit code. Blocks.

    `procs` returns the current target number of workers.
    """
    drop_supervisor_handlers()
    stop = StopSignal().install()
    # Ctrl-C may arrive before this process leaves the terminal's session; metrics are served until the
    # workers have drained.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scheduling.schedule_first()
    ready()
    name = metrics_files.ProcessName("metrics", 0)
    logs.configure(settings.log.level, settings.log.format, "metrics")
    metrics_files.open_directory(metrics_directory, name)
    sample = ProcessSampler(ProcessMetrics(), name())
    probe = LagProbe(settings.kafka, client_id="octane-analytics-lag")
    clickhouse = ClickHouse(settings.clickhouse, client_name="octane-analytics metrics")

    def dedup_window() -> int | None:
        live = clickhouse.describe()
        return None if live is None else live.window

    lag, dedup = LagCollector(probe.measure), DedupWindowCollector(dedup_window)
    group = ConsumerGroupAdmin(settings.kafka, client_id="octane-analytics-lag")
    conflicts = ConflictWatch(
        group, settings.kafka.group_id, cached_table_mark(settings), _LOG.error
    )
    owners = OwnerlessPartitionsWatch(
        group,
        settings.kafka.topic,
        lambda: rebalance_group(settings.kafka, client_id="octane-analytics-rebalance"),
        _LOG.warning,
    )

    def watch_group() -> float:
        with contextlib.suppress(OctaneError):  # the lag's updates report an outage
            conflicts.look()
            owners.look()
        return _GROUP_SECONDS

    def update_lag() -> float:
        pause_seconds = lag.update()
        slot_status.set_lag(*(lag.total or (None,)))
        return pause_seconds

    lag_thread = PeriodicThread("lag", update_lag, probe.close)
    lag.request_update = lag_thread.wake
    updaters = [
        PeriodicThread("group", watch_group, group.close, first_seconds=_GROUP_SECONDS),
        lag_thread,
        PeriodicThread("window", dedup.update, clickhouse.close),
    ]

    if settings.batch.delivery == Delivery.EXACTLY_ONCE.value:
        updaters.append(_view_thread(settings))

    def readiness_problems() -> list[str]:
        workers = [metrics_files.ProcessName(ROLE, slot)() for slot in range(procs())]
        return metrics_files.readiness_problems(metrics_directory, workers)

    server = MetricsServer(
        listening,
        exposition.Exposition(metrics_directory, lag, dedup),
        readiness_problems,
    )
    server.start()
    for updater in updaters:
        updater.start()
    while not stop.is_set():
        slot_status.heartbeat(time.monotonic())
        sample()
        stop.wait(_UPDATE_SECONDS)
    server.stop()
    for updater in updaters:
        updater.stop()
    return int(Exit.OK)


def _view_thread(settings: Settings) -> PeriodicThread:
    # Of its own: a connection is used by one thread.
    clickhouse = ClickHouse(settings.clickhouse, client_name="octane-analytics views")

    def report(problem: str) -> None:
        _LOG.error("materialized view may count events twice", extra=logs.fields(why=problem))

    servers = settings.clickhouse.topology().replicas
    watch = ViewWatch(clickhouse, report, servers=servers)

    def look() -> float:
        with contextlib.suppress(OctaneError):  # the window's updates report an outage
            watch.look()
        return _VIEW_SECONDS

    return PeriodicThread("views", look, clickhouse.close, first_seconds=_VIEW_SECONDS)
