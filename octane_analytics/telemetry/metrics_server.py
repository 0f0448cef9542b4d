"""Serves the shared metrics over HTTP: the body of the metrics process.

The socket is bound by the parent, before any fork: a port that is taken is told at once, and a
replaced process goes on with the same socket.
"""

import errno
import http.server
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Sequence

from octane_analytics.errors import ConfigError
from octane_analytics.telemetry.exposition import CONTENT_TYPE

_LOG = logging.getLogger(__name__)
_REQUEST_SECONDS = 10.0
_TEXT = "text/plain; charset=utf-8"


def bind(host: str, port: int, port_setting: str, *, backlog: int = 64) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ConfigError that names the setting, which for
    the host is the port's with HOST at its end."""
    host_setting = f"{port_setting.removesuffix('_PORT')}_HOST"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(backlog)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(
                f"{host_setting}: {host!r} is no address of this machine: {error.strerror}; "
                "set one that it has, or 0.0.0.0 for all of them"
            ) from error
        raise ConfigError(
            f"{port_setting}: cannot listen on {host}:{port}: {error.strerror}; "
            "stop what listens there or set another port"
        ) from error
    return listening


class _Handler(http.server.BaseHTTPRequestHandler):
    server_version = "octane-analytics"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = _REQUEST_SECONDS
    exposition: Callable[[], bytes]
    missing: Callable[[], Sequence[str]]

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/" | "/metrics":
                self._answer(200, CONTENT_TYPE, type(self).exposition())
            case "/healthz":
                self._answer(200, _TEXT, b"ok\n")
            case "/readyz":
                missing = type(self).missing()
                told = "".join(f"{what}\n" for what in missing) or "ready\n"
                self._answer(503 if missing else 200, _TEXT, told.encode())
            case _:
                self._answer(404, _TEXT, b"try /metrics, /healthz or /readyz\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        _LOG.debug(format % args)


class _HTTPServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    timeout = 0  # `handle_request` is only called where there is one

    def __init__(self, listening: socket.socket, handler: type[_Handler]) -> None:
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening


class MetricsServer:
    """Answers GET /metrics (and / as that), /healthz and /readyz until it is shut down."""

    def __init__(
        self,
        listening: socket.socket,
        exposition: Callable[[], bytes],
        missing: Callable[[], Sequence[str]],
    ) -> None:
        """`missing` answers, a line each, what keeps the service from being ready."""
        answers = {"exposition": staticmethod(exposition), "missing": staticmethod(missing)}
        handler = type("Handler", (_Handler,), answers)
        self._server = _HTTPServer(listening, handler)
        self._stopping = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)

    def start(self) -> None:
        """Serves from a thread of this process, which sleeps until somebody asks."""
        self._thread.start()

    def _serve(self) -> None:
        poll = select.poll()
        for descriptor in (self._stopping, self._server.fileno()):
            poll.register(descriptor, select.POLLIN)
        while self._stopping not in dict(poll.poll()):
            self._server.handle_request()

    def stop(self) -> None:
        """No connection is taken any more; does not wait for the answers under way."""
        os.eventfd_write(self._stopping, 1)
        self._thread.join()
        os.close(self._server.socket.detach())
        os.close(self._stopping)
