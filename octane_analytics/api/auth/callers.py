"""Who asks, and what they may: a token in `Authorization: Bearer …`, or, without tokens, a local client.

Where there are tokens every request needs one, from loopback too: behind a proxy on the same host all
of them come from there. Owns who a request is from; refuses to know routes and rates.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from starlette.datastructures import Headers

from octane_analytics.api.auth.tokens import METRICS, QUERY, REPORT, Token, Tokens
from octane_analytics.errors import QueryError

ANONYMOUS = "anonymous"
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::[0-9]{1,5})?\Z")
_CHALLENGE = 'Bearer realm="octane-analytics"'


@dataclass(frozen=True, slots=True)
class Caller:
    """`parameters` are what each of its reports runs with. `token` is None for one without."""

    name: str
    scopes: frozenset[str]
    parameters: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))
    token: Token | None = None


class AccessDenied(QueryError):
    """A refusal that carries headers: what is missing, or when to come again."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, code, message)
        self.headers = dict(headers or {})


def by_token(headers: Headers, tokens: Tokens, now: datetime) -> Caller:
    """The caller of that token. Raises NotAdmitted: 401, and 400 for what no client should send."""
    given = headers.getlist("authorization")
    if len(given) > 1:
        # Which of them counts, another reader of the same request may see otherwise.
        raise AccessDenied(400, "bad_request", "more than one Authorization header")
    if not given:
        raise _unauthorized("token_missing", "a token is needed: Authorization: Bearer TOKEN", "")
    scheme, _, presented = given[0].partition(" ")
    if scheme.lower() != "bearer" or not presented.strip():
        raise _unauthorized("token_missing", "a token is needed: Authorization: Bearer TOKEN", "")
    token = tokens.find(presented.strip())
    if token is None:
        raise _unauthorized("token_unknown", "this token is not known", "invalid_token")
    if token.is_expired(now):
        raise _unauthorized("token_expired", "this token has expired", "invalid_token")
    return Caller(token.name, token.scopes, token.parameters, token)


def without_tokens(headers: Headers, peer: str | None, *, is_open: bool) -> Caller:
    """The anonymous caller: all scopes from loopback; from elsewhere reports, and only if `is_open`.

    What a proxy passed on is not from loopback. Raises NotAdmitted (403).
    """
    is_near = is_loopback(peer) and not any(name in headers for name in _OF_PROXIES)
    # A page of a foreign site whose name was made to point here (DNS rebinding) sends that name.
    is_named_so = _is_local_host(headers.get("host", ""))
    if is_near and is_named_so:
        return Caller(ANONYMOUS, frozenset({REPORT, QUERY, METRICS}))
    if is_open:
        return Caller(ANONYMOUS, frozenset({REPORT}))
    if is_near:
        raise AccessDenied(
            403,
            "not_local",
            "without tokens the API answers to localhost and IP addresses only, not to that Host",
        )
    raise AccessDenied(403, "not_local", "without tokens only this machine is served")


def admit(caller: Caller, scope: str) -> None:
    """Raises NotAdmitted (403) unless the caller has the scope."""
    if scope in caller.scopes:
        return
    if caller.token is None:
        raise AccessDenied(
            403, "not_local", f"the scope {scope} is for loopback, or for a token that has it"
        )
    why = f"the token {caller.name} has not the scope {scope}"
    if scope == QUERY and caller.parameters:
        why = f"the token {caller.name} has fixed parameters, and so no raw SQL"
    raise AccessDenied(
        403,
        "scope_missing",
        why,
        {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'},
    )


def apply_bound_parameters(
    caller: Caller, known: Collection[str], given: Mapping[str, object]
) -> dict[str, object]:
    """What a report runs with that knows these parameters: what is given, and the caller's fixed ones.

    Raises QueryError (403) for another value than the fixed one, and where the report does not take
    the parameter: its rows could be anybody's.
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
        asked = given.get(name)
        if asked is not None and not _is_same(asked, value):
            raise QueryError(
                403,
                "parameter_fixed",
                f"the token {caller.name} is bound to {name} = {value!r}",
                parameter=name,
            )
        bound[name] = value
    return bound


def partition(caller: Caller) -> str:
    """Whose answers may be kept and shared together: each token's apart, all anonymous ones as ""."""
    return "" if caller.token is None else caller.name


def is_loopback(address: str | None) -> bool:
    """Whether only this machine can be meant. None, for one without an address, is not."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _is_local_host(host: str) -> bool:
    found = _HOST.match(host)
    if not found or not host.isascii():
        return False
    name = found[1].strip("[]").lower()
    if name in _LOCAL_NAMES:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True  # an address is no name that somebody else could have pointed here


def _is_same(asked: object, fixed: str | int) -> bool:
    # In a URL a number comes as text.
    return not isinstance(asked, bool) and isinstance(asked, str | int) and str(asked) == str(fixed)


def _unauthorized(code: str, message: str, error: str) -> AccessDenied:
    challenge = f'{_CHALLENGE}, error="{error}"' if error else _CHALLENGE
    return AccessDenied(401, code, message, {"WWW-Authenticate": challenge})
