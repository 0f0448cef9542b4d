"""Becomes the command given: `python -m ... COMMAND ARGUMENTS PARENT_PID`, and ends with PARENT_PID."""

import os
import sys

from octane_analytics.sandbox.clickhouse_child import die_with


def main() -> None:
    *command, parent_pid = sys.argv[1:]
    die_with(int(parent_pid))
    os.execv(command[0], command)  # noqa: S606  it has to stay this process


if __name__ == "__main__":
    main()
