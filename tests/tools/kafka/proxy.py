"""TCP proxy in front of a Kafka broker that holds offset commits back and sends them on later.

The broker's answers advertise its own address; the proxy replaces the port by its own, so that clients
also find the coordinator and the partition leaders through it.
"""

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_HOST = "127.0.0.1"
_OFFSET_COMMIT = 8
"""API key, the first field of a request."""
_SIZE = struct.Struct(">i")
_API_KEY = struct.Struct(">h")


class KafkaProxy:
    """Proxy of one broker at 127.0.0.1; `hold_commits` and `release` may be called at any time."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._lock = threading.Lock()
        self._is_holding = False
        self._held: list[tuple[socket.socket, bytes]] = []
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server((_HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self._is_closed = False

    @property
    def bootstrap_servers(self) -> str:
        return f"{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closed = True
        self._listening.close()
        with self._lock:
            for each in self._sockets:
                _shut(each)

    @property
    def held(self) -> int:
        """Number of commits that are held back."""
        with self._lock:
            return len(self._held)

    def hold_commits(self) -> None:
        """Hold back the commits that follow; everything else passes."""
        with self._lock:
            self._is_holding = True

    def pass_commits(self) -> None:
        """Let the commits that follow pass; those held back stay."""
        with self._lock:
            self._is_holding = False

    def release(self) -> int:
        """Send what was held back to the broker, even if its client is gone; return the number.

        The connections of held commits to the broker stay open until then.
        """
        with self._lock:
            held, self._held = self._held, []
        for broker, frame in held:
            with contextlib.suppress(OSError):  # the broker has ended the connection
                broker.sendall(frame)
        return len(held)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listening.accept()
                broker = socket.create_connection((_HOST, self._broker_port))
            except OSError:
                continue  # closed, or the broker is away: the client connects again
            with self._lock:
                self._sockets += [client, broker]
            for target in (self._forward_requests, self._forward_answers):
                threading.Thread(target=target, args=(client, broker), daemon=True).start()

    def _forward_requests(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (frame := _read_frame(client)) is not None:
                if self._holds(broker, frame):
                    continue
                broker.sendall(frame)
        with self._lock:
            has_held = any(each is broker for each, _ in self._held)
        if not has_held:
            _shut(broker)

    def _holds(self, broker: socket.socket, frame: bytes) -> bool:
        (api_key,) = _API_KEY.unpack_from(frame, _SIZE.size)
        with self._lock:
            if api_key != _OFFSET_COMMIT or not self._is_holding:
                return False
            self._held.append((broker, frame))
            return True

    def _forward_answers(self, client: socket.socket, broker: socket.socket) -> None:
        address, own = (_HOST.encode() + _SIZE.pack(p) for p in (self._broker_port, self.port))
        with contextlib.suppress(OSError):
            while (frame := _read_frame(broker)) is not None:
                with contextlib.suppress(OSError):  # the client is gone; a late answer is read
                    client.sendall(frame.replace(address, own))
        _shut(client)


def _read_frame(source: socket.socket) -> bytes | None:
    """Return a message with its size; None at the end of the connection."""
    size = _read(source, _SIZE.size)
    if size is None:
        return None
    body = _read(source, *_SIZE.unpack(size))
    return None if body is None else size + body


def _read(source: socket.socket, count: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < count:
        chunk = source.recv(count - len(chunks))
        if not chunk:
            return None
        chunks += chunk
    return bytes(chunks)


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
