"""A child program that ends with this process.

Owns one child and its log; does not depend on what the program does.
"""

import contextlib
import functools
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from octane_analytics.sandbox.clickhouse_child import die_with

_TAIL_BYTES = 8192


class Service:
    """One child program in its own process group, so that Ctrl-C goes to the parent only.

    Start it from the main thread. Its output is appended to `log_path`, or goes to this process's
    standard error if that is None.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path | None,
    ) -> None:
        self.name = name
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._log_path = log_path
        self._log_start = 0
        self._is_terminating = False
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program without waiting until it serves. Raise OSError."""
        with contextlib.ExitStack() as stack:
            log = None
            if self._log_path is not None:
                log = stack.enter_context(self._log_path.open("ab"))
                self._log_start = log.tell()
            self._child = subprocess.Popen(
                self._arguments,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log or 2,
                stderr=log or 2,
                process_group=0,
                preexec_fn=functools.partial(die_with, os.getpid()),
            )

    @property
    def exit_code(self) -> int | None:
        """Exit code; None before the start and while it runs, negative for a signal."""
        return None if self._child is None else self._child.poll()

    def terminate(self) -> None:
        """Send SIGTERM once: many programs abort at once on a second one."""
        if self._child is not None and not self._is_terminating:
            self._is_terminating = True
            self._child.terminate()

    def stop(self, deadline: float) -> None:
        """Block until the program ended: SIGTERM, then SIGKILL to its group at monotonic `deadline`."""
        if self._child is None:
            return
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(max(0.0, deadline - time.monotonic()))
        # Also if it has ended by itself: its children may still run.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def tail(self, lines: int) -> str:
        """Return the last lines of this run's log; empty without a log."""
        if self._log_path is None or not self._log_path.exists():
            return ""
        with self._log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(min(self._log_start, end), end - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
