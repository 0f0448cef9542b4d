"""The TOML file that lists the API's tokens: its format, its errors, and reloads after a change.

The file holds the SHA-256 of each token and never the token.

    [tokens.dashboard]
    hash = "sha256:…"
    scopes = ["report"]                     # report, query, metrics
    parameters = { app_id = "openstream" }  # fixed for all reports; excludes raw SQL
    filters = [{ property = "tenant", value = "acme" }]  # added to those of all reports; likewise
    rate = "20/s"                           # or "600/min"
    burst = 40                              # requests at once that the rate allows
    concurrency = 4                         # requests in progress
    expires = 2027-01-01T00:00:00Z

The module `token_file_editor` changes the file.
"""

import logging
import math
import os
import re
import tomllib
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from octane_analytics.api.auth.tokens import QUERY, SCOPES, Token, Tokens, is_name, parse_rate
from octane_analytics.api.filters import Filter, validated
from octane_analytics.errors import ConfigError, QueryError
from octane_analytics.telemetry.logging import fields

MAX_TOKENS = 4096
_CHECK_SECONDS = 1.0

_HASH = re.compile(r"sha256:([0-9a-f]{64})\Z")
_TOML_LINE = re.compile(r"at line (\d+)")
_FIELD = re.compile(r"`(?:\$\.)?(\w+)[^`]*`\Z")

log = logging.getLogger(__name__)


class _Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    hash: str
    scopes: list[str]
    parameters: dict[str, str | int] = {}
    filters: list[Filter] = []
    rate: str | None = None
    burst: int | None = None
    concurrency: int | None = None
    created: datetime | None = None
    expires: datetime | None = None


def read(path: Path) -> Tokens:
    """Return the file's tokens. Raises ConfigError with the file and line of the first error."""
    try:
        text = path.read_bytes().decode("utf-8")
        is_world_writable = bool(path.stat().st_mode & 0o002)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"API_TOKENS_FILE: cannot read {path}: {reason}") from error
    if is_world_writable:
        raise ConfigError(f"API_TOKENS_FILE: {path} is writable by all users: run chmod 600 {path}")
    return parse(text, path)


def parse(text: str, path: Path) -> Tokens:
    """Parse the text of a token file; `path` is for errors, which are those of `read`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigError(f"{path}:{line}: {error}") from error
    for key in document:
        if key != "tokens":
            raise ConfigError(
                f"{path}:{_line_of(text, key)}: unknown key {key!r}; tokens are tables "
                "[tokens.NAME]"
            )
    tables = document.get("tokens", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}:{_line_of(text, 'tokens')}: tokens are tables [tokens.NAME]")
    if len(tables) > MAX_TOKENS:
        raise ConfigError(f"{path}:1: more than {MAX_TOKENS} tokens")
    listed: list[Token] = []
    for name, table in tables.items():
        try:
            listed.append(_token(name, table, {token.digest for token in listed}))
        except ValueError as error:  # msgspec's ValidationError is one
            where = _FIELD.search(str(error))
            line = _line_of(text, where[1] if where else None, name)
            raise ConfigError(f"{path}:{line}: token {name}: {error}") from error
    return Tokens(listed)


def _token(name: str, table: Any, taken: set[bytes]) -> Token:
    if not is_name(name):
        raise ValueError("a name is up to 64 of A-Z, a-z, 0-9, - and _")
    entry = msgspec.convert(table, _Entry)
    digest = _HASH.match(entry.hash)
    if not digest:
        raise ValueError("must be sha256: and 64 hexadecimal digits - at `hash`")
    if bytes.fromhex(digest[1]) in taken:
        raise ValueError("another token has the same hash - at `hash`")
    if not entry.scopes or not set(entry.scopes) <= set(SCOPES):
        raise ValueError(f"must be one or more of {', '.join(SCOPES)} - at `scopes`")
    if entry.concurrency is not None and not 1 <= entry.concurrency <= 10_000:
        raise ValueError("must be from 1 to 10000 - at `concurrency`")
    if entry.expires is not None and entry.expires.tzinfo is None:
        raise ValueError("needs an offset, such as 2027-01-01T00:00:00Z - at `expires`")
    try:
        filters = validated(entry.filters)
    except QueryError as error:
        raise ValueError(f"{error} - at `filters`") from error
    is_confined = bool(entry.parameters or filters)
    scopes = frozenset(entry.scopes) - ({QUERY} if is_confined else set())
    return Token(
        name,
        bytes.fromhex(digest[1]),
        scopes,
        MappingProxyType(dict(entry.parameters)),
        filters,
        parse_rate(entry.rate, entry.burst),
        entry.concurrency,
        entry.expires,
    )


def _line_of(text: str, key: str | None, token: str | None = None) -> int:
    """Return the line of the key if it can be determined, otherwise that of the token's table."""
    lines = text.split("\n")
    first = 0
    if token is not None:
        header = re.compile(rf"\s*\[\s*tokens\s*\.\s*[\"']?{re.escape(token)}[\"']?\s*\]")
        first = next((n for n, line in enumerate(lines) if header.match(line)), 0)
    if key is not None:
        # The table itself, or its key before the next table begins.
        wanted = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}\b")
        for number in range(first, len(lines)):
            if number > first and token is not None and lines[number].lstrip().startswith("["):
                break
            if wanted.match(lines[number]):
                return number + 1
    return first + 1


class TokenFile:
    """The tokens of a file that may change; it is checked at most once a second.

    A file that has become unreadable or invalid is logged once, and the previous tokens stay in use.
    """

    def __init__(self, path: Path) -> None:
        """Read the file. Raises ConfigError as `read` does."""
        self._path = path
        self._identity = _identity(path)
        self._tokens = read(path)
        self._checked_at = -math.inf

    def current(self, now: float) -> Tokens:
        """Return the tokens; read the file if it has changed. `now` is in monotonic seconds."""
        if now - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = now
            identity = _identity(self._path)
            if identity != self._identity:
                self._identity = identity
                self._reread()
        return self._tokens

    def _reread(self) -> None:
        try:
            self._tokens = read(self._path)
        except ConfigError as error:
            log.error(
                "tokens not reloaded; the previous ones stay in use", extra=fields(error=str(error))
            )
        else:
            log.info("tokens reloaded", extra=fields(tokens=len(self._tokens.listed)))


def _identity(path: Path) -> tuple[int, ...] | None:
    """Return values that change when the file does; None if it cannot be accessed."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
