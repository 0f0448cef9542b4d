"""Local socket on which the supervisor answers `octane-analytics status`, without threads or blocking.

A client sends one line and receives one line of JSON. Only the supervisor's own user and root are
served: the file has mode 0600, and the kernel reports the peer's user (SO_PEERCRED, unix(7)).
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
REQUEST = b"status\n"
_MAX_CLIENTS = 16
_CLIENT_SECONDS = 5.0
_CREDENTIALS = struct.Struct("iII")


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    deadline: float
    received: bytes = b""
    unsent: bytes | None = None
    """Rest of the response; None before the request is complete."""


@dataclass(slots=True)
class ControlSocket:
    """Listening socket from `open` to `close`, served by `serve_clients`."""

    path: Path
    _listening: socket.socket | None = None
    _owner: int = 0
    _clients: list[_Client] = field(default_factory=list)

    def open(self) -> None:
        """Listen. Raise ConfigError if another process does or the file cannot be created."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._remove_stale()
            # The umask restricts the file from its creation on; no other thread creates files now.
            previous = os.umask(0o177)
            try:
                listening.bind(str(self.path))
            finally:
                os.umask(previous)
            listening.listen(_MAX_CLIENTS)
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
                f"CONTROL_SOCKET: {self.path} exists and is not a socket: set another path"
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
        """Close all connections. In a forked child the file stays, because it is the parent's."""
        for client in self._clients:
            client.connection.close()
        self._clients.clear()
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            if os.getpid() == self._owner:
                self.path.unlink(missing_ok=True)

    def descriptors(self) -> list[tuple[int, int]]:
        """Return the descriptors to wait for, each with its event mask for poll(2)."""
        polled = [
            (c.connection.fileno(), select.POLLIN if c.unsent is None else select.POLLOUT)
            for c in self._clients
        ]
        if self._listening is not None and len(self._clients) < _MAX_CLIENTS:
            polled.append((self._listening.fileno(), select.POLLIN))
        return polled

    def serve_clients(self, now: float, status: Callable[[], str]) -> None:
        """Accept, read and write without blocking; drop clients whose deadline has passed.

        `status` returns the response, one line without its line feed.
        """
        self._accept(now)
        for client in list(self._clients):
            try:
                is_done = self._serve(client, status)
            except OSError:
                is_done = True
            if is_done or now >= client.deadline:
                client.connection.close()
                self._clients.remove(client)

    def _accept(self, now: float) -> None:
        while self._listening is not None and len(self._clients) < _MAX_CLIENTS:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # no client, or it has disconnected
                return
            if _peer_uid(connection) not in (0, os.geteuid()):
                connection.close()
                continue
            connection.setblocking(False)
            self._clients.append(_Client(connection, now + _CLIENT_SECONDS))

    def _serve(self, client: _Client, status: Callable[[], str]) -> bool:
        """Return whether the connection is to be closed."""
        with contextlib.suppress(BlockingIOError):
            if client.unsent is None:
                part = client.connection.recv(len(REQUEST) - len(client.received))
                client.received += part
                if not part or not REQUEST.startswith(client.received):
                    return True
                if client.received != REQUEST:
                    return False
                client.unsent = status().encode() + b"\n"
            while client.unsent:
                client.unsent = client.unsent[client.connection.send(client.unsent) :]
            return True
        return False


def _peer_uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def request_status(path: Path, timeout_seconds: float) -> str:
    """Return the supervisor's status, one line of JSON. Blocks; the client's side. Raise OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(str(path))
        connection.sendall(REQUEST)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    response = b"".join(parts)
    if not response.endswith(b"\n"):
        raise ConnectionError("the supervisor closed the connection without a response")
    return response.decode()
