"""Patterns that a function may search for: literals, short, and of bounded cost.

ClickHouse looks at the limits of a query between blocks, not within the search of one string. A pattern
of thousands of wildcards, or a function that starts a new search after each match, keeps a thread for
minutes after `max_execution_time`. Does not depend on the query tree.
"""

import re
from collections.abc import Mapping

MAX_BYTES = 256
MAX_FOLDED_BYTES = 64
"""Limit of searches that fold the case of UTF-8: 14 ns for each byte of the value and pattern."""
MAX_GROUP_REPETITION = 10

_SEARCHES = (
    "countsubstringscaseinsensitive countsubstringscaseinsensitiveutf8 extract extractgroups ilike like "
    "mapcontainskeylike mapcontainsvaluelike mapextractkeylike mapextractvaluelike match "
    "matchcaseinsensitive notilike notlike notmatch notmatchcaseinsensitive positioncaseinsensitive "
    "positioncaseinsensitiveutf8 regexp_extract regexp_matches regexp_substr regexpextract "
    "replaceregexpone"
)
"""One search for each value: linear in the value, times the length of the pattern."""
_REPEATED_SEARCHES = (
    "countmatches countmatchescaseinsensitive extractall extractallgroups extractallgroupshorizontal "
    "extractallgroupsvertical regexp_instr regexp_replace regexpinstr regexpposition replaceregexpall "
    "splitbyregexp"
)
"""A new search after each match: quadratic where each match is short and its search is long."""
_SETS = " ".join(
    [
        "multifuzzymatchallindices multifuzzymatchany multifuzzymatchanyindex",
        "multimatchallindices multimatchany multimatchanyindex",
        *(
            f"multisearch{kind}{suffix}"
            for kind in ("allpositions", "any", "firstindex", "firstposition")
            for suffix in ("", "utf8", "caseinsensitive", "caseinsensitiveutf8")
        ),
    ]
)
"""One search for an array of patterns: MAX_BYTES counts all of them."""
_JSON_PATHS = "json_exists json_query json_value"

_PLACES: Mapping[str, int] = {
    **dict.fromkeys(f"{_SEARCHES} {_REPEATED_SEARCHES} {_SETS} {_JSON_PATHS}".split(), 1),
    **dict.fromkeys(
        ("multifuzzymatchallindices", "multifuzzymatchany", "multifuzzymatchanyindex"), 2
    ),
    "splitbyregexp": 0,
}
_REPEATED = frozenset(_REPEATED_SEARCHES.split())
_EXPRESSIONS = frozenset(
    name
    for name in f"{_SEARCHES} {_REPEATED_SEARCHES}".split()
    if not name.endswith("like") and not name.startswith(("countsubstrings", "position"))
)
_PATHS = frozenset(_JSON_PATHS.split())

_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x\{[^}]*\}|.)", re.DOTALL)
_COUNTED_GROUP = re.compile(r"\)\{(\d+)(?:,(\d*))?\}")
_UNBOUNDED = re.compile(r"[*+]|\{\d+,\}")
_BOUNDARIES = frozenset([r"\b", r"\B", r"\A", r"\z"])
_CHOICE = re.compile(r"\||\)[*+?{]|\(\?(?!:|i\))")
"""Syntax with which a search that has found a short match goes on for a longer one: alternatives,
repeated groups, and flags, which may change the meaning of other characters."""

_ASSERTION = re.compile(r"\\[bBAz]|[$^]")
_ANCHORED = re.compile(r"\^?(?![*+?{])(?P<inner>[^$^]*)\$?\Z")
_MANDATORY = re.compile(r"[^()|*+?{}](?![*?]|\{0)")


def place(function: str) -> int | None:
    """Index of the argument that is a pattern; None for a function without one."""
    return _PLACES.get(function.lower())


def objection(function: str, pattern: str | None) -> str | None:
    """Return what is wrong with the pattern for that function, and what to do; None if it is allowed.

    `pattern` is None if the argument is not a literal.
    """
    name = function.lower()
    if pattern is None:
        return "its pattern must be a literal, or a parameter such as {pattern:String}"
    is_folded = name.endswith(("ilike", "insensitiveutf8"))
    max_bytes = MAX_FOLDED_BYTES if is_folded else MAX_BYTES
    if len(pattern.encode("utf-8", "surrogatepass")) > max_bytes:
        return f"its pattern has more than {max_bytes} bytes: search for less"
    if name in _PATHS:
        is_plain = "*" not in pattern and " to " not in pattern
        return None if is_plain else "its path must not have * or ranges: use JSONExtract…Raw"
    if name not in _EXPRESSIONS:
        return None
    signs = _signs(pattern)
    if signs is None:
        return r"its pattern has \Q or an unfinished class: escape each character with \ instead"
    if any(int(high or low) > MAX_GROUP_REPETITION for low, high in _COUNTED_GROUP.findall(signs)):
        return f"its pattern repeats a group more than {MAX_GROUP_REPETITION} times: use * or +"
    if name in _REPEATED and _UNBOUNDED.search(signs) and _CHOICE.search(signs):
        return (
            "it starts a new search after each match, so a pattern with *, + or {n,} must not have "
            "alternatives, repeated groups or flags other than (?i): call it once for each alternative"
        )
    if name in _REPEATED and _ASSERTION.search(signs) and not _is_anchored(signs):
        return (
            r"it starts a new search after each match: \b, \B, \A and \z are not allowed, ^ and $ only "
            "at the ends of a pattern that must match a character"
        )
    return None


def _is_anchored(signs: str) -> bool:
    """Return whether ^ and $ stand only at the ends, around a part that must match a character."""
    found = _ANCHORED.match(signs)
    if not found or "\\" in signs or _CHOICE.search(signs):
        return False
    return _MANDATORY.search(found["inner"].replace("(?:", "(").replace("(?i)", "")) is not None


def _signs(pattern: str) -> str | None:
    """The regular expression with an `x` for each escape and each class; None if that is unclear."""
    if "\\Q" in pattern:
        return None
    signs, position = [], 0
    while position < len(pattern):
        expression = {"\\": _ESCAPE, "[": _CLASS}.get(pattern[position])
        found = expression.match(pattern, position) if expression else None
        if expression and not found:
            return None
        sign = found[0] if found and found[0] in _BOUNDARIES else "x"
        signs.append(sign if found else pattern[position])
        position = found.end() if found else position + 1
    return "".join(signs)
