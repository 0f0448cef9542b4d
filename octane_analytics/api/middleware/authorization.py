"""Authorization of every request: its caller, the scope that its route needs, and its limits.

Sets `request.state.caller`, `caller_name`, `charge`, which charges another request to the token's rate
or raises AccessDenied (429), and `is_valid`, which says whether the token is still listed as it was. A
route that is not listed here needs the scope `report`, so that a forgotten route is closed. Pure ASGI.
"""

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octane_analytics.api.auth import callers
from octane_analytics.api.auth.callers import AccessDenied, Caller
from octane_analytics.api.auth.rate_limits import KEY_BYTES, RateLimiter
from octane_analytics.api.auth.token_file import MAX_TOKENS, TokenFile
from octane_analytics.api.auth.tokens import METRICS, QUERY, REPORT, Token
from octane_analytics.api.errors import error_body
from octane_analytics.api.results.json_values import encode
from octane_analytics.errors import QueryError

OPEN_ROUTES = frozenset(
    {"/healthz", "/readyz", "/docs", "/docs/{file}"}
    | {"/", "/favicon.ico", "/dashboard", "/dashboard/{file:path}", "/status"}
)
"""The pages have an input for the token; without one they show nothing of this installation."""
ANY_SCOPE = ""
"""Required scope of routes for every caller that is served at all."""
_SCOPES = {
    "/query": QUERY,
    "/schema": QUERY,
    "/metrics": METRICS,
    "/status/data": METRICS,
    "/caller": ANY_SCOPE,
}
_BUSY_RETRY_SECONDS = 1
_CORS_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Cache-Control",
    "If-None-Match",
    "Last-Event-ID",
    "Traceparent",
    "X-Request-Id",
)
_CORS_EXPOSED_HEADERS = (
    "X-Request-Id",
    "Retry-After",
    "ETag",
    "Age",
    "X-Cache",
    "X-Row-Limit",
    "X-Truncated",
    "Server-Timing",
    "X-Rows-Read",
    "X-Bytes-Read",
    "Content-Disposition",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
_BODY_HEADERS = ("content-length", "content-type")


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Rules of access. `rate_limiter` is None if nothing is limited: in tests, and without tokens."""

    tokens: TokenFile | None = None
    rate_limiter: RateLimiter | None = None
    allow_anonymous: bool = False
    open_routes: frozenset[str] = OPEN_ROUTES
    scopes: Mapping[str, str] = field(default_factory=lambda: dict(_SCOPES))

    def scope_of(self, route: str) -> str | None:
        """Return the scope that the route needs; None for an open route."""
        return None if route in self.open_routes else self.scopes.get(route, REPORT)

    def caller(self, scope: Scope) -> Caller:
        """Return the caller of the request. Raises AccessDenied."""
        headers = Headers(scope=scope)
        if self.tokens is None:
            client = scope.get("client")
            peer = client[0] if client else None
            return callers.anonymous_caller(headers, peer, allow_anonymous=self.allow_anonymous)
        tokens = self.tokens.current(time.monotonic())
        return callers.authenticate(headers, tokens, datetime.now(UTC))

    def is_valid(self, caller: Caller) -> bool:
        """Return whether the caller's token is still listed as it was, and has not expired."""
        if caller.token is None or self.tokens is None:
            return True
        listed = self.tokens.current(time.monotonic()).listed
        return caller.token in listed and not caller.token.is_expired(datetime.now(UTC))


class AuthorizationMiddleware:
    """Wraps the application and answers refused requests itself."""

    def __init__(self, app: ASGIApp, *, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            token = self._authorize(scope)
        except AccessDenied as error:
            await refusal(error, scope)(scope, receive, self._with_rate(scope, send))
            return
        try:
            await self._app(scope, receive, self._with_rate(scope, send))
        finally:
            if token is not None and self._policy.rate_limiter is not None:
                self._policy.rate_limiter.release_slot(_key(token))

    def _with_rate(self, scope: Scope, send: Send) -> Send:
        """Return `send` with the headers of the caller's rate, if it has one."""
        caller, rate_limiter = scope["state"]["caller"], self._policy.rate_limiter
        token = None if caller is None else caller.token
        if token is None or token.rate is None or rate_limiter is None:
            return send
        rate = token.rate

        async def send_with_rate(message: Message) -> None:
            if message["type"] == "http.response.start":
                remaining, seconds = rate_limiter.remaining(_key(token), rate)
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Limit"] = str(rate.burst)
                headers["RateLimit-Remaining"] = str(remaining)
                headers["RateLimit-Reset"] = str(math.ceil(seconds))
            await send(message)

        return send_with_rate

    def _authorize(self, scope: Scope) -> Token | None:
        """Return the token whose slot was acquired; None if its requests are not counted.

        Raises AccessDenied.
        """
        required_scope = self._policy.scope_of(scope["state"]["route"])
        if required_scope is None:
            return None
        caller = self._policy.caller(scope)
        scope["state"].update(
            caller=caller,
            caller_name=caller.name,
            charge=lambda: None,
            is_valid=functools.partial(self._policy.is_valid, caller),
        )
        token, rate_limiter = caller.token, self._policy.rate_limiter
        if token is not None and rate_limiter is not None:
            scope["state"]["charge"] = functools.partial(_acquire_token, rate_limiter, token)
            _acquire_token(rate_limiter, token)
        if required_scope != ANY_SCOPE:
            callers.require_scope(caller, required_scope)
        if token is None or rate_limiter is None or token.concurrency is None:
            return None
        if not rate_limiter.acquire_slot(_key(token), token.concurrency):
            raise AccessDenied(
                429,
                "too_many_at_once",
                f"the token {token.name} may have {token.concurrency} requests in progress",
                {"Retry-After": str(_BUSY_RETRY_SECONDS)},
            )
        return token


def refusal(error: AccessDenied, scope: Scope) -> Response:
    body = encode(error_body(error, scope["state"]["request_id"]))
    return Response(body, error.status, error.headers, media_type="application/json")


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware, with refusals in the format of all errors."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        is_preflight = (
            scope["type"] == "http"
            and scope["method"] == "OPTIONS"
            and "origin" in request_headers
            and "access-control-request-method" in request_headers
        )
        preflight = self.preflight_response(request_headers) if is_preflight else None
        if preflight is None or preflight.status_code < 400:
            await super().__call__(scope, receive, send)
            return
        error = QueryError(
            preflight.status_code,
            "cross_origin_refused",
            f"{bytes(preflight.body).decode()}: API_CORS_ORIGINS lists the allowed origins",
        )
        body = encode(error_body(error, scope["state"]["request_id"]))
        headers = {
            name: value for name, value in preflight.headers.items() if name not in _BODY_HEADERS
        }
        refused = Response(body, error.status, headers, media_type="application/json")
        await refused(scope, receive, send)


def cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """Return the middleware that admits pages of these origins, without cookies; [] for no origins."""
    if not origins:
        return []
    return [
        Middleware(
            CrossOrigin,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_EXPOSED_HEADERS,
        )
    ]


def load_policy(tokens_file: str | None, *, allow_anonymous: bool, processes: int) -> AccessPolicy:
    """Return the policy; call before the fork. Raises ConfigError if the token file is invalid."""
    if tokens_file is None:
        return AccessPolicy(allow_anonymous=allow_anonymous)
    return AccessPolicy(
        tokens=TokenFile(Path(tokens_file)),
        rate_limiter=RateLimiter(keys=MAX_TOKENS, processes=processes),
    )


def _acquire_token(rate_limiter: RateLimiter, token: Token) -> None:
    if token.rate is None:
        return
    seconds = rate_limiter.acquire_token(_key(token), token.rate)
    if seconds > 0:
        raise AccessDenied(
            429,
            "rate_limited",
            f"the token {token.name} may send {_format_rate(token.rate.per_second)} requests per "
            f"second, {token.rate.burst} at once",
            {"Retry-After": str(max(1, math.ceil(seconds)))},
        )


def _key(token: Token) -> bytes:
    return token.digest[:KEY_BYTES]


def _format_rate(per_second: float) -> str:
    return f"{per_second:g}" if per_second >= 1 else f"{per_second:.3g}"
