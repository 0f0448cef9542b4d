"""Outermost middleware: request ids, access log, metrics, security headers and internal errors.

Pure ASGI. Does not depend on routes' content or on authorization.
"""

import logging
import re
import time
import uuid
from collections.abc import Collection, Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octane_analytics.api.errors import error_body
from octane_analytics.api.results.json_values import encode
from octane_analytics.errors import QueryError
from octane_analytics.telemetry import tracing
from octane_analytics.telemetry.api_metrics import ApiMetrics
from octane_analytics.telemetry.logging import fields

OTHER = "other"
"""Route label of unknown paths."""
SECURITY_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    # A response that a browser renders as a page cannot load or run anything, nor be framed.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Set on each response that does not have the header already."""
_CLIENT_GONE = 499
"""nginx's status for a closed connection; it is logged and never sent."""
_PATH_CHARACTERS = 200
_VERSIONS = frozenset({"1.0", "1.1"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

log = logging.getLogger(__name__)


class RequestContextMiddleware:
    """Wraps the application. Answers exceptions that escape it with 500 and only the request's id.

    Sets `request.state`: `request_id`, `route` (the template of the path, or OTHER) and
    `traceparent` (None unless the client sent a valid one).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: ApiMetrics,
        routes: Sequence[BaseRoute],
        quiet: Collection[str],
    ) -> None:
        """Successful requests to the routes in `quiet` are logged at level DEBUG."""
        self._app = app
        self._metrics = metrics
        self._routes = routes
        self._quiet = frozenset(quiet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        state = scope.setdefault("state", {})
        state.update(
            request_id=request_id,
            route=self._route_of(scope),
            # The request's own span, if this process records one.
            traceparent=tracing.traceparent() or _traceparent(headers),
            caller=None,
            caller_name="",
        )
        status = sent_bytes = 0
        self._metrics.in_flight.inc()

        async def send_with_headers(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                response_headers = MutableHeaders(scope=message)
                response_headers["X-Request-Id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    response_headers.setdefault(name, value)
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            if "content-length" in headers and "transfer-encoding" in headers:
                # Request smuggling: a proxy may have determined another end of the body.
                await _send_ambiguous_length(send_with_headers, request_id)
            elif scope.get("http_version", "1.1") not in _VERSIONS:
                await _send_unsupported_version(send_with_headers, request_id)
            else:
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception:  # the boundary of a request
            log.exception("request failed", extra=fields(request_id=request_id))
            if status:
                raise  # the response has started; closing the connection signals the failure
            await _send_500(send_with_headers, request_id)
        finally:
            self._metrics.in_flight.dec()
            seconds = time.perf_counter() - started
            self._record(scope, status or _CLIENT_GONE, seconds, sent_bytes)

    def _route_of(self, scope: Scope) -> str:
        # The same matching as the router's, so that the two cannot differ.
        matched = OTHER
        for route in self._routes:
            match, _ = route.matches(scope)
            if match == Match.FULL:
                return str(getattr(route, "path", OTHER))
            if match == Match.PARTIAL and matched == OTHER:
                matched = str(getattr(route, "path", OTHER))
        return matched

    def _record(self, scope: Scope, status: int, seconds: float, sent_bytes: int) -> None:
        state = scope["state"]
        self._metrics.requests.labels(state["route"], str(status)).inc()
        self._metrics.request_seconds.labels(state["route"]).observe(seconds)
        is_quiet = state["route"] in self._quiet and status < 400
        client = scope.get("client")
        log.log(
            logging.DEBUG if is_quiet else logging.INFO,
            "request",
            extra=fields(
                method=scope["method"],
                route=state["route"],
                path=_path(scope),
                status=status,
                ms=round(seconds * 1000, 3),
                bytes=sent_bytes,
                caller=state["caller_name"],
                client=client[0] if client else "",
                request_id=state["request_id"],
                **_trace_field(state["traceparent"]),
            ),
        )


def _trace_field(traceparent: str | None) -> dict[str, str]:
    return {"trace_id": traceparent.split("-")[1]} if traceparent else {}


def _path(scope: Scope) -> str:
    """Return the path as sent, still escaped, without the query; safe for a log."""
    raw = scope.get("raw_path") or scope["path"].encode(errors="replace")
    sent = raw.partition(b"?")[0].decode("ascii", "backslashreplace")
    printable = "".join(each if " " < each < "\x7f" else "?" for each in sent)
    return printable[:_PATH_CHARACTERS]


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.match(given) else uuid.uuid4().hex


def _traceparent(headers: Headers) -> str | None:
    given = headers.getlist("traceparent")
    return given[0] if len(given) == 1 and _TRACEPARENT.match(given[0]) else None


async def _send_500(send: Send, request_id: str) -> None:
    error = QueryError(500, "internal", "internal error: see the service's log")
    await _send_error(send, error, request_id)


async def _send_ambiguous_length(send: Send, request_id: str) -> None:
    error = QueryError(
        400, "bad_request", "Content-Length and Transfer-Encoding exclude each other"
    )
    await _send_error(send, error, request_id, (b"connection", b"close"))


async def _send_unsupported_version(send: Send, request_id: str) -> None:
    error = QueryError(505, "http_version_not_supported", "send the request as HTTP/1.1")
    await _send_error(send, error, request_id, (b"connection", b"close"))


async def _send_error(
    send: Send, error: QueryError, request_id: str, *extra_headers: tuple[bytes, bytes]
) -> None:
    body = encode(error_body(error, request_id))
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *extra_headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
