"""Parser of column definitions in arguments of table functions: `a String, b DateTime('UTC')`.

ClickHouse reads such a text as the columns of CREATE TABLE, and evaluates the expression of an
ALIAS or a DEFAULT in it, which no tree shows. Only names and the types listed here are therefore
accepted. Does not depend on where the text comes from.
"""

import re
from collections.abc import Iterator

from octane_analytics.api.timestamps import timezones

_TYPES = frozenset(
    [
        "array",
        "bfloat16",
        "bool",
        "date",
        "date32",
        "datetime",
        "datetime64",
        "decimal",
        "decimal32",
        "decimal64",
        "decimal128",
        "decimal256",
        "enum",
        "enum8",
        "enum16",
        "fixedstring",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "int128",
        "int256",
        "ipv4",
        "ipv6",
        "json",
        "lowcardinality",
        "map",
        "nullable",
        "string",
        "time",
        "time64",
        "tuple",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "uint128",
        "uint256",
        "uuid",
    ]
)
_TOKEN = re.compile(r"\s*(?:(\w+)|('[^'\\]*')|(-\d+)|([(),=]))")
_END = ""
_MAX_DEPTH = 100


def is_plain(text: str) -> bool:
    """Return whether the text consists only of names, each followed by a type."""
    try:
        tokens = _Tokens(text)
        _parse_columns(tokens)
    except ValueError:
        return False
    return tokens.next == _END


class _Tokens:
    """Token cursor; `next` is the token to be consumed. Raises ValueError for an unknown token."""

    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)
        self.next = next(self._rest)

    def consume(self, *expected: str) -> str:
        token = self.next
        if expected and token not in expected:
            raise ValueError(token)
        self.next = next(self._rest)
        return token


def _tokens(text: str) -> Iterator[str]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if not match:
            raise ValueError(text[position:])
        yield match[0].strip()
        position = match.end()
    while True:
        yield _END


def _parse_columns(tokens: _Tokens) -> None:
    while True:
        _parse_name(tokens)
        _parse_type(tokens)
        if tokens.next != ",":
            return
        tokens.consume(",")


def _parse_name(tokens: _Tokens) -> None:
    if not re.fullmatch(r"[^\W\d]\w*", tokens.consume()):
        raise ValueError


def _parse_type(tokens: _Tokens, depth: int = 0) -> None:
    name = tokens.consume().lower()
    if name not in _TYPES or depth > _MAX_DEPTH:
        raise ValueError
    if tokens.next == "(":
        tokens.consume("(")
        _parse_argument(tokens, name, depth + 1)
        while tokens.consume(",", ")") == ",":
            _parse_argument(tokens, name, depth + 1)


def _parse_argument(tokens: _Tokens, owner: str, depth: int) -> None:
    """Parse a number, a time zone, an Enum value, a type, or a Tuple element (a name and a type)."""
    if tokens.next.startswith("'"):
        text = tokens.consume()[1:-1]
        if not owner.startswith("enum") and text not in timezones():
            raise ValueError(text)
        if tokens.next == "=":
            tokens.consume("=")
            _parse_number(tokens)
    elif tokens.next.lstrip("-").isdigit():
        tokens.consume()
    elif tokens.next.lower() in _TYPES:
        _parse_type(tokens, depth)
    else:
        _parse_name(tokens)
        _parse_type(tokens, depth)


def _parse_number(tokens: _Tokens) -> None:
    if not tokens.consume().lstrip("-").isdigit():
        raise ValueError
