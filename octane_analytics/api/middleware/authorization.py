"""The gate before all routes: no request passes without a caller who may take that route now.

Sets `request.state.caller`, and `caller_name` beside it. A route nobody named here needs the scope
`report`: forgetting one closes it. Pure ASGI; owns which route needs what, and how limits are answered.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from octane_analytics.api.auth import callers
from octane_analytics.api.auth.callers import AccessDenied, Caller
from octane_analytics.api.auth.rate_limits import KEY_BYTES, RateLimiter
from octane_analytics.api.auth.tokens import MAX_TOKENS, METRICS, QUERY, REPORT, Token, TokenFile
from octane_analytics.api.errors import error_body
from octane_analytics.api.results.json_values import encode
from octane_analytics.errors import QueryError

OPEN_ROUTES = frozenset({"/healthz", "/readyz", "/docs", "/docs/{file}"})
"""The page asks for a token itself; without one it shows nothing of this installation."""
_SCOPES = {"/query": QUERY, "/schema": QUERY, "/metrics": METRICS}
_BUSY_RETRY_SECONDS = 1
_CORS_SENT = ("Authorization", "Content-Type", "Cache-Control", "If-None-Match", "X-Request-Id")
_CORS_SHOWN = (
    "X-Request-Id",
    "Retry-After",
    "ETag",
    "Age",
    "X-Cache",
    "X-Row-Limit",
    "X-Truncated",
)
_OF_BODY = ("content-length", "content-type")


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Who is served. `allowances` is None where nothing is limited: in tests, and without tokens."""

    tokens: TokenFile | None = None
    allowances: RateLimiter | None = None
    allow_anonymous: bool = False
    open_routes: frozenset[str] = OPEN_ROUTES
    scopes: Mapping[str, str] = field(default_factory=lambda: dict(_SCOPES))

    def scope_of(self, route: str) -> str | None:
        """None where anybody may ask."""
        return None if route in self.open_routes else self.scopes.get(route, REPORT)

    def caller(self, scope: Scope) -> Caller:
        """Raises NotAdmitted."""
        headers = Headers(scope=scope)
        if self.tokens is None:
            client = scope.get("client")
            peer = client[0] if client else None
            return callers.without_tokens(headers, peer, is_open=self.allow_anonymous)
        tokens = self.tokens.current(time.monotonic())
        return callers.by_token(headers, tokens, datetime.now(UTC))


class AuthorizationMiddleware:
    """Wraps the application; what it refuses it answers itself."""

    def __init__(self, app: ASGIApp, *, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            token = self._admitted(scope)
        except AccessDenied as error:
            await refusal(error, scope)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if token is not None and self._policy.allowances is not None:
                self._policy.allowances.release_slot(_key(token))

    def _admitted(self, scope: Scope) -> Token | None:
        """The token that has one request more under way now, if they are counted."""
        needed = self._policy.scope_of(scope["state"]["route"])
        if needed is None:
            return None
        caller = self._policy.caller(scope)
        scope["state"].update(caller=caller, caller_name=caller.name)
        token, allowances = caller.token, self._policy.allowances
        if token is not None and allowances is not None:
            _take(allowances, token)
        callers.admit(caller, needed)
        if token is None or allowances is None or token.concurrency is None:
            return None
        if not allowances.acquire_slot(_key(token), token.concurrency):
            raise AccessDenied(
                429,
                "too_many_at_once",
                f"the token {token.name} may have {token.concurrency} requests under way",
                {"Retry-After": str(_BUSY_RETRY_SECONDS)},
            )
        return token


def refusal(error: AccessDenied, scope: Scope) -> Response:
    body = encode(error_body(error, scope["state"]["request_id"]))
    return Response(body, error.status, error.headers, media_type="application/json")


class CrossOrigin(CORSMiddleware):
    """Starlette's, with refusals in the form that all errors have."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope) if scope["type"] == "http" else Headers()
        is_preflight = (
            scope["type"] == "http"
            and scope["method"] == "OPTIONS"
            and "origin" in asked
            and "access-control-request-method" in asked
        )
        answer = self.preflight_response(asked) if is_preflight else None
        if answer is None or answer.status_code < 400:
            await super().__call__(scope, receive, send)
            return
        error = QueryError(
            answer.status_code,
            "cross_origin_refused",
            f"{bytes(answer.body).decode()}: API_CORS_ORIGINS lists the origins that may ask",
        )
        body = encode(error_body(error, scope["state"]["request_id"]))
        headers = {name: value for name, value in answer.headers.items() if name not in _OF_BODY}
        refused = Response(body, error.status, headers, media_type="application/json")
        await refused(scope, receive, send)


def cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """What lets pages of these origins ask; nothing where there are none. No cookies, ever."""
    if not origins:
        return []
    return [
        Middleware(
            CrossOrigin,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_SHOWN,
        )
    ]


def policy_of(tokens_file: str | None, *, allow_anonymous: bool, processes: int) -> AccessPolicy:
    """To be made before the fork. Raises ConfigError where the file is wrong."""
    if tokens_file is None:
        return AccessPolicy(allow_anonymous=allow_anonymous)
    return AccessPolicy(
        tokens=TokenFile(Path(tokens_file)),
        allowances=RateLimiter(keys=MAX_TOKENS, processes=processes),
    )


def _take(allowances: RateLimiter, token: Token) -> None:
    if token.rate is None:
        return
    seconds = allowances.acquire_token(_key(token), token.rate)
    if seconds > 0:
        raise AccessDenied(
            429,
            "rate_limited",
            f"the token {token.name} may ask {_told(token.rate.per_second)} times a second, "
            f"{token.rate.burst} at once",
            {"Retry-After": str(max(1, math.ceil(seconds)))},
        )


def _key(token: Token) -> bytes:
    return token.digest[:KEY_BYTES]


def _told(per_second: float) -> str:
    return f"{per_second:g}" if per_second >= 1 else f"{per_second:.3g}"
