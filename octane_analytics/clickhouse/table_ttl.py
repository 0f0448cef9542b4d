"""Reader of the clauses of a live table's definition, as `system.tables.engine_full` has them: its TTL.

ClickHouse writes `engine_full` itself, in one form: keywords in capitals, texts in quotes. Text within
quotes or parentheses is never read as a keyword. Does not depend on a connection.
"""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

_TOKEN = re.compile(r"'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`|\"(?:\\.|[^\"\\])*\"|\w+|.", re.DOTALL)
_OPENING, _CLOSING = frozenset("(["), frozenset(")]")
_STAYS = frozenset({"TO", "RECOMPRESS"})
"""Start of an action that moves or compresses rows."""
_LEAVES = frozenset({"DELETE", "WHERE"})
_REWRITES = "GROUP"
_ABOUT_TO_EXPIRE_SECONDS = 60
"""Rows that expire so soon are treated as expired: the clocks of replicas differ by seconds."""


class _Word(NamedTuple):
    text: str
    start: int
    end: int


def _outer_words(text: str) -> Iterator[_Word]:
    """Yield the words and commas outside of quotes and parentheses."""
    depth = 0
    for match in _TOKEN.finditer(text):
        part = match[0]
        if part in _OPENING:
            depth += 1
        elif part in _CLOSING:
            depth -= 1
        elif depth == 0 and (part == "," or part[0].isalnum() or part[0] == "_"):
            yield _Word(part, match.start(), match.end())


def ttl_of(engine_full: str) -> str:
    """Return the TTL clause without its keyword; empty if the table has none."""
    start = None
    end = len(engine_full)
    for word in _outer_words(engine_full):
        if start is None and word.text == "TTL":
            start = word.end
        elif word.text in ("SETTINGS", "COMMENT"):
            end = word.start
            break
    return "" if start is None else engine_full[start:end].strip()


def columns_with_ttl(create_query: str) -> list[str]:
    """Return the columns whose values expire by a TTL of their own; the query is `create_table_query` of
    `system.tables`.

    ClickHouse replaces an expired value by the column's default: the row no longer equals the inserted.
    """
    found = []
    depth, name = 0, ""
    for match in _TOKEN.finditer(create_query):
        part = match[0]
        depth += (part in _OPENING) - (part in _CLOSING)
        if depth == 0 and part in _CLOSING:
            break  # the end of the columns
        if depth == 1 and part in "(,":
            name = ""
        elif depth == 1 and not name and not part.isspace():
            name = next(_names(part), part)
        elif depth == 1 and part == "TTL":
            found.append(name)
    return found


def setting_of(engine_full: str, name: str) -> str:
    """Return the value of a setting of the table; empty if the definition does not have it."""
    is_of_settings = False
    for word in _outer_words(engine_full):
        if word.text == "SETTINGS":
            is_of_settings = True
        elif is_of_settings and word.text == name:
            return engine_full[word.end :].removeprefix(" = ").partition(",")[0].strip()
    return ""


def unexpired_condition(ttl: str, other_columns: Collection[str] = ()) -> str | None:
    """Return the SQL condition of rows that no part of the TTL clause has removed or will soon remove.

    None if a row that is gone may not be lost: the TTL aggregates rows (GROUP BY), or depends on columns
    that a row does not have before it is inserted.
    """
    if any(name in other_columns for name in _names(ttl)):
        return None
    conditions = []
    for element in _elements(ttl):
        words = list(_outer_words(element))
        action = next((w for w in words if w.text in _STAYS | _LEAVES | {_REWRITES}), None)
        if action is not None and action.text == _REWRITES:
            return None
        if action is not None and action.text in _STAYS:
            continue
        expression = element if action is None else element[: action.start]
        # As in ClickHouse, a TTL of zero never expires.
        alive = (
            f"({expression}) > now() + INTERVAL {_ABOUT_TO_EXPIRE_SECONDS} SECOND "
            f"OR toUInt32({expression}) = 0"
        )
        where = next((w for w in words if w.text == "WHERE"), None)
        if where is not None:
            alive += f" OR NOT ({element[where.end :]})"
        conditions.append(f"({alive})")
    return " AND ".join(conditions) or "1"


def _names(text: str) -> Iterator[str]:
    """Yield the words and quoted identifiers, also within parentheses."""
    for match in _TOKEN.finditer(text):
        part = match[0]
        if part[0] in '`"' and len(part) > 1:
            yield re.sub(r"\\(.)", r"\1", part[1:-1])
        elif part[0].isalnum() or part[0] == "_":
            yield part


def _elements(ttl: str) -> Iterator[str]:
    """Yield the parts of the clause; commas after GROUP BY do not divide."""
    start = 0
    is_grouping = False
    for word in _outer_words(ttl):
        is_grouping |= word.text == _REWRITES
        if word.text == "," and not is_grouping:
            yield ttl[start : word.start]
            start = word.end
    if ttl.strip():
        yield ttl[start:]
