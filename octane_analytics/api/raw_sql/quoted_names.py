"""Check of the quoted names in a statement, as found by ClickHouse's own lexer.

`EXPLAIN` prints names and column patterns without escaping: a line break or a separator in one
would be read as structure. The server that runs the statement also finds the names
(`tokenizeQuery`, ClickHouse 26.5), because lexers differ: ClickHouse's accepts typographic quotes,
treats U+2028 as a space, nests comments and has heredocs. The tokens are read twice: from the
statement unchanged, and from the output of `formatQuerySingleLine`, where escapes are decoded and a
string in place of a name (`FROM 'file'`) is quoted as a name. The formatted text lacks some clauses
that ClickHouse obeys: a parameter as an alias (`1 AS {name:Identifier}`) and the UUID of a table.
Does not depend on the grammar of SQL.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from octane_analytics.api.raw_sql import patterns, type_names
from octane_analytics.api.raw_sql.errors import forbidden

PROBE = """\
WITH {statement:String} AS statement, formatQuerySingleLine(statement) AS formatted,
    tokenizeQuery(statement) AS tokens,
    arrayFilter(token -> token.type NOT IN ('Whitespace', 'Comment'), tokens) AS given,
    arrayMap(token -> upper(substring(statement, token.begin + 1, token.end - token.begin)), given)
        AS given_words,
    arrayPushFront(arrayPopBack(given_words), '') AS given_previous,
    arrayFilter(token -> token.type NOT IN ('Whitespace', 'Comment'), tokenizeQuery(formatted))
        AS plain,
    arrayMap(token -> upper(substring(formatted, token.begin + 1, token.end - token.begin)), plain)
        AS words,
    arrayPushFront(arrayPopBack(words), '') AS previous,
    arrayPushFront(arrayPopBack(previous), '') AS before,
    arrayPushFront(arrayPopBack(before), '') AS earlier,
    arrayReverseFill((token, word) -> word = '}', plain, words) AS ends
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
    arrayExists((word, one) -> word = 'IDENTIFIER' AND one = ':', given_words, given_previous),
    arrayMap((token, end) -> hex(substring(formatted, token.begin + 1, end.begin - token.begin)),
        arrayFilter((token, one, three) -> one = ':' AND three = '{', plain, previous, earlier),
        arrayFilter((end, one, three) -> one = ':' AND three = '{', ends, previous, earlier)),
    arrayExists((word, one, two) -> word IN ('*', 'COLUMNS') AND one = '.'
            AND match(two, '^[^\\\\w`"]'), words, previous, before),
    countEqual(given_words, '{') > countEqual(words, '{')
        OR arrayExists((token, one) -> one = 'UUID' AND token.type IN ('StringLiteral', 'HereDoc'),
            given, given_previous)
"""
"""Binds the statement as a value, so that it cannot continue the text of the probe: a statement that
passes is complete by itself. Executes no part of it."""

_SCOPE = ": In scope WITH "


@dataclass(frozen=True, slots=True)
class Probed:
    """Result of PROBE: the fingerprint, and tokens with their quotes, hex-encoded."""

    fingerprint: str
    names: Sequence[str]
    formatted_names: Sequence[str]
    patterns: Sequence[str]
    has_identifier_parameter: bool
    parameter_types: Sequence[str] = ()
    """Types of `{name:Type}`, hex-encoded: ClickHouse resolves them as it explains."""
    has_qualified_expression: bool = False
    """An expression precedes `.*`: ClickHouse drops it, and no EXPLAIN shows it."""
    has_dropped_clause: bool = False
    """The formatted statement lacks a parameter, or may lack the UUID of a table."""


def check(probed: Probed) -> None:
    """Raise QueryError (403) if a name or pattern could be read as structure of an EXPLAIN."""
    for name in _decode((*probed.names, *probed.formatted_names)):
        if reason := _problem(name[1:-1]):
            raise forbidden(f"the quoted name {name[:80]!a} {reason}: choose another name")
    for pattern in _decode(probed.patterns):
        text = re.sub(r"\\[\\']", "", pattern[1:-1])
        if not text.isprintable() or "\\" in text:
            raise forbidden(
                f"the pattern {pattern[:80]!a} has a control character or a line break; "
                "write it without"
            )
        if objection := patterns.objection("match", text):
            raise forbidden(f"the pattern of COLUMNS or EXCEPT is not allowed: {objection}")
    if probed.has_identifier_parameter:
        raise forbidden("a parameter of type Identifier is not allowed: write the name itself")
    if probed.has_qualified_expression:
        raise forbidden(
            "an expression before .* or .COLUMNS is not allowed: name a table or column"
        )
    if probed.has_dropped_clause:
        raise forbidden(
            "the UUID of a table, or a parameter in place of a name, is not allowed: write the name"
        )
    for text in _decode(probed.parameter_types):
        if not type_names.is_type(text):
            raise forbidden(
                f"the type {text[:80]!a} of a parameter is not a plain type with known time zones"
            )


def unquoted(probed: Probed) -> list[str]:
    """Return the names without their quotes. Must be called after `check`."""
    return [name[1:-1] for name in _decode((*probed.names, *probed.formatted_names))]


def without_probe(message: str) -> str:
    """Remove the probe from the parser's message about a probed statement."""
    return message.partition(_SCOPE)[0]


def _problem(name: str) -> str | None:
    if not name.isprintable():
        return "has a control character, a line break or an invisible character"
    if "\\" in name:
        return "has a backslash"
    if ", " in name or ": " in name:
        return "has a comma or a colon with a space after it"
    return type_names.objection_to_name(name)


def _decode(tokens: Iterable[str]) -> list[str]:
    try:
        return [bytes.fromhex(token).decode() for token in tokens]
    except UnicodeDecodeError as error:
        raise forbidden("a name or pattern is not UTF-8: choose another name") from error
