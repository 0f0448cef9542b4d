"""Exit codes of the commands, and the exit code of each exception."""

from enum import IntEnum

from octane_analytics.errors import (
    AssignmentLost,
    ConfigError,
    NeedsOperator,
    OctaneError,
    Unavailable,
)


class Exit(IntEnum):
    """Exit codes, with names that systemd prints.

    7 is that of LSB init scripts; those from 64 on are of sysexits.h, those from 128 on are
    what a shell reports for a signal.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 7
    UNAVAILABLE = 69
    INTERNAL = 70
    CONFIG = 78
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "done in part: a difference, a failure or a rejection was reported",
    Exit.USAGE: "invalid command line",
    Exit.NOT_RUNNING: "no worker could be started, each one exited again: see the log",
    Exit.UNAVAILABLE: "Kafka or ClickHouse cannot be reached: try again later",
    Exit.INTERNAL: "internal error of this program",
    Exit.CONFIG: "a setting, a right or the table is wrong: fix it first",
    Exit.INTERRUPTED: "interrupted by Ctrl-C (SIGINT) before it was done",
    Exit.TERMINATED: "stopped by SIGTERM before it was done",
}


def exit_for(error: OctaneError) -> Exit:
    """Return the exit code of an error, by its branch of `errors`."""
    match error:
        case ConfigError() | NeedsOperator():
            return Exit.CONFIG
        case Unavailable() | AssignmentLost():
            return Exit.UNAVAILABLE
    return Exit.FAILED
