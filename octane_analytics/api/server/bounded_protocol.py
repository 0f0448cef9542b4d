"""What a client may take of the server before it is anybody's request: time, bytes, connections.

uvicorn gives an idle connection its keep-alive time and nothing else a limit: whoever sends a header a
byte a minute, half a body, or does not read its answer, keeps a connection for as long as it likes. This
is its parser with those limits. And where a process is to end, uvicorn closes each connection that has
no request just then, though one may be on its way; here the client is told first, with an answer. Owns
the clock of each connection; refuses to know what is asked.
"""

import asyncio
import logging
import sys
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from octane_analytics.api.results.json_values import encode
from octane_analytics.telemetry.logging import fields

MIN_BYTES_PER_SECOND = 1024
"""What a client has to take of its answer."""
LEAVE_SECONDS = 1.0
"""So long a process that ends waits for another request on each connection, to answer that it closes."""
_CLOSE = (b"connection", b"close")
_SLICE_BYTES = 16 << 10
_RETRY_SECONDS = 1
_REASONS = {
    400: ("bad_request", "this is not HTTP/1.1"),
    408: ("request_timeout", "the request did not come in time"),
    431: ("headers_too_large", "the request's head is too large"),
    501: ("not_implemented", "this transfer encoding is not served"),
    503: ("too_many_connections", "too many clients are connected: try again later"),
    505: ("http_version_not_supported", "only HTTP/1.1 and HTTP/1.0 are served"),
}

log = logging.getLogger(__name__)


class BoundedProtocol(H11Protocol):
    """One connection. The limits are set on a subclass: see `with_limits`."""

    receive_seconds: ClassVar[float] = 10.0
    send_seconds: ClassVar[float] = 30.0
    max_connections: ClassVar[int] = 1000
    is_leaving: ClassVar[bool] = False
    """Whether this process is to end: no connection is to be kept any more."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503)
            return
        # From the first moment on: who connects and says nothing is dropped too.
        self._receiving = self.loop.call_later(self.receive_seconds, self._not_received)
        if self.is_leaving:  # it had been accepted before
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_receiving()
        self._stop_sending()
        self._stop_leaving()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # The parser looks at its limit for a head only when it needs more: what comes at once may be
        # any size, so it is handed over in slices.
        for start in range(0, len(data), _SLICE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + _SLICE_BYTES])
        self._watch_receiving()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.is_leaving and self.cycle is not before:
            self._tell_of_leaving()

    def on_response_complete(self) -> None:
        self._stop_receiving()
        super().on_response_complete()
        self._watch_receiving()
        if self.is_leaving:
            self.shutdown()

    @classmethod
    def leave(cls) -> None:
        """For this class of connections; each one that is open is to be told by `shutdown`."""
        cls.is_leaving = True

    def shutdown(self) -> None:
        """Closes the connection with the next answer that can say so, or when there is none to give."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._tell_of_leaving()
        elif self._leaving is None:
            self._leaving = self.loop.call_later(LEAVE_SECONDS, self._leave)

    def _tell_of_leaving(self) -> None:
        # An answer that has begun says nothing of it: the client may have sent more before it is over.
        self._stop_leaving()
        if not self.cycle.response_started:
            self.cycle.default_headers = [*self.cycle.default_headers, _CLOSE]

    def _leave(self) -> None:
        self._leaving = None
        if self.conn.trailing_data[0] or self.conn.their_state is h11.SEND_BODY:
            self.shutdown()  # half a request is there: the other half has its own deadline
        else:
            super().shutdown()

    def _stop_leaving(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _watch_receiving(self) -> None:
        """Has the clock run while the client is to send and uvicorn's keep-alive does not look on."""
        state = self.conn.their_state
        is_awaited = state is h11.SEND_BODY or (
            state is h11.IDLE
            and (self.timeout_keep_alive_task is None or bool(self.conn.trailing_data[0]))
        )
        if not is_awaited or self.transport.is_closing():
            self._stop_receiving()
        elif self._receiving is None:
            self._receiving = self.loop.call_later(self.receive_seconds, self._not_received)

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _not_received(self) -> None:
        self._receiving = None
        self._refuse(408)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._sending is None:
            self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_sending()

    def _watch_sending(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._sending = self.loop.call_later(self.send_seconds, self._not_taken)

    def _not_taken(self) -> None:
        taken = self._unsent_bytes - self.transport.get_write_buffer_size()
        if taken >= self.send_seconds * MIN_BYTES_PER_SECOND:
            self._watch_sending()
            return
        self._sending = None
        self._log("client does not take its answer")
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Called by the parser within the `except` for what it cannot read."""
        # Of the exception no more than its status: its text may hold a header, and so a token.
        hint = getattr(sys.exception(), "error_status_hint", 400)
        self._refuse(hint if hint in _REASONS else 400)

    def _refuse(self, status: int) -> None:
        """Answers, if an answer can be told from one already begun, and closes."""
        if self.transport.is_closing():
            return
        code, message = _REASONS[status]
        self._log("connection refused", status=status, reason=message)
        if self.cycle is not None and not self.cycle.response_complete:
            # Whoever works on it learns that the client has gone.
            has_begun = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if has_begun:
                self.transport.abort()
                return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = encode({"error": {"code": code, "message": message}})
            self.transport.write(_response(status, body))
        self.transport.close()

    def _log(self, message: str, **values: object) -> None:
        client = self.client[0] if self.client else ""
        log.info(message, extra=fields(client=client, **values))

    def _unsupported_upgrade_warning(self) -> None:
        """Who asks for a WebSocket gets the answer to its request; no need for a warning each time."""


def with_limits(
    *, receive_seconds: float, send_seconds: float, max_connections: int
) -> type[BoundedProtocol]:
    """The class to hand to uvicorn, which makes the objects itself."""
    return type(
        "LimitedProtocol",
        (BoundedProtocol,),
        {
            "receive_seconds": receive_seconds,
            "send_seconds": send_seconds,
            "max_connections": max_connections,
        },
    )


def _response(status: int, body: bytes) -> bytes:
    # Not through the parser, whose state after an error is its own.
    head = [
        b"HTTP/1.1 %d %s" % (status, STATUS_PHRASES[status]),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
    ]
    if status == 503:
        head.append(b"retry-after: %d" % _RETRY_SECONDS)
    return b"\r\n".join(head) + b"\r\n\r\n" + body
