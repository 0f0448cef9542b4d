"""`octane-analytics worker`: composes the supervisor, its workers and the metrics process."""

import functools
import logging
import os
import signal

import click

from octane_analytics.cli.directories import (
    control_socket,
    make_own,
    metrics_directory,
    own_directory,
)
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import CLICKHOUSE, KAFKA, LOG, setting_options
from octane_analytics.errors import ConfigError
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
from octane_analytics.telemetry import shared_directory
from octane_analytics.telemetry.metrics_server import bind
from octane_analytics.telemetry.supervisor_metrics import SupervisorMetrics
from octane_analytics.worker.preflight_process import check_at_start
from octane_analytics.worker.process import ROLE
from octane_analytics.worker.process_plan import process_plan
from octane_analytics.worker.reload import SettingsReload

_LOG = logging.getLogger(__name__)
_PREFLIGHT_SECONDS = 60.0
_SLOTS = 1025
"""Workers and the metrics process; the memory is taken as it is used."""


@click.command(cls=Command)
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
    "CONTROL_SOCKET",
    "METRICS_HOST",
    "METRICS_PORT",
    "PROMETHEUS_MULTIPROC_DIR",
    *LOG,
    own=("worker",),
    rereads=True,
)
def worker(loaded: Loaded, reread: EnvironmentReload) -> int:
    """Consume events and insert them, in PROCS forked processes.

    SIGTERM or Ctrl-C: every process inserts and commits what it has read, then all exit with 0; a
    second one ends them at once, and what was not finished is finished at the next start. SIGQUIT
    ends them at once. SIGHUP reads the settings again (`octane-analytics --env-file FILE worker`) and
    replaces one process after the other; SIGTTIN and SIGTTOU start and end one; SIGUSR1 puts into the
    log what `octane-analytics status` shows.
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
            shared_directory.remove_files(directory, role)
        shared_directory.open_directory(directory, shared_directory.ProcessName("supervisor", 0))
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
    """Without it everything works but `octane-analytics status`: no reason not to start."""
    path = control_socket(settings, os.environ)
    if path is None:
        return None
    control = ControlSocket(path)
    try:
        if path.parent == own_directory():
            make_own(path.parent)
        control.open()
    except ConfigError as error:
        if settings.worker.control_socket is not None:
            raise
        _LOG.warning(
            "no control socket: `status` finds nobody", extra=logs.fields(error=str(error))
        )
        return None
    return control


def _preflight(system: PosixSystem, settings: Settings) -> int:
    """In a process of its own, so that no client's threads live in the supervisor."""
    pid = system.fork("check", lambda: check_at_start(settings))
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
