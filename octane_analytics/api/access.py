"""The layer around all routes: request ids, the access log, metrics, headers, the last resort.

Pure ASGI. Refuses to know what is answered.
"""

import logging
import re
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octane_analytics.api.answers import encode
from octane_analytics.api.faults import error_body
from octane_analytics.errors import QueryError
from octane_analytics.telemetry.logging import fields
from octane_analytics.telemetry.metrics import ApiMetrics

_CLIENT_GONE = 499
"""What nginx calls it; nobody receives it."""
_GIVEN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")

log = logging.getLogger(__name__)


class Access:
    """Wraps the application. Answers 500 for what escapes it, with no more than the request's id."""

    def __init__(
        self, app: ASGIApp, *, metrics: ApiMetrics, routes: Collection[str], quiet: Collection[str]
    ) -> None:
        """`routes` are the paths that metrics know by name; requests to `quiet` ones are logged as
        debug lines only."""
        self._app = app
        self._metrics = metrics
        self._routes = frozenset(routes)
        self._quiet = frozenset(quiet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def decorated(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, decorated)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception:  # the boundary of a request
            log.exception("request failed", extra=fields(request_id=request_id))
            if status:
                raise  # the response has begun: only cutting it off can tell the client
            await _answer_500(decorated, request_id)
        finally:
            self._record(scope, status or _CLIENT_GONE, time.perf_counter() - started, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        path = scope["path"]
        route = path if path in self._routes else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        is_quiet = path in self._quiet and status < 500
        client = scope.get("client")
        log.log(
            logging.DEBUG if is_quiet else logging.INFO,
            "request",
            extra=fields(
                method=scope["method"],
                path=path,
                status=status,
                ms=round(seconds * 1000, 3),
                client=client[0] if client else "",
                request_id=request_id,
            ),
        )


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _GIVEN_ID.match(given) else uuid.uuid4().hex


async def _answer_500(send: Send, request_id: str) -> None:
    error = QueryError(500, "internal", "internal error: see the service's log")
    body = encode(error_body(error, request_id))
    await send(
        {
            "type": "http.response.start",
            "status": 500,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
