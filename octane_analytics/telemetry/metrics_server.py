"""HTTP server of the metrics process: /metrics, /healthz and /readyz.

The parent binds the socket before any fork: a port that is in use is reported at the start, and a
replaced process inherits the same socket.
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
    """Return a listening socket; port 0 selects a free port.

    Raise ConfigError with the name of the setting: `port_setting`, or its counterpart that ends in HOST.
    """
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
                f"{host_setting}: {host!r} is not an address of this machine: {error.strerror}; "
                "set one of its addresses, or 0.0.0.0 for all of them"
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
    problems: Callable[[], Sequence[str]]

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/" | "/metrics":
                self._respond(200, CONTENT_TYPE, type(self).exposition())
            case "/healthz":
                self._respond(200, _TEXT, b"ok\n")
            case "/readyz":
                problems = type(self).problems()
                text = "".join(f"{problem}\n" for problem in problems) or "ready\n"
                self._respond(503 if problems else 200, _TEXT, text.encode())
            case _:
                self._respond(404, _TEXT, b"try /metrics, /healthz or /readyz\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _respond(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        _LOG.debug(format % args)


class _HTTPServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    timeout = 0  # `handle_request` is only called when a connection is pending

    def __init__(self, listening: socket.socket, handler: type[_Handler]) -> None:
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening


class MetricsServer:
    """Serves GET and HEAD of /metrics (also as /), /healthz and /readyz until it is stopped."""

    def __init__(
        self,
        listening: socket.socket,
        exposition: Callable[[], bytes],
        readiness_problems: Callable[[], Sequence[str]],
    ) -> None:
        """`readiness_problems` returns a line for each reason why the service is not ready."""
        attributes = {
            "exposition": staticmethod(exposition),
            "problems": staticmethod(readiness_problems),
        }
        handler = type("Handler", (_Handler,), attributes)
        self._server = _HTTPServer(listening, handler)
        self._stopping = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)

    def start(self) -> None:
        """Serve from a thread of this process, which sleeps until a client connects."""
        self._thread.start()

    def _serve(self) -> None:
        poll = select.poll()
        for descriptor in (self._stopping, self._server.fileno()):
            poll.register(descriptor, select.POLLIN)
        while self._stopping not in dict(poll.poll()):
            self._server.handle_request()

    def stop(self) -> None:
        """Stop accepting connections; responses under way are not waited for."""
        os.eventfd_write(self._stopping, 1)
        self._thread.join()
        os.close(self._server.socket.detach())
        os.close(self._stopping)
