"""Preflight in a forked process, for the start and for a reload: the supervisor creates no client."""

import logging
import signal
import sys

from octane_analytics.errors import OctaneError
from octane_analytics.runtime.exit_codes import Exit, exit_for
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.posix import unblock_signals
from octane_analytics.telemetry import logging as logs
from octane_analytics.worker.preflight import preflight

_LOG = logging.getLogger(__name__)


def check_at_reload(settings: Settings) -> int:
    """Run the preflight of a reload and log an error; return the exit code."""
    _ignore_supervisor_signals()
    logs.configure(settings.log.level, settings.log.format, "check")
    try:
        preflight(settings)
    except OctaneError as error:
        _LOG.error("preflight with the new settings failed", extra=logs.fields(error=str(error)))
        return int(exit_for(error))
    return int(Exit.OK)


def check_at_start(settings: Settings) -> int:
    """Run the preflight of the start and print an error to standard error; return the exit code."""
    _ignore_supervisor_signals()
    # librdkafka's log repeats the error that is printed below.
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)
    try:
        preflight(settings)
    except OctaneError as error:
        sys.stderr.write(f"octane-analytics: error: {error}\n")
        sys.stderr.flush()
        return int(exit_for(error))
    return int(Exit.OK)


def _ignore_supervisor_signals() -> None:
    """Leave signals to the supervisor, which kills a check itself, even after a Ctrl-C to the group."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    unblock_signals()
