"""The metrics process: serves the shared registry on port 8000 until SIGTERM."""

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.kafka.lag import LagProbe
from octane_analytics.runtime import scheduling
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.periodic import PeriodicThread
from octane_analytics.runtime.stop_signal import StopSignal, drop_supervisor_handlers
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.status_board import SlotStatusWriter
from octane_analytics.telemetry import exposition, shared_directory
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry.dedup_window import DedupWindowCollector
from octane_analytics.telemetry.lag_metrics import LagCollector
from octane_analytics.telemetry.metrics_server import MetricsServer
from octane_analytics.telemetry.process_metrics import ProcessSampler
from octane_analytics.telemetry.worker_metrics import ProcessMetrics
from octane_analytics.worker.process import ROLE

_METRICS_TURN_SECONDS = 2.0


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
    drop_supervisor_handlers()
    stop = StopSignal().install()
    # A Ctrl-C from before it left the terminal's session; the metrics go on until the workers have
    # drained.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scheduling.schedule_first()
    ready()
    name = shared_directory.ProcessName("metrics", 0)
    logs.configure(settings.log.level, settings.log.format, "metrics")
    shared_directory.open_directory(metrics_directory, name)
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
        workers = [shared_directory.ProcessName(ROLE, slot)() for slot in range(procs())]
        return shared_directory.unready(metrics_directory, workers)

    server = MetricsServer(
        listening,
        exposition.Exposition(metrics_directory, lag, dedup),
        missing,
    )
    server.start()
    for watch in watching:
        watch.start()
    while not stop.is_set():
        figures.heartbeat(time.monotonic())
        figures.set_lag(*(lag.total or (None,)))
        sample()
        stop.wait(_METRICS_TURN_SECONDS)
    server.stop()
    for watch in watching:
        watch.stop()
    return int(Exit.OK)
