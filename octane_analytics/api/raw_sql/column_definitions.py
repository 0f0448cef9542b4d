"""Structures of columns as table functions take them: `a String, b DateTime('UTC')`.

ClickHouse reads such a text as the columns of CREATE TABLE, in which an ALIAS or a DEFAULT is an
expression that it then evaluates: no tree shows it. So only names and types are let through, and of the
types those listed here. Refuses to know where the text stood.
"""

import re
from collections.abc import Iterator

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


def is_plain(text: str) -> bool:
    """Whether the text is nothing but names, each with a type behind it."""
    try:
        tokens = _Tokens(text)
        _columns(tokens)
    except ValueError:
        return False
    return tokens.next == _END


class _Tokens:
    """`next` is the token to be taken. Raises ValueError where there is none that we know."""

    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)
        self.next = next(self._rest)

    def take(self, *expected: str) -> str:
        taken = self.next
        if expected and taken not in expected:
            raise ValueError(taken)
        self.next = next(self._rest)
        return taken


def _tokens(text: str) -> Iterator[str]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if not found:
            raise ValueError(text[at:])
        yield found[0].strip()
        at = found.end()
    while True:
        yield _END


def _columns(tokens: _Tokens) -> None:
    while True:
        _name(tokens)
        _type(tokens)
        if tokens.next != ",":
            return
        tokens.take(",")


def _name(tokens: _Tokens) -> None:
    if not re.fullmatch(r"[^\W\d]\w*", tokens.take()):
        raise ValueError


def _type(tokens: _Tokens) -> None:
    if tokens.take().lower() not in _TYPES:
        raise ValueError
    if tokens.next == "(":
        tokens.take("(")
        _argument(tokens)
        while tokens.take(",", ")") == ",":
            _argument(tokens)


def _argument(tokens: _Tokens) -> None:
    """A number, a string, an Enum's value, a type, or a Tuple's element: a name and a type."""
    if tokens.next.startswith("'"):
        tokens.take()
        if tokens.next == "=":
            tokens.take("=")
            _number(tokens)
    elif tokens.next.lstrip("-").isdigit():
        tokens.take()
    elif tokens.next.lower() in _TYPES:
        _type(tokens)
    else:
        _name(tokens)
        _type(tokens)


def _number(tokens: _Tokens) -> None:
    if not tokens.take().lstrip("-").isdigit():
        raise ValueError
