"""gunicorn, embedded: it holds the socket, forks, reaps and replaces; each worker runs the app.

Owns processes and the address; refuses to know routes. Connections, templates' SQL and metrics files are
made after the fork.
"""

import ctypes
import dataclasses
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
from octane_analytics.api.connection_pool import ConnectionPool
from octane_analytics.api.limits import ComplexityLimits, QueryLimits
from octane_analytics.api.middleware.authorization import AccessPolicy, policy_of
from octane_analytics.api.raw_sql import functions
from octane_analytics.api.raw_sql.endpoint import RawSqlEndpoint
from octane_analytics.api.raw_sql.validator import AccessRules
from octane_analytics.api.reports.library import Library, load
from octane_analytics.api.server.app import QUIET, create_app
from octane_analytics.api.server.arbiter import ApiArbiter, give_slot, restore_sigterm
from octane_analytics.api.server.bounded_protocol import with_limits
from octane_analytics.api.server.worker import DRAIN_MARGIN_SECONDS, ApiWorker
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import ConfigError
from octane_analytics.settings.sections import Settings
from octane_analytics.settings.serving import ApiSettings
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.telemetry import api_metrics, exposition, shared_directory, tracing
from octane_analytics.telemetry.logging import adopt, configure, fields
from octane_analytics.telemetry.metrics_server import bind

ROLE = "api"
BACKLOG = 1024
QUERY_GRACE_SECONDS = 5.0
"""How much later than ClickHouse itself this side gives a query up."""
PROBE_SECONDS = 5.0
KEEPALIVE_SECONDS = 30
HANG_SECONDS = 30
"""A worker that is silent for longer is killed. It tells of itself twice in this time."""
_SLOTS_PER_WORKER = 4
"""Old and new ones stand beside each other during a reload, or two."""
_OTHER_DESCRIPTORS = 256
"""ClickHouse, the log, metrics files, what Python has open."""
_PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


def run_api(settings: Settings, metrics_directory: Path, notifier: Notifier) -> int:
    """Serves until SIGTERM, SIGINT or SIGQUIT; the exit code, 0 after one of those.

    SIGTERM and SIGINT let requests under way finish, SIGQUIT does not; SIGHUP replaces the workers,
    the old ones once the new ones answer. Logging is configured by the caller, who takes NOTIFY_SOCKET
    out of the environment. Raises ConfigError, before anything is forked, where the address cannot be
    listened on or may not be without tokens, or where a template, the file of tokens or OpenTelemetry's
    variables are broken.
    Workers end here and do not return.
    """
    tracing.is_configured()  # else each worker would find out, after its fork
    library = read_library(settings)
    policy = policy_of(
        settings.api.tokens_file,
        allow_anonymous=settings.api.allow_anonymous,
        processes=settings.api.workers * _SLOTS_PER_WORKER,
    )
    # gunicorn itself would try for five seconds, logging each time.
    listening = bind(settings.api.host, settings.api.port, "API_PORT", backlog=BACKLOG)
    try:
        _check_access(settings.api, listening.getsockname()[0])
    except ConfigError:
        listening.close()
        raise
    _allow_descriptors(settings.api.max_connections)
    if settings.queries.user is None:
        log.warning(
            "raw SQL runs as CLICKHOUSE_USER: give it a user of its own with CLICKHOUSE_QUERY_USER "
            "(`octane-analytics schema grants` makes one)"
        )
    shared_directory.remove_files(metrics_directory, ROLE)
    arbiter_pid = os.getpid()
    application = _Application(settings, metrics_directory, library, policy, listening.detach())
    try:
        _ConfiguredArbiter(application, notifier).run()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else os.EX_SOFTWARE
        if os.getpid() != arbiter_pid:
            _leave(code)
        return code if code == os.EX_OK else os.EX_SOFTWARE
    return os.EX_OK


def read_library(settings: Settings, before: Library | None = None) -> Library:
    """All templates; what is refused is logged, a line each. Raises ConfigError as `load` does."""
    directory = settings.api.reports_directory
    library = load(
        Path(directory) if directory else None, None if before is None else before.templates
    )
    for line in library.refused:
        log.error("report template refused", extra=fields(error=line))
    if directory:
        log.info(
            "report templates read",
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
            # Here and not in each worker: all of them then have the same, and what a file said before
            # it was broken is still known.
            try:
                self._library = read_library(self._settings, self._library)
            except ConfigError as error:
                log.error("report templates stay as they were", extra=fields(error=str(error)))
        self._is_started = True
        # A request may wait, then run; uvicorn cancels what is left a little before it is killed.
        drain = self._settings.api.queue_seconds + self._settings.api.query_seconds
        chosen: dict[str, Any] = {
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
            "post_fork": self._begin_worker,
            "worker_exit": self._end_worker,
            "child_exit": self._forget_worker,
            "umask": 0o077,
            "worker_tmp_dir": _memory_directory(),
            "control_socket_disable": True,
            "proc_name": "octane-analytics-api",
        }
        for name, value in chosen.items():
            if name in self.cfg.settings:  # not every version of gunicorn has all of them
                self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        """The app of one worker, after its fork."""
        settings = self._settings
        api, clickhouse = settings.api, settings.clickhouse
        patient = dataclasses.replace(
            clickhouse, timeout_seconds=api.query_seconds + QUERY_GRACE_SECONDS
        )
        hasty = dataclasses.replace(clickhouse, timeout_seconds=PROBE_SECONDS)
        name = "octane-analytics api"
        counted = api_metrics.ApiMetrics()
        app = create_app(
            templates=self._library.templates,
            cache_bytes=api.cache_bytes,
            table=TableName(clickhouse.database, clickhouse.table),
            limits=ComplexityLimits(
                seconds=api.query_seconds,
                result_rows=api.max_result_rows,
                result_bytes=api.max_result_bytes,
                memory_bytes=api.max_memory_bytes,
            ),
            pool=ConnectionPool(
                lambda: ClickHouse(patient, client_name=name),
                size=api.threads,
                queue_seconds=api.queue_seconds,
                deadline_seconds=api.query_seconds + QUERY_GRACE_SECONDS,
                on_cancelled=counted.queries_cancelled.inc,
            ),
            probes=ConnectionPool(
                lambda: ClickHouse(hasty, client_name=name),
                size=1,
                queue_seconds=PROBE_SECONDS,
                deadline_seconds=PROBE_SECONDS,
            ),
            queries=_raw_queries(settings, name, counted),
            metrics=counted,
            exposition=exposition.Exposition(self._metrics_directory),
            policy=self.policy,
            cors_origins=api.cors_origins,
        )
        return self._traces.instrument_app(app, QUIET) if self._traces else app

    def _begin_worker(self, arbiter: Any, worker: Any) -> None:
        restore_sigterm()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != arbiter.pid:
            raise SystemExit(os.EX_OK)  # it died before it could take this worker along
        log_settings = self._settings.log
        configure(log_settings.level, log_settings.format, f"{ROLE}-{worker.slot}")
        identity = shared_directory.ProcessName(ROLE, worker.slot)
        shared_directory.open_directory(self._metrics_directory, identity)
        if self.policy.allowances is not None:
            self.policy.allowances.open(worker.slot)
        self._traces = tracing.start(identity())

    def _end_worker(self, arbiter: Any, worker: Any) -> None:
        """In the worker itself, unless it was killed."""
        if self._traces is not None:
            self._traces.stop()

    def _forget_worker(self, arbiter: Any, worker: Any) -> None:
        """In the arbiter, of every worker that has ended."""
        if self.policy.allowances is not None:
            self.policy.allowances.forget(worker.slot)


class _ConfiguredArbiter(ApiArbiter):
    def manage_workers(self) -> None:
        # Once a second or so. A worker that is forked while the file of tokens is broken then has
        # those of the last good one, and not a token that was revoked in between.
        if self.app.policy.tokens is not None:
            self.app.policy.tokens.current(time.monotonic())
        super().manage_workers()


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's lines go where all others go."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        adopt(self.error_log)
        adopt(self.access_log)


def _raw_queries(settings: Settings, name: str, counted: api_metrics.ApiMetrics) -> RawSqlEndpoint:
    api, clickhouse, queries = settings.api, settings.clickhouse, settings.queries
    asking = dataclasses.replace(
        clickhouse, timeout_seconds=api.query_seconds + QUERY_GRACE_SECONDS
    )
    if queries.user is not None:
        asking = dataclasses.replace(asking, user=queries.user, password=queries.password)
    return RawSqlEndpoint(
        ConnectionPool(
            lambda: ClickHouse(asking, client_name=name, is_confined=True),
            size=api.threads,
            queue_seconds=api.queue_seconds,
            deadline_seconds=api.query_seconds + QUERY_GRACE_SECONDS,
            on_cancelled=counted.queries_cancelled.inc,
        ),
        AccessRules(
            TableName(clickhouse.database, clickhouse.table),
            functions.load(queries.functions),
            queries.tables,
        ),
        QueryLimits(
            seconds=api.query_seconds,
            result_rows=api.max_result_rows,
            result_bytes=api.max_result_bytes,
            memory_bytes=api.max_memory_bytes,
            rows_read=queries.max_rows_read,
            bytes_read=queries.max_bytes_read,
            threads=queries.threads,
        ),
        asking.user,
        counted.rows_read.labels("/query").inc,
    )


def _memory_directory() -> str | None:
    """Where a heartbeat's file never waits for a disk; None where there is no such place."""
    shared = "/dev/shm"  # noqa: S108
    return shared if os.path.isdir(shared) and os.access(shared, os.W_OK) else None


def _check_access(api: ApiSettings, address: str) -> None:
    """Raises ConfigError for what would let strangers in without a token."""
    if api.tokens_file is not None or api.allow_anonymous:
        return
    if not is_loopback(address):
        raise ConfigError(
            f"API_HOST is {api.host}, which other machines can reach, and there are no tokens: "
            "make one with `octane-analytics token new NAME --file FILE` and set API_TOKENS_FILE, "
            "or set API_ALLOW_ANONYMOUS=1 to serve reports to everybody; "
            "see `octane-analytics manual access`"
        )
    if "*" in api.cors_origins:
        raise ConfigError(
            "API_CORS_ORIGINS is * and there are no tokens: any page in a browser on this machine "
            "could read everything; list the origins, set API_TOKENS_FILE, or API_ALLOW_ANONYMOUS=1"
        )


def _allow_descriptors(connections: int) -> None:
    """Raises this process's own limit to what its clients may need, as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _leave(code: int) -> NoReturn:
    """Ends a worker without running what its parent's callers have pending."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
