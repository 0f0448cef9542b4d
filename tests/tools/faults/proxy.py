"""A TCP proxy in front of ClickHouse that breaks connections at the worst moments.

Knows just enough of the native protocol to tell an insert's data from its answer, and refuses to know
the rest. All of it runs in daemon threads of the process that made it.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Self

from octane_analytics.sandbox.engine import HOST
from tests.support.ports import free_port

_CHUNK_BYTES = 65_536
_END_OF_STREAM = b"\x05"
_TRICKLE_PIECES = 40
# Closes with a reset, as a firewall or a crashed host's kernel would.
_RESET = struct.pack("ii", 1, 0)


class _Phase(Enum):
    IDLE = 0
    QUERY = 1
    """The client has sent an INSERT statement; the server's description of the table is next."""
    SAMPLE = 2
    DATA = 3
    """The client has started to send rows; the server's next packet is the response."""


class _Link:
    """One client connection with its connection to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.phase = _Phase.IDLE

    def shut(self, *, with_reset: bool = False) -> None:
        """Shut down both directions; the threads that serve them close the sockets."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                if with_reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Proxy that listens from `start` to `close`; `target_port` is called for each connection."""

    def __init__(self, target_port: Callable[[], int]) -> None:
        self._target_port = target_port
        self._listening: socket.socket | None = None
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._is_open = threading.Event()
        self._is_open.set()
        self._answers_to_cut = 0
        self._inserts_to_cut = 0
        self._delay_seconds = 0.0
        self._trickle_seconds = 0.0
        self.cuts = 0
        """Number of connections cut so far."""
        self.port = free_port()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._is_open.set()

    def heal(self) -> None:
        """Forward without faults, on new and existing connections."""
        self._answers_to_cut = self._inserts_to_cut = 0
        self._delay_seconds = self._trickle_seconds = 0.0
        self._is_open.set()
        if self._listening is None:
            self._listen()

    def cut_answers(self, inserts: int) -> None:
        """Cut the next inserts' responses: the server executes the inserts, the client never knows."""
        self._answers_to_cut = inserts

    def cut_inserts(self, inserts: int) -> None:
        """Cut the next inserts: the server receives half of their first chunk of rows."""
        self._inserts_to_cut = inserts

    def delay(self, seconds: float) -> None:
        """Delay the server's responses."""
        self._delay_seconds = seconds

    def trickle(self, seconds: float) -> None:
        """Spread each chunk over that many seconds, in both directions."""
        self._trickle_seconds = seconds

    def black_hole(self) -> None:
        """Keep and accept connections, but forward nothing until `heal`.

        What was sent meanwhile arrives then, also from clients that have given up.
        """
        self._is_open.clear()

    def refuse(self) -> None:
        """Cut all connections and stop listening."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listening.close()
        with self._lock:
            links = list(self._links)
        for link in links:
            self.cuts += 1
            link.shut(with_reset=True)

    def _listen(self) -> None:
        listening = socket.create_server((HOST, self.port), backlog=64)
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._is_open.wait()
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self._target_port()), timeout=5.0) as server,
        ):
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            with self._lock:
                self._links.add(link)
            answers = threading.Thread(target=self._forward_answers, args=(link,), daemon=True)
            answers.start()
            try:
                self._forward_requests(link)
            finally:
                link.shut()
                answers.join()
                with self._lock:
                    self._links.discard(link)

    def _forward_requests(self, link: _Link) -> None:
        while chunk := link.client.recv(_CHUNK_BYTES):
            if b"INSERT INTO" in chunk:
                link.phase = _Phase.QUERY
            elif link.phase is _Phase.SAMPLE:
                link.phase = _Phase.DATA
                if self._inserts_to_cut > 0:
                    self._inserts_to_cut -= 1
                    self.cuts += 1
                    link.server.sendall(chunk[: len(chunk) // 2])
                    link.shut()
                    return
            self._send(link.server, chunk)

    def _forward_answers(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while chunk := link.server.recv(_CHUNK_BYTES):
                if link.phase is _Phase.QUERY:
                    link.phase = _Phase.SAMPLE
                elif link.phase is _Phase.DATA and chunk.endswith(_END_OF_STREAM):
                    # Profile events come before, and the client waits for those amid its rows.
                    link.phase = _Phase.IDLE
                    if self._answers_to_cut > 0:
                        self._answers_to_cut -= 1
                        self.cuts += 1
                        break
                time.sleep(self._delay_seconds)
                self._send(link.client, chunk)
        link.shut()

    def _send(self, target: socket.socket, chunk: bytes) -> None:
        self._is_open.wait()
        seconds = self._trickle_seconds
        if not seconds:
            target.sendall(chunk)
            return
        size = max(1, len(chunk) // _TRICKLE_PIECES)
        pieces = range(0, len(chunk), size)
        for start in pieces:
            target.sendall(chunk[start : start + size])
            time.sleep(seconds / len(pieces))
