"""Runs the API: embedded gunicorn, which owns the socket and the worker processes.

Does not depend on routes. ClickHouse connections, metrics files and the application are created after
the fork.
"""

import ctypes
import logging
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from starlette.types import ASGIApp

from octane_analytics.api.auth.callers import is_loopback
from octane_analytics.api.middleware.authorization import AccessPolicy, load_policy
from octane_analytics.api.reports.library import Library, load
from octane_analytics.api.server.app import QUIET_ROUTES
from octane_analytics.api.server.arbiter import ApiArbiter, give_slot, restore_sigterm
from octane_analytics.api.server.bounded_protocol import with_limits
from octane_analytics.api.server.composition import QUERY_GRACE_SECONDS, compose_app
from octane_analytics.api.server.worker import DRAIN_MARGIN_SECONDS, ApiWorker
from octane_analytics.errors import ConfigError
from octane_analytics.settings.sections import Settings
from octane_analytics.settings.serving import ApiSettings
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.telemetry import metrics_files, tracing
from octane_analytics.telemetry.logging import adopt, configure, fields
from octane_analytics.telemetry.metrics_server import bind

ROLE = "api"
BACKLOG = 1024
KEEPALIVE_SECONDS = 30
HANG_SECONDS = 30
"""A worker without a heartbeat for this time is killed. It sends two in this time."""
_SLOTS_PER_WORKER = 4
"""Old and new workers coexist during a reload, or two."""
_OTHER_DESCRIPTORS = 256
"""Descriptors for ClickHouse, the log, metrics files and Python itself."""
_PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


def run_api(settings: Settings, metrics_directory: Path, notifier: Notifier) -> int:
    """Serve until SIGTERM, SIGINT or SIGQUIT; return the exit code, 0 after one of these.

    SIGTERM and SIGINT let requests in progress finish, SIGQUIT does not; SIGHUP replaces the workers,
    each old one after its successor responds. The caller configures logging and removes NOTIFY_SOCKET
    from the environment. Raises ConfigError, before any fork, if the address cannot be listened on or
    may not be without tokens, or if a template, the token file or OpenTelemetry's variables are
    invalid. Workers exit in here and do not return.
    """
    tracing.is_configured()  # invalid variables are reported before the fork
    library = read_library(settings)
    policy = load_policy(
        settings.api.tokens_file,
        allow_anonymous=settings.api.allow_anonymous,
        processes=settings.api.workers * _SLOTS_PER_WORKER,
    )
    # gunicorn itself would try for five seconds, logging each time.
    listening = bind(settings.api.host, settings.api.port, "API_PORT", backlog=BACKLOG)
    try:
        _check_exposure(settings.api, listening.getsockname()[0])
    except ConfigError:
        listening.close()
        raise
    _allow_descriptors(settings.api.max_connections)
    if settings.queries.user is None:
        log.warning(
            "raw SQL runs as CLICKHOUSE_USER; set CLICKHOUSE_QUERY_USER to a separate user "
            "(`octane-analytics schema grants` creates one)"
        )
    metrics_files.remove_files(metrics_directory, ROLE)
    arbiter_pid = os.getpid()
    application = _Application(settings, metrics_directory, library, policy, listening.detach())
    try:
        _ConfiguredArbiter(application, notifier).run()
    except SystemExit as exit_request:
        code = exit_request.code if isinstance(exit_request.code, int) else os.EX_SOFTWARE
        if os.getpid() != arbiter_pid:
            _exit_worker(code)
        return code if code == os.EX_OK else os.EX_SOFTWARE
    return os.EX_OK


def read_library(settings: Settings, previous: Library | None = None) -> Library:
    """Return all templates; log each rejected one. Raises ConfigError as `load` does."""
    directory = settings.api.reports_directory
    library = load(
        Path(directory) if directory else None, None if previous is None else previous.templates
    )
    for line in library.refused:
        log.error("report template rejected", extra=fields(error=line))
    if directory:
        log.info(
            "report templates loaded",
            extra=fields(templates=len(library.templates), refused=len(library.refused)),
        )
    return library


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(
        self,
        settings: Settings,
        metrics_directory: Path,
        library: Library,
        policy: AccessPolicy,
        descriptor: int,
    ) -> None:
        self._settings = settings
        self._metrics_directory = metrics_directory
        self._library = library
        self._is_started = False
        self._descriptor = descriptor
        self._traces: tracing.Tracing | None = None
        self.policy = policy
        self.protocol = with_limits(
            receive_seconds=settings.api.receive_seconds,
            send_seconds=settings.api.send_seconds,
            max_connections=settings.api.max_connections,
        )
        super().__init__()

    def load_config(self) -> None:
        """Called at the start and after each SIGHUP, before workers are forked."""
        if self._is_started:
            # Here and not in each worker, so that all have the same templates, and the last valid
            # version of a file that is now invalid is still known.
            try:
                self._library = read_library(self._settings, self._library)
            except ConfigError as error:
                log.error(
                    "report templates not reloaded; the previous ones stay in use",
                    extra=fields(error=str(error)),
                )
        self._is_started = True
        # A request may queue, then run; uvicorn cancels the rest shortly before it would be killed.
        drain = self._settings.api.queue_seconds + self._settings.api.query_seconds
        options: dict[str, Any] = {
            "bind": f"fd://{self._descriptor}",
            "backlog": BACKLOG,
            "workers": self._settings.api.workers,
            "worker_class": ApiWorker,
            "logger_class": _Logger,
            "loglevel": self._settings.log.level,
            "preload_app": False,
            "max_requests": self._settings.api.max_requests,
            "max_requests_jitter": self._settings.api.max_requests_jitter,
            "graceful_timeout": math.ceil(drain + QUERY_GRACE_SECONDS + DRAIN_MARGIN_SECONDS),
            "keepalive": KEEPALIVE_SECONDS,
            "timeout": HANG_SECONDS,
            "pre_fork": give_slot,
            "post_fork": self._init_worker,
            "worker_exit": self._end_worker,
            "child_exit": self._forget_worker,
            "umask": 0o077,
            "worker_tmp_dir": _memory_directory(),
            "control_socket_disable": True,
            "proc_name": "octane-analytics-api",
        }
        for name, value in options.items():
            if name in self.cfg.settings:  # not every version of gunicorn has all of them
                self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        """Return the application of one worker; called after its fork."""
        app = compose_app(
            self._settings,
            templates=self._library.templates,
            policy=self.policy,
            metrics_directory=self._metrics_directory,
            is_draining=lambda: self.protocol.is_draining,
        )
        return self._traces.instrument_app(app, QUIET_ROUTES) if self._traces else app

    def _init_worker(self, arbiter: Any, worker: Any) -> None:
        restore_sigterm()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != arbiter.pid:
            raise SystemExit(os.EX_OK)  # the arbiter died before the prctl took effect
        log_settings = self._settings.log
        configure(log_settings.level, log_settings.format, f"{ROLE}-{worker.slot}")
        identity = metrics_files.ProcessName(ROLE, worker.slot)
        metrics_files.open_directory(self._metrics_directory, identity)
        if self.policy.rate_limiter is not None:
            self.policy.rate_limiter.attach_process(worker.slot)
        self._traces = tracing.start(identity())

    def _end_worker(self, arbiter: Any, worker: Any) -> None:
        """Called in the worker itself, unless it was killed."""
        if self._traces is not None:
            self._traces.stop()

    def _forget_worker(self, arbiter: Any, worker: Any) -> None:
        """Called in the arbiter for every worker that has exited."""
        if self.policy.rate_limiter is not None:
            self.policy.rate_limiter.forget_process(worker.slot)


class _ConfiguredArbiter(ApiArbiter):
    def manage_workers(self) -> None:
        # About once a second. A worker that is forked while the token file is invalid then has the
        # tokens of its last valid version, without those that were revoked earlier.
        if self.app.policy.tokens is not None:
            self.app.policy.tokens.current(time.monotonic())
        super().manage_workers()


class _Logger(Logger):  # type: ignore[misc]
    """Sends gunicorn's log lines to this service's log."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        adopt(self.error_log)
        adopt(self.access_log)


def _memory_directory() -> str | None:
    """Return a directory in memory, where heartbeats never wait for a disk; None if there is none."""
    shared = "/dev/shm"  # noqa: S108
    return shared if os.path.isdir(shared) and os.access(shared, os.W_OK) else None


def _check_exposure(api: ApiSettings, address: str) -> None:
    """Raise ConfigError for settings that would serve other machines without tokens."""
    if api.tokens_file is not None or api.allow_anonymous:
        return
    if not is_loopback(address):
        raise ConfigError(
            f"API_HOST is {api.host}, which other machines can reach, and no tokens are configured: "
            "create one with `octane-analytics token new NAME --file FILE` and set API_TOKENS_FILE, "
            "or set API_ALLOW_ANONYMOUS=1 to serve reports to everybody; "
            "see `octane-analytics manual access`"
        )
    if "*" in api.cors_origins:
        raise ConfigError(
            "API_CORS_ORIGINS is * and no tokens are configured: any page in a browser on this machine "
            "could read everything; list the origins, set API_TOKENS_FILE or API_ALLOW_ANONYMOUS=1"
        )


def _allow_descriptors(connections: int) -> None:
    """Raise this process's soft limit of descriptors to what its clients need, up to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _exit_worker(code: int) -> NoReturn:
    """Exit a worker without running the parent's pending cleanup."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
