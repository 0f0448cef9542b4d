"""`octane-analytics worker`: composes the supervisor, its workers and the metrics process."""

import functools
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from octane_analytics.cli.directories import metrics_directory
from octane_analytics.cli.options import CLICKHOUSE, KAFKA, LOG, setting_options
from octane_analytics.errors import OctaneError
from octane_analytics.exits import Exit, exit_for
from octane_analytics.settings.loading import Loaded
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.arbiter import Arbiter, Child, Role
from octane_analytics.supervisor.ends import CAUSES, WatchedSystem
from octane_analytics.supervisor.states import Policy
from octane_analytics.supervisor.system import PosixSystem, unblock_signals
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry import metrics
from octane_analytics.telemetry.server import bind
from octane_analytics.telemetry.worker_metrics import SupervisorMetrics
from octane_analytics.worker import ROLE, preflight, run_metrics, run_worker

_LOG = logging.getLogger(__name__)
_PREFLIGHT_SECONDS = 60.0
_KILL_MARGIN_SECONDS = 15.0
"""A worker gets this much beyond its own drain deadline to close its clients."""


@click.command()
@setting_options(
    "WORKER_PROCS",
    *KAFKA,
    "KAFKA_GROUP_ID",
    "KAFKA_DLQ_TOPIC",
    *CLICKHOUSE,
    "BATCH_SIZE",
    "FLUSH_INTERVAL",
    "BATCH_MAX_ROWS",
    "BATCH_MAX_BYTES",
    "DELIVERY",
    "DLQ_MAX_RATIO",
    "DLQ_MAX_CONSECUTIVE",
    "WORKER_MAX_BYTES",
    "DRAIN_TIMEOUT",
    "METRICS_HOST",
    "METRICS_PORT",
    "PROMETHEUS_MULTIPROC_DIR",
    *LOG,
    spelled={"WORKER_PROCS": "--procs"},
)
def worker(loaded: Loaded) -> int:
    """Consume events and insert them, in PROCS forked processes.

    SIGTERM or Ctrl-C: every process inserts and commits what it has read, then all exit with 0; a
    second one ends them at once, and what was not finished is finished at the next start. SIGQUIT
    ends them at once.
    """
    settings = loaded.settings
    logs.configure(settings.log.level, settings.log.format, "supervisor")
    listening = bind(settings.metrics.host, settings.metrics.port, "METRICS_PORT")
    system = WatchedSystem()
    system.block_signals()
    code = _preflight(system, settings)
    if code != Exit.OK:
        return code
    with metrics_directory(settings.metrics) as directory:
        for role in (ROLE, "metrics", "supervisor"):
            metrics.remove_files(directory, role)
        metrics.open_directory(directory, metrics.Identity("supervisor", 0))
        restarts = SupervisorMetrics(causes=CAUSES).restarts
        system.on_end = lambda cause: restarts.labels(cause).inc()
        workers = [
            Child(
                f"{ROLE}-{slot}",
                Role.WORKER,
                functools.partial(_run_worker, settings, slot, directory),
            )
            for slot in range(settings.worker.procs)
        ]
        service = Child(
            "metrics",
            Role.SERVICE,
            lambda beat: run_metrics(settings, listening, directory, beat, unblock_signals),
        )
        address = "{}:{}".format(*listening.getsockname()[:2])
        _LOG.info(
            "starting",
            extra=logs.fields(
                procs=settings.worker.procs,
                topic=settings.kafka.topic,
                group=settings.kafka.group_id,
                delivery=settings.batch.delivery,
                metrics=f"http://{address}/metrics",
            ),
        )
        policy = Policy(
            heartbeat_seconds=settings.worker.heartbeat_seconds,
            drain_seconds=settings.worker.drain_seconds + _KILL_MARGIN_SECONDS,
        )
        return Arbiter(system, [service, *workers], policy).run()


def _run_worker(settings: Settings, slot: int, directory: Path, beat: Callable[[], None]) -> int:
    return run_worker(settings, slot, directory, beat, unblock_signals)


def _preflight(system: PosixSystem, settings: Settings) -> int:
    """In a process of its own, so that no client's threads live in the supervisor."""

    def check() -> int:
        unblock_signals()
        # It repeats what the one line at the end says.
        logging.getLogger("librdkafka").setLevel(logging.CRITICAL)
        try:
            preflight(settings)
        except OctaneError as error:
            sys.stderr.write(f"octane-analytics: error: {error}\n")
            sys.stderr.flush()
            return int(exit_for(error))
        return int(Exit.OK)

    pid = system.fork(check)
    deadline = system.now() + _PREFLIGHT_SECONDS
    killed_for: int | None = None
    while True:
        for _, code in system.reap():
            if killed_for is not None:
                return killed_for
            return code if code >= 0 else 128 - code
        number = system.wait_signal(0.5)
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            killed_for = 128 + number
        elif system.now() >= deadline:
            killed_for = int(Exit.UNAVAILABLE)
        if killed_for is not None:
            system.kill(pid, signal.SIGKILL)
