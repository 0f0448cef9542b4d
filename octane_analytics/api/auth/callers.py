"""Authentication: the caller of a request, and the reports' parameters that its token fixes.

A caller presents a token in `Authorization: Bearer …`; without configured tokens, local clients are
served anonymously. With tokens every request needs one, from loopback too, since requests through a
proxy on the same host come from there. Does not depend on routes and rate limits.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from starlette.datastructures import Headers

from octane_analytics.api.auth.tokens import METRICS, QUERY, REPORT, Token, Tokens
from octane_analytics.api.filters import Filter
from octane_analytics.errors import QueryError

ANONYMOUS = "anonymous"
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
_PROXY_HEADER = re.compile(
    r"forwarded|via|cdn-loop|x-forwarded-.+|x-original-.+|x-envoy-.+"
    r"|(x-)?(real|client|cluster-client)-ip|(cf-connecting|true-client|fastly-client|fly-client)-ip"
)
"""Headers that proxies and content delivery networks add, in lower case."""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::[0-9]{1,5})?\Z")
_CHALLENGE = 'Bearer realm="octane-analytics"'


@dataclass(frozen=True, slots=True)
class Caller:
    """`parameters` and `filters` are fixed for its reports. `token` is None for an anonymous caller."""

    name: str
    scopes: frozenset[str]
    parameters: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))
    token: Token | None = None
    filters: tuple[Filter, ...] = ()


class AccessDenied(QueryError):
    """A refusal with response headers, such as WWW-Authenticate or Retry-After."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, code, message)
        self.headers = dict(headers or {})


def authenticate(headers: Headers, tokens: Tokens, now: datetime) -> Caller:
    """Return the caller of the presented token.

    Raises AccessDenied: 401, or 400 for more than one Authorization header.
    """
    given = headers.getlist("authorization")
    if len(given) > 1:
        # A proxy may use another one of them than this service.
        raise AccessDenied(400, "bad_request", "more than one Authorization header")
    if not given:
        raise _unauthorized("token_missing", "a token is required: Authorization: Bearer TOKEN", "")
    scheme, _, presented = given[0].partition(" ")
    if scheme.lower() != "bearer" or not presented.strip():
        raise _unauthorized("token_missing", "a token is required: Authorization: Bearer TOKEN", "")
    token = tokens.find(presented.strip())
    if token is None:
        raise _unauthorized("token_unknown", "unknown token", "invalid_token")
    if token.is_expired(now):
        raise _unauthorized("token_expired", "the token has expired", "invalid_token")
    return Caller(token.name, token.scopes, token.parameters, token, token.filters)


def anonymous_caller(headers: Headers, peer: str | None, *, allow_anonymous: bool) -> Caller:
    """Return the anonymous caller: all scopes from loopback, `report` from elsewhere if allowed.

    Requests that a proxy forwarded do not count as loopback. Raises AccessDenied (403).
    """
    is_local_peer = is_loopback(peer) and not any(map(_PROXY_HEADER.fullmatch, headers.keys()))
    # DNS rebinding: a page of a foreign site, whose name resolves to this host, sends that name.
    is_local_host = _is_local_host(headers.get("host", ""))
    if is_local_peer and is_local_host:
        return Caller(ANONYMOUS, frozenset({REPORT, QUERY, METRICS}))
    if allow_anonymous:
        return Caller(ANONYMOUS, frozenset({REPORT}))
    if is_local_peer:
        raise AccessDenied(
            403,
            "not_local",
            "without tokens the API accepts only localhost and IP addresses as Host",
        )
    raise AccessDenied(403, "not_local", "without tokens only local clients are served")


def require_scope(caller: Caller, scope: str) -> None:
    """Raise AccessDenied (403) unless the caller has the scope."""
    if scope in caller.scopes:
        return
    if caller.token is None:
        raise AccessDenied(
            403, "not_local", f"the scope {scope} requires loopback, or a token that has it"
        )
    reason = f"the token {caller.name} does not have the scope {scope}"
    if scope == QUERY and is_confined(caller):
        reason = f"the token {caller.name} has fixed parameters or filters, which excludes raw SQL"
    raise AccessDenied(
        403,
        "scope_missing",
        reason,
        {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'},
    )


def apply_bound_parameters(
    caller: Caller, known: Collection[str], given: Mapping[str, object]
) -> dict[str, object]:
    """Return the parameters of a report: the given ones and the caller's fixed ones.

    `known` are the names that the report takes. Raises QueryError (403) for another value than the
    fixed one, and for a report that does not take a fixed parameter: it would return rows of others.
    """
    bound = dict(given)
    for name, value in caller.parameters.items():
        if name not in known:
            raise QueryError(
                403,
                "parameter_fixed",
                f"the token {caller.name} is bound to {name}, which this report does not take",
                parameter=name,
            )
        requested = given.get(name)
        if requested is not None and not _is_same(requested, value):
            raise QueryError(
                403,
                "parameter_fixed",
                f"the token {caller.name} is bound to {name} = {value!r}",
                parameter=name,
            )
        bound[name] = value
    return bound


def apply_bound_filters(
    caller: Caller, takes_filters: bool, given: Sequence[Filter]
) -> list[Filter]:
    """Return the filters of a report: the caller's fixed ones, then the given ones.

    Raises QueryError (403) if the report takes no filters: it would return rows of others.
    """
    if caller.filters and not takes_filters:
        raise QueryError(
            403,
            "filter_fixed",
            f"the token {caller.name} is bound to filters, which this report does not take",
            parameter="filters",
        )
    return [*caller.filters, *given]


def require_own_range(caller: Caller) -> None:
    """Raise QueryError (403) if the range is fixed: a comparison would read another one."""
    for name in ("from", "to"):
        if name in caller.parameters:
            raise QueryError(
                403,
                "parameter_fixed",
                f"the token {caller.name} is bound to {name}, which excludes a comparison",
                parameter="compare",
            )


def is_confined(caller: Caller) -> bool:
    """Return whether the caller may read a part of the events only."""
    return bool(caller.parameters or caller.filters)


def partition(caller: Caller) -> str:
    """Return the cache partition: one for each token, and "" for all anonymous callers."""
    return "" if caller.token is None else caller.name


def is_loopback(address: str | None) -> bool:
    """Return whether the address is a loopback address; False for None."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _is_local_host(host: str) -> bool:
    match = _HOST.match(host)
    if not match or not host.isascii():
        return False
    name = match[1].strip("[]").lower()
    if name in _LOCAL_NAMES:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True  # DNS rebinding needs a name


def _is_same(requested: object, fixed: str | int) -> bool:
    # In a URL a number is text.
    return (
        not isinstance(requested, bool)
        and isinstance(requested, str | int)
        and str(requested) == str(fixed)
    )


def _unauthorized(code: str, message: str, error: str) -> AccessDenied:
    challenge = f'{_CHALLENGE}, error="{error}"' if error else _CHALLENGE
    return AccessDenied(401, code, message, {"WWW-Authenticate": challenge})
