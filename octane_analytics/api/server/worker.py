"""One process of the API: gunicorn's worker, with uvicorn's server in it.

Ends in order, tells its arbiter that it lives until then, and says when it has answered its share of
requests and wants to be replaced. Refuses to know the app.
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
"""How much earlier than its arbiter would kill it a worker gives up on open connections: it has its last
traces to send."""
_BEAT_SECONDS = 1.0


class ApiWorker(UvicornWorker):  # type: ignore[misc]
    """What the arbiter forks. Its application's `protocol` is the class that speaks HTTP."""

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
        # At its limit uvicorn would stop accepting at once, and whoever comes then would have to wait
        # until this process has ended and the next one answers.
        self.config.limit_max_requests = None
        self._reached_max_requests = mmap.mmap(-1, 1)  # shared with the arbiter
        of_uvicorn = logging.getLogger("uvicorn.error")
        adopt(of_uvicorn)
        # It tells of each start and stop in four lines, after gunicorn's, and warns of each bad
        # request, as the protocol does already.
        of_uvicorn.setLevel(logging.ERROR)

    @property
    def reached_max_requests(self) -> bool:
        """Of requests. Known to the arbiter, who then replaces it; it goes on answering until then."""
        return self._reached_max_requests[0] != 0

    def init_signals(self) -> None:
        super().init_signals()
        # uvicorn raises them once more when it has drained. Their default would end this process there,
        # with its last traces unsent.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = _UvicornServer(self.config, self.max_requests, self._note_share)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(ApiArbiter.WORKER_BOOT_ERROR)

    def _note_share(self) -> None:
        self._reached_max_requests[0] = 1


class _UvicornServer(Server):
    def __init__(self, config: Config, share: int, on_share: Callable[[], None]) -> None:
        """`on_share` is called once `share` requests have been answered, and again after that."""
        super().__init__(config)
        self._share = share
        self._on_share = on_share

    async def on_tick(self, counter: int) -> bool:
        if self.server_state.total_requests >= self._share:
            self._on_share()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.http_protocol_class.leave()  # type: ignore[attr-defined]
        # uvicorn tells of itself only until here, and what is under way may take longer.
        beating = asyncio.create_task(_beat(self.config.callback_notify))
        try:
            await super().shutdown(sockets)
        finally:
            beating.cancel()


async def _beat(notify: Callable[[], Awaitable[None]] | None) -> None:
    while notify is not None:
        await notify()
        await asyncio.sleep(_BEAT_SECONDS)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # Once: gunicorn sends SIGTERM every second to a worker that is one too many.
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    raise SystemExit(os.EX_OK)
