"""Tokens: what each permits, and how a presented one is recognized.

Tokens are 256 random bits, which cannot be guessed, so a deliberately slow hash, as for passwords, would
only slow down each request. Does not depend on HTTP; the module `token_file` reads the file that lists
them.
"""

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from octane_analytics.api.filters import Filter

REPORT, QUERY, METRICS = "report", "query", "metrics"
SCOPES = (REPORT, QUERY, METRICS)
PREFIX = "octane_"
"""Lets scanners for secrets, and people, recognize a token."""
_RANDOM_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_RATE = re.compile(r"([0-9]{1,6})/(s|min|h)\Z")
_PERIOD_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class TokenRate:
    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of the file. `scopes` are those in effect: without raw SQL if parameters or filters are
    fixed."""

    name: str
    digest: bytes
    scopes: frozenset[str]
    parameters: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))
    filters: tuple[Filter, ...] = ()
    rate: TokenRate | None = None
    concurrency: int | None = None
    expires: datetime | None = None

    def is_expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


class Tokens:
    def __init__(self, listed: Sequence[Token]) -> None:
        self.listed = tuple(listed)

    def find(self, presented: str) -> Token | None:
        """Return the token with that text, or None. Takes the same time in all cases."""
        digest = digest_of(presented)
        found = None
        for token in self.listed:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found


def generate() -> str:
    """Return a new token."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def is_name(name: str) -> bool:
    return bool(_NAME.match(name))


def parse_rate(text: str | None, burst: int | None) -> TokenRate | None:
    """Parse a rate such as `20/s` or `600/min`; the default burst is that of one second.

    Raises ValueError for anything else.
    """
    if text is None:
        if burst is not None:
            raise ValueError("a burst needs a rate - at `burst`")
        return None
    found = _RATE.match(text)
    if not found or int(found[1]) == 0:
        raise ValueError("must be a rate such as 20/s, 600/min or 1000/h - at `rate`")
    per_second = int(found[1]) / _PERIOD_SECONDS[found[2]]
    if burst is not None and not 1 <= burst <= 1_000_000:
        raise ValueError("must be from 1 to 1000000 - at `burst`")
    return TokenRate(per_second, math.ceil(per_second) if burst is None else burst)
