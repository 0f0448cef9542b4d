"""A program that runs beside this process and ends with it.

Owns one child, its log and its end; refuses to know what the program does.
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
    """Started from the main thread, in a process group of its own: Ctrl-C is for the parent.

    Its output goes to the end of `log_path`, or to this process's standard error where that is None.
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
        self._is_asked = False
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once the program runs, which says nothing of whether it serves. Raises OSError."""
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
        """None while it runs or before it was started; negative for a signal."""
        return None if self._child is None else self._child.poll()

    def terminate(self) -> None:
        """SIGTERM, once: to many programs a second one means to drop everything."""
        if self._child is not None and not self._is_asked:
            self._is_asked = True
            self._child.terminate()

    def stop(self, deadline: float) -> None:
        """SIGTERM, and from the monotonic `deadline` on SIGKILL for its whole group; then reaps."""
        if self._child is None:
            return
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(max(0.0, deadline - time.monotonic()))
        # Also when it has ended by itself: its own children may not have.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def tail(self, lines: int) -> str:
        """The last lines of this run's log; empty where there is no log."""
        if self._log_path is None or not self._log_path.exists():
            return ""
        with self._log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(min(self._log_start, end), end - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
