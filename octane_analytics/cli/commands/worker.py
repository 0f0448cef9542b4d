"""`octane-analytics worker`: compose and run the supervisor, its workers and the metrics process."""

import functools
import logging
import os
import signal

import click

from octane_analytics.cli.directories import (
    control_socket,
    make_user_directory,
    metrics_directory,
    user_directory,
)
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import CLICKHOUSE, KAFKA, LOG, setting_options
from octane_analytics.errors import ConfigError
from octane_analytics.events.decoders import choose
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.loading import Loaded
from octane_analytics.settings.reload import EnvironmentReload
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.arbiter import Supervisor
from octane_analytics.supervisor.control_socket import ControlSocket
from octane_analytics.supervisor.exit_causes import CAUSES
from octane_analytics.supervisor.posix import PosixSystem, set_process_title
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.supervisor.status_board import StatusBoard
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry import metrics_files
from octane_analytics.telemetry.metrics_server import bind
from octane_analytics.telemetry.supervisor_metrics import SupervisorMetrics
from octane_analytics.worker.preflight_process import check_at_start
from octane_analytics.worker.process import ROLE
from octane_analytics.worker.process_plan import process_plan
from octane_analytics.worker.reload import SettingsReload

_LOG = logging.getLogger(__name__)
_PREFLIGHT_SECONDS = 60.0
_SLOTS = 1025
"""Rows of the status board: workers and the metrics process; memory is allocated on first use."""


@click.command(cls=Command)
@setting_options(
    "WORKER_PROCS",
    *KAFKA,
    "KAFKA_GROUP_ID",
    "KAFKA_DLQ_TOPIC",
    *CLICKHOUSE,
    "BATCH_SIZE",
    "FLUSH_INTERVAL",
    "INSERTS_PER_SECOND",
    "BATCH_MAX_ROWS",
    "BATCH_MAX_BYTES",
    "DELIVERY",
    "DLQ_MAX_RATIO",
    "DLQ_MAX_CONSECUTIVE",
    "DECODER",
    "DRAIN_TIMEOUT",
    "CONTROL_SOCKET",
    "METRICS_HOST",
    "METRICS_PORT",
    "PROMETHEUS_MULTIPROC_DIR",
    *LOG,
    own_sections=("worker",),
    should_reload=True,
)
def worker(loaded: Loaded, reread: EnvironmentReload) -> int:
    """Consume events and insert them into ClickHouse, in PROCS forked processes.

    On SIGTERM or Ctrl-C every process inserts and commits the events it has read, then all exit with 0;
    a second signal ends them at once, and the next start completes their inserts. SIGQUIT ends them at
    once. SIGHUP reloads the settings (`octane-analytics --env-file FILE worker`) and replaces one
    process after the other. SIGTTIN starts one more process, SIGTTOU stops one. SIGUSR1 logs the output
    of `octane-analytics status`.
    """
    settings = loaded.settings
    set_process_title("supervisor")
    logs.configure(settings.log.level, settings.log.format, "supervisor")
    listening = bind(settings.metrics.host, settings.metrics.port, "METRICS_PORT")
    system = PosixSystem()
    system.block_signals()
    code = _preflight(system, settings)
    if code != Exit.OK:
        return code
    with metrics_directory(settings.metrics) as directory:
        for role in (ROLE, "metrics", "supervisor"):
            metrics_files.remove_files(directory, role)
        metrics_files.open_directory(directory, metrics_files.ProcessName("supervisor", 0))
        restarts = SupervisorMetrics(causes=CAUSES).restarts
        board = StatusBoard(_SLOTS)
        make_plan = functools.partial(
            process_plan, listening=listening, directory=directory, board=board
        )
        control = _open_control(settings)
        address = "{}:{}".format(*listening.getsockname()[:2])
        _LOG.info(
            "starting",
            extra=logs.fields(
                procs=settings.worker.procs,
                topic=settings.kafka.topic,
                group=settings.kafka.group_id,
                delivery=settings.batch.delivery,
                decoder=choose(settings.worker.decoder).name,
                metrics=f"http://{address}/metrics",
                control=str(control.path) if control else None,
            ),
        )
        arbiter = Supervisor(
            system,
            make_plan(settings),
            board,
            notifier=Notifier(os.environ, os.getpid()),
            control=control,
            read_plan_change=SettingsReload(settings, reread, make_plan),
            on_unexpected_exit=lambda cause: restarts.labels(cause).inc(),
        )
        try:
            return arbiter.run()
        finally:
            if control is not None:
                control.close()


def _open_control(settings: Settings) -> ControlSocket | None:
    """Return the open control socket, or None.

    None if CONTROL_SOCKET is none or, with a warning, if the default socket cannot be opened. Only
    `octane-analytics status` needs it, so a missing default socket does not prevent the start.
    """
    path = control_socket(settings, os.environ)
    if path is None:
        return None
    control = ControlSocket(path)
    try:
        if path.parent == user_directory():
            make_user_directory(path.parent)
        control.open()
    except ConfigError as error:
        if settings.worker.control_socket is not None:
            raise
        _LOG.warning(
            "control socket not opened; `octane-analytics status` is not available",
            extra=logs.fields(error=str(error)),
        )
        return None
    return control


def _preflight(system: PosixSystem, settings: Settings) -> int:
    """Return the exit code of the checks, run in a process of their own.

    A fork of the supervisor must not inherit the threads of Kafka's and ClickHouse's clients. Blocks for
    60 seconds at most, or until a signal.
    """
    pid = system.fork("check", lambda: check_at_start(settings))
    deadline = system.now() + _PREFLIGHT_SECONDS
    forced_code: int | None = None
    while True:
        for _, code in system.reap():
            if forced_code is not None:
                return forced_code
            return code if code >= 0 else 128 - code
        number = system.wait_signal(0.5)
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            forced_code = 128 + number
        elif system.now() >= deadline:
            forced_code = int(Exit.UNAVAILABLE)
        if forced_code is not None:
            system.kill(pid, signal.SIGKILL)
