"""Life cycle of an engine in a child process (start, stop, kill, pause), and its choice of ports.

Does not depend on what the engine serves.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, Self

HOST = "127.0.0.1"
# Below the ports that Linux (from 32768) and macOS (from 49152) assign to outgoing connections. Such a
# port could be taken while the server is down, even by a client that retries: a connection to a closed
# loopback port of that range can connect to itself.
PORT_RANGE = range(18_000, 32_000)


class EngineError(RuntimeError):
    """An engine did not start or does not respond; the message has the reason and the end of its log."""


class Engine(ABC):
    """Life cycle of one child process that serves until its standard input closes.

    As a context manager: started on entry, stopped on exit. Not thread-safe.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child; None if it is not running."""
        return None if self._child is None or self._child.poll() is not None else self._child.pid

    @abstractmethod
    def start(self, timeout_seconds: float = 30.0) -> None:
        """Block until the engine serves, or raise EngineError."""

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Block until the engine ended: close its input, SIGTERM after half the time, then SIGKILL.

        Does nothing if it is not running.
        """
        child, self._child = self._child, None
        if child is None:
            return
        _close_pipes(child)
        for last_resort in (child.terminate, child.kill):
            child.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout_seconds / 2)
                return
            last_resort()
        child.wait(timeout_seconds)

    def kill(self) -> None:
        """Send SIGKILL and reap the child. Does nothing if it is not running."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait(10.0)
            _close_pipes(child)

    def restart(self, timeout_seconds: float = 30.0) -> None:
        """Stop, then start again as it was constructed."""
        self.stop(timeout_seconds)
        self.start(timeout_seconds)

    def pause(self) -> None:
        """Send SIGSTOP: connections stay open without a response."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT after `pause`."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        if self._child is None:
            raise EngineError("not running")
        self._child.send_signal(number)

    def _spawn(
        self, module: str, *arguments: str, stdout: IO[bytes] | int, stderr: IO[bytes]
    ) -> None:
        """Run `python -m module arguments... PARENT_PID` with a pipe as its standard input."""
        # The kernel ties the death signal to the thread that spawns, not to its process: an engine
        # started from another thread would end with that thread.
        is_main = threading.current_thread() is threading.main_thread()
        packages = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
        search_path = os.pathsep.join(filter(None, packages))
        parent = str(os.getpid() if is_main else 0)
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments, parent],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | {"PYTHONPATH": search_path},
            process_group=0,  # Ctrl-C in the terminal goes to the parent only
        )
        _close_pipes_in_forks(self._child)


def is_free(port: int) -> bool:
    """Return whether a server can bind the TCP port on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(*others: int) -> int:
    """Return an unused port of PORT_RANGE, none of the given ones. Raise EngineError if all are used."""
    candidates = random.SystemRandom().sample(PORT_RANGE, 100)
    port = next((n for n in candidates if n not in others and is_free(n)), None)
    if port is None:
        raise EngineError(f"no free port found in {PORT_RANGE} on {HOST}")
    return port


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            # A write that the child never read may still be buffered.
            with contextlib.suppress(OSError):
                pipe.close()


def _close_pipes_in_forks(child: subprocess.Popen[bytes]) -> None:
    """Close the pipe in forks of this process, which would otherwise keep the server running.

    Spawned programs do not inherit the pipe, but a fork copies every descriptor.
    """
    reference = weakref.ref(child)

    def close_pipes() -> None:
        if (spawned := reference()) is not None:
            _close_pipes(spawned)

    os.register_at_fork(after_in_child=close_pipes)
