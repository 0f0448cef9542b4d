"""Exit codes, and which of them an exception becomes."""

from enum import IntEnum

from octane_analytics.errors import (
    AssignmentLost,
    ConfigError,
    NeedsOperator,
    OctaneError,
    Unavailable,
)


class Exit(IntEnum):
    """As init scripts have them (7, LSB), from 64 on as in sysexits.h, from 128 on as a shell reports a
    signal: systemd knows the names."""

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
    Exit.FAILED: "done in part: something differs, failed or was refused",
    Exit.USAGE: "the command line is wrong",
    Exit.NOT_RUNNING: "no worker could be started, every one ended again: see the log",
    Exit.UNAVAILABLE: "Kafka or ClickHouse cannot be reached: try again later",
    Exit.INTERNAL: "a fault in this program",
    Exit.CONFIG: "a setting, a right or the table is wrong: mend it first",
    Exit.INTERRUPTED: "ended by Ctrl-C (SIGINT) before it was done",
    Exit.TERMINATED: "ended by SIGTERM before it was done",
}


def exit_for(error: OctaneError) -> Exit:
    """What the caller of the command is to do next, as the branches of `errors` have it."""
    match error:
        case ConfigError() | NeedsOperator():
            return Exit.CONFIG
        case Unavailable() | AssignmentLost():
            return Exit.UNAVAILABLE
    return Exit.FAILED
