"""One process of the API: gunicorn's worker, which runs uvicorn's server.

Drains before it exits, sends heartbeats to its arbiter until then, and reports when it has reached
API_MAX_REQUESTS and should be replaced. Does not depend on the application.
"""

import asyncio
import logging
import math
import mmap
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, ClassVar, NoReturn

from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from octane_analytics.api.server.arbiter import ApiArbiter
from octane_analytics.telemetry import tracing
from octane_analytics.telemetry.logging import adopt

DRAIN_MARGIN_SECONDS = 3 + math.ceil(tracing.FLUSH_SECONDS)
"""Time between giving up on open connections and the arbiter's SIGKILL, for the last traces."""
_HEARTBEAT_SECONDS = 1.0


class ApiWorker(UvicornWorker):  # type: ignore[misc]
    """Worker process. The application's attribute `protocol` is the HTTP protocol class."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "auto",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
    }

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.config.http = self.app.protocol
        self.config.timeout_graceful_shutdown = self.cfg.graceful_timeout - DRAIN_MARGIN_SECONDS
        # At its limit uvicorn would stop accepting at once; new clients would wait until this process
        # has ended and its successor responds.
        self.config.limit_max_requests = None
        self._reached_max_requests = mmap.mmap(-1, 1)  # shared with the arbiter
        uvicorn_log = logging.getLogger("uvicorn.error")
        adopt(uvicorn_log)
        # uvicorn logs four lines for each start and stop, in addition to gunicorn's, and a warning for
        # each invalid request, which the protocol logs already.
        uvicorn_log.setLevel(logging.ERROR)

    @property
    def reached_max_requests(self) -> bool:
        """Read by the arbiter, which then replaces this worker; it serves requests until then."""
        return self._reached_max_requests[0] != 0

    def init_signals(self) -> None:
        super().init_signals()
        # uvicorn raises them again after its drain. The default action would end this process before it
        # has sent its last traces.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _exit)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = _UvicornServer(self.config, self.max_requests, self._mark_max_requests)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(ApiArbiter.WORKER_BOOT_ERROR)

    def _mark_max_requests(self) -> None:
        self._reached_max_requests[0] = 1


class _UvicornServer(Server):
    def __init__(
        self, config: Config, max_requests: int, on_max_requests: Callable[[], None]
    ) -> None:
        """`on_max_requests` is called on every tick once `max_requests` have been answered."""
        super().__init__(config)
        self._max_requests = max_requests
        self._on_max_requests = on_max_requests

    async def on_tick(self, counter: int) -> bool:
        if self.server_state.total_requests >= self._max_requests:
            self._on_max_requests()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.http_protocol_class.begin_drain()  # type: ignore[attr-defined]
        # uvicorn sends heartbeats only until here; requests in progress may take longer.
        heartbeats = asyncio.create_task(_send_heartbeats(self.config.callback_notify))
        try:
            await super().shutdown(sockets)
        finally:
            heartbeats.cancel()


async def _send_heartbeats(notify: Callable[[], Awaitable[None]] | None) -> None:
    while notify is not None:
        await notify()
        await asyncio.sleep(_HEARTBEAT_SECONDS)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    # Only once: gunicorn sends SIGTERM every second to a surplus worker.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(os.EX_OK)
