"""`octane-analytics api`: serve reports and queries over HTTP."""

import os

import click

from octane_analytics.api.server.run import run_api
from octane_analytics.cli import options
from octane_analytics.cli.directories import metrics_directory
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import setting_options
from octane_analytics.settings.loading import Loaded
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.telemetry.logging import configure


@click.command(cls=Command)
@setting_options(
    "API_HOST",
    "API_PORT",
    "API_WORKERS",
    "API_THREADS",
    "API_QUEUE_TIMEOUT",
    "API_QUERY_TIMEOUT",
    "API_MAX_REQUESTS",
    "API_MAX_REQUESTS_JITTER",
    "API_MAX_RESULT_ROWS",
    "API_MAX_RESULT_BYTES",
    "API_MAX_MEMORY_BYTES",
    "API_CACHE_BYTES",
    "REPORTS_DIR",
    "API_TOKENS_FILE",
    "API_ALLOW_ANONYMOUS",
    "API_CORS_ORIGINS",
    "API_RECEIVE_TIMEOUT",
    "API_SEND_TIMEOUT",
    "API_MAX_CONNECTIONS",
    "CLICKHOUSE_QUERY_USER",
    "API_QUERY_TABLES",
    "API_QUERY_FUNCTIONS",
    "API_QUERY_MAX_ROWS_READ",
    "API_QUERY_MAX_BYTES_READ",
    "API_QUERY_MAX_THREADS",
    *options.CLICKHOUSE,
    "PROMETHEUS_MULTIPROC_DIR",
    *options.LOG,
    own_sections=("api",),
)
def api(loaded: Loaded) -> int:
    """Serve reports and queries over HTTP.

    Runs in the foreground until SIGTERM or Ctrl-C, which finish running requests first. SIGHUP replaces
    the processes; the old ones exit once the new ones are ready. Without tokens the API listens on
    loopback addresses only: see `octane-analytics token --help`.
    """
    settings = loaded.settings
    configure(settings.log.level, settings.log.format, "api")
    notifier = Notifier(os.environ, os.getpid())
    # gunicorn would send READY=1 before it has forked a worker.
    os.environ.pop("NOTIFY_SOCKET", None)
    with metrics_directory(settings.metrics) as directory:
        return run_api(settings, directory, notifier)
