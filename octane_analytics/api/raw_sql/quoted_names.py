"""Names that a statement quotes, as ClickHouse's own lexer finds them, and which of them are refused.

`EXPLAIN` prints names, and patterns of columns, as they are: one with a line break or a separator in it
would be read as structure. They are found by the server that also runs the statement (`tokenizeQuery`,
ClickHouse 26.5), for lexers differ: it takes typographic quotes for quotes and U+2028 for a space, nests
comments and has heredocs. Tokens are taken twice: of the statement as it is, and of its form by
`formatQuerySingleLine`, where escapes are decoded and a text that stands for a name (`FROM 'file'`) is
quoted like one. Does not depend on the grammar of SQL.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from octane_analytics.api.raw_sql import patterns
from octane_analytics.errors import QueryError

PROBE = """\
WITH {statement:String} AS statement, formatQuerySingleLine(statement) AS formatted,
    tokenizeQuery(statement) AS tokens,
    arrayFilter(token -> token.type NOT IN ('Whitespace', 'Comment'), tokenizeQuery(formatted))
        AS plain,
    arrayMap(token -> upper(substring(formatted, token.begin + 1, token.end - token.begin)), plain)
        AS words,
    arrayPushFront(arrayPopBack(words), '') AS previous,
    arrayPushFront(arrayPopBack(previous), '') AS before
SELECT toString(normalizedQueryHash(statement)),
    arrayMap(token -> hex(substring(statement, token.begin + 1, token.end - token.begin)),
        arrayFilter(token -> token.type = 'QuotedIdentifier', tokens)),
    arrayMap(token -> hex(substring(formatted, token.begin + 1, token.end - token.begin)),
        arrayFilter(token -> token.type = 'QuotedIdentifier', plain)),
    arrayMap(token -> hex(substring(formatted, token.begin + 1, token.end - token.begin)),
        arrayFilter((token, one, two) -> token.type = 'StringLiteral' AND (
                one IN ('EXCEPT', 'STRICT', 'COLLATE')
                OR (one = '(' AND two IN ('COLUMNS', 'EXCEPT', 'STRICT'))),
            plain, previous, before)),
    arrayExists((word, one) -> word = 'IDENTIFIER' AND one = ':', words, previous)
"""
"""The statement is a bound value, so nothing of it can join the words before it: what passes here is one
whole statement by itself. Executes nothing of it."""

_SCOPE = ": In scope WITH "


@dataclass(frozen=True, slots=True)
class Probed:
    """What PROBE returned: the fingerprint, and tokens with their quotes, in hexadecimal digits."""

    fingerprint: str
    names: Sequence[str]
    formatted_names: Sequence[str]
    patterns: Sequence[str]
    has_identifier_parameter: bool


def check(probed: Probed) -> None:
    """Raise QueryError (403) if a name or pattern could be read as structure of an EXPLAIN."""
    for name in _decoded((*probed.names, *probed.formatted_names)):
        if reason := _problem(name[1:-1]):
            raise _refused(f"the quoted name {name[:80]!a} {reason}: choose another name")
    for pattern in _decoded(probed.patterns):
        text = re.sub(r"\\[\\']", "", pattern[1:-1])
        if not text.isprintable() or "\\" in text:
            raise _refused(
                f"the pattern {pattern[:80]!a} has a control character or a line break; "
                "write it without"
            )
        if objection := patterns.objection("match", text):
            raise _refused(f"the pattern of COLUMNS or EXCEPT is not allowed: {objection}")
    if probed.has_identifier_parameter:
        raise _refused("a parameter of type Identifier is not allowed: write the name itself")


def unquoted(probed: Probed) -> list[str]:
    """The names without their quotes. To be called after `check`."""
    return [name[1:-1] for name in _decoded((*probed.names, *probed.formatted_names))]


def without_probe(message: str) -> str:
    """Message of the parser about a probed statement, without the probe."""
    return message.partition(_SCOPE)[0]


def _problem(name: str) -> str | None:
    if not name.isprintable():
        return "has a control character, a line break or an invisible character"
    if "\\" in name:
        return "has a backslash"
    if ", " in name or ": " in name:
        return "has a comma or a colon with a space after it"
    return None


def _decoded(tokens: Iterable[str]) -> list[str]:
    try:
        return [bytes.fromhex(token).decode() for token in tokens]
    except UnicodeDecodeError as error:
        raise _refused("a name or pattern is not UTF-8: choose another name") from error


def _refused(message: str) -> QueryError:
    return QueryError(403, "forbidden_statement", message)
