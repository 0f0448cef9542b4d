"""HTTP/1.1 protocol with limits of time, bytes and connections per client.

uvicorn limits only the keep-alive time of idle connections: a client that sends a header at a byte a
minute, or half a body, or does not read its response keeps a connection for as long as it likes. This
protocol adds those limits to uvicorn's parser. It also drains: where uvicorn closes every connection
without a request although one may be in transit, clients here receive `Connection: close` on a response
first. Does not depend on routes.
"""

import asyncio
import contextlib
import logging
import socket
import sys
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from octane_analytics.api.results.json_values import encode
from octane_analytics.telemetry.logging import fields

MIN_BYTES_PER_SECOND = 1024
"""Minimum rate at which a client must read its response."""
DRAIN_IDLE_SECONDS = 1.0
"""Time for which a draining process waits for another request on each idle connection, so that the
response can carry `Connection: close`."""
_UNSENT_BYTES = 128 << 10
"""Bytes of a connection that the kernel may hold unsent. By default it takes up to 4 MiB for a client
that does not read, which also delays the notice that it does not."""
_CLOSE = (b"connection", b"close")
MAX_HEAD_BYTES = 16 << 10
"""Limit of the parser, h11."""
_SLICE_BYTES = 16 << 10
_RETRY_SECONDS = 1
_REASONS = {
    400: ("bad_request", "the request is not valid HTTP/1.1"),
    408: ("request_timeout", "the request was not received in time"),
    431: ("headers_too_large", "the request's head is too large"),
    501: ("not_implemented", "this transfer encoding is not supported"),
    503: ("too_many_connections", "too many clients are connected: try again later"),
    505: ("http_version_not_supported", "only HTTP/1.1 and HTTP/1.0 are supported"),
}

log = logging.getLogger(__name__)


class BoundedProtocol(H11Protocol):
    """One connection. The limits are set on a subclass: see `with_limits`."""

    receive_seconds: ClassVar[float] = 10.0
    send_seconds: ClassVar[float] = 30.0
    max_connections: ClassVar[int] = 1000
    is_draining: ClassVar[bool] = False
    """True once this process is draining: keep-alive connections are closed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._receive_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._reject(503)
            return
        _limit_unsent(transport)
        # From the start, so that clients that connect and send nothing are dropped too.
        self._receive_timer = self.loop.call_later(self.receive_seconds, self._on_receive_timeout)
        if self.is_draining:  # accepted before the drain began
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_receive_timer()
        self._stop_send_timer()
        self._stop_idle_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # The parser checks its limit for a head only when it needs more data. Data that arrives at once
        # may have any size, so it is passed on in slices, and a head up to the limit exactly.
        start = 0
        while start < len(data):
            if self.transport.is_closing():
                return
            end = start + self._slice_bytes()
            super().data_received(data[start:end])
            start = end
        self._update_receive_timer()

    def _slice_bytes(self) -> int:
        if self.conn.their_state is not h11.IDLE:
            return _SLICE_BYTES
        return max(1, MAX_HEAD_BYTES - len(self.conn.trailing_data[0]))

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.is_draining and self.cycle is not before:
            self._announce_close()

    def on_response_complete(self) -> None:
        self._stop_receive_timer()
        super().on_response_complete()
        self._update_receive_timer()
        if self.is_draining:
            self.shutdown()

    @classmethod
    def begin_drain(cls) -> None:
        """Drain all connections of this class; the caller then calls `shutdown` of each open one."""
        cls.is_draining = True

    def shutdown(self) -> None:
        """Close the connection with the next response that can announce it, or when it is idle."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._announce_close()
        elif self._idle_timer is None:
            self._idle_timer = self.loop.call_later(DRAIN_IDLE_SECONDS, self._close_idle)

    def _announce_close(self) -> None:
        # A response that has started cannot announce it; the client may send another request before its
        # end, and the response to that one does.
        self._stop_idle_timer()
        if not self.cycle.response_started:
            self.cycle.default_headers = [*self.cycle.default_headers, _CLOSE]

    def _close_idle(self) -> None:
        self._idle_timer = None
        if self.conn.trailing_data[0] or self.conn.their_state is h11.SEND_BODY:
            self.shutdown()  # half a request was received; the other half has its own deadline
        else:
            super().shutdown()

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _update_receive_timer(self) -> None:
        """Run the receive timer while a request is awaited and uvicorn's keep-alive timer is not set."""
        state = self.conn.their_state
        is_awaited = state is h11.SEND_BODY or (
            state is h11.IDLE
            and (self.timeout_keep_alive_task is None or bool(self.conn.trailing_data[0]))
        )
        if not is_awaited or self.transport.is_closing():
            self._stop_receive_timer()
        elif self._receive_timer is None:
            self._receive_timer = self.loop.call_later(
                self.receive_seconds, self._on_receive_timeout
            )

    def _stop_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _on_receive_timeout(self) -> None:
        self._receive_timer = None
        self._reject(408)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._send_timer is None:
            self._start_send_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_send_timer()

    def _start_send_timer(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self.send_seconds, self._check_send_progress)

    def _check_send_progress(self) -> None:
        sent_bytes = self._unsent_bytes - self.transport.get_write_buffer_size()
        if sent_bytes >= self.send_seconds * MIN_BYTES_PER_SECOND:
            self._start_send_timer()
            return
        self._send_timer = None
        self._log("connection aborted; the client does not read its response")
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Reject input that the parser cannot read; called within its `except` block."""
        # Only the exception's status is used: its text may contain a header, and so a token.
        hint = getattr(sys.exception(), "error_status_hint", 400)
        self._reject(hint if hint in _REASONS else 400)

    def _reject(self, status: int) -> None:
        """Send an error response unless another response has started, and close the connection."""
        if self.transport.is_closing():
            return
        code, message = _REASONS[status]
        self._log("request rejected", status=status, reason=message)
        if self.cycle is not None and not self.cycle.response_complete:
            # The application is notified of the disconnect.
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
        """Log nothing: a request for a WebSocket is answered as a plain request."""


def _limit_unsent(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # not TCP
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def with_limits(
    *, receive_seconds: float, send_seconds: float, max_connections: int
) -> type[BoundedProtocol]:
    """Return a subclass with these limits, for uvicorn, which creates the instances."""
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
    # Not through the parser, whose state after an error does not allow a response.
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
