"""The local socket over which `octane-analytics status` asks the supervisor: no threads, no waiting.

A client sends one line and gets one line of JSON. Only the supervisor's own user and root are heard:
the file has mode 0600, and the kernel tells whose process has connected (SO_PEERCRED, unix(7)).
"""

import contextlib
import os
import select
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from octane_analytics.errors import ConfigError

FILE_NAME = "worker.sock"
QUESTION = b"status\n"
_CLIENTS = 16
_CLIENT_SECONDS = 5.0
_CREDENTIALS = struct.Struct("iII")


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    deadline: float
    asked: bytes = b""
    left: bytes | None = None
    """Of the answer; None before the question has come."""


@dataclass(slots=True)
class ControlSocket:
    """Listens from `open` to `close`. `turn` does what can be done without waiting."""

    path: Path
    _listening: socket.socket | None = None
    _owner: int = 0
    _clients: list[_Client] = field(default_factory=list)

    def open(self) -> None:
        """Raises ConfigError where another process listens there or the file cannot be made."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._remove_stale()
            # The mode is there from the first moment: nothing else of this process makes files now.
            before = os.umask(0o177)
            try:
                listening.bind(str(self.path))
            finally:
                os.umask(before)
            listening.listen(_CLIENTS)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"CONTROL_SOCKET: cannot listen on {self.path}: {error.strerror or error}; "
                "set another path"
            ) from error
        except ConfigError:
            listening.close()
            raise
        self._listening, self._owner = listening, os.getpid()

    def _remove_stale(self) -> None:
        try:
            is_socket = stat.S_ISSOCK(self.path.lstat().st_mode)
        except FileNotFoundError:
            return
        if not is_socket:
            raise ConfigError(
                f"CONTROL_SOCKET: {self.path} is there and no socket: set another path"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                self.path.unlink(missing_ok=True)  # its supervisor was killed
                return
        raise ConfigError(
            f"CONTROL_SOCKET: another supervisor listens on {self.path}: set another path"
        )

    def close(self) -> None:
        """Also in a child, which has no business with it: the file stays its parent's."""
        for client in self._clients:
            client.connection.close()
        self._clients.clear()
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            if os.getpid() == self._owner:
                self.path.unlink(missing_ok=True)

    def descriptors(self) -> list[tuple[int, int]]:
        """What to wait for, as poll(2) takes it."""
        wanted = [
            (c.connection.fileno(), select.POLLIN if c.left is None else select.POLLOUT)
            for c in self._clients
        ]
        if self._listening is not None and len(self._clients) < _CLIENTS:
            wanted.append((self._listening.fileno(), select.POLLIN))
        return wanted

    def turn(self, now: float, answer: Callable[[], str]) -> None:
        """Accepts, reads and writes as far as that goes at once; gives up on who takes too long."""
        self._accept(now)
        for client in list(self._clients):
            try:
                is_done = self._serve(client, answer)
            except OSError:
                is_done = True
            if is_done or now >= client.deadline:
                client.connection.close()
                self._clients.remove(client)

    def _accept(self, now: float) -> None:
        while self._listening is not None and len(self._clients) < _CLIENTS:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # nobody, or nobody any more
                return
            if _peer(connection) not in (0, os.geteuid()):
                connection.close()
                continue
            connection.setblocking(False)
            self._clients.append(_Client(connection, now + _CLIENT_SECONDS))

    def _serve(self, client: _Client, answer: Callable[[], str]) -> bool:
        with contextlib.suppress(BlockingIOError):
            if client.left is None:
                read = client.connection.recv(len(QUESTION) - len(client.asked))
                client.asked += read
                if not read or not QUESTION.startswith(client.asked):
                    return True
                if client.asked != QUESTION:
                    return False
                client.left = answer().encode() + b"\n"
            while client.left:
                client.left = client.left[client.connection.send(client.left) :]
            return True
        return False


def _peer(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def ask(path: Path, timeout_seconds: float) -> str:
    """The client's side: what the supervisor says, one line of JSON. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(str(path))
        connection.sendall(QUESTION)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    told = b"".join(parts)
    if not told.endswith(b"\n"):
        raise ConnectionError("it ended the connection without an answer")
    return told.decode()
