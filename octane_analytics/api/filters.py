"""Filters of a report's events: their values, their notation in a URL, and their SQL conditions.

The SQL consists of constant text and `{name:Type}` placeholders: the names of properties and the values
are bound by ClickHouse. A filter of a rollup's key repeats the key's expression, so that the rollup can
answer; every other filter makes ClickHouse read the events. Does not depend on HTTP or templates.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec

from octane_analytics.api import numbers
from octane_analytics.clickhouse.rollup_expressions import ANY_CONTENT, READABLE_PROPERTIES
from octane_analytics.errors import QueryError

Operator = Literal["eq", "ne", "in", "not_in", "gt", "lt", "exists"]
Scalar = str | int | float | bool

OPERATORS: tuple[str, ...] = get_args(Operator)
COLUMNS: Mapping[str, str] = {
    "app_id": "app_id",
    "event_name": "event_name",
    "user_id": "user_id",
    "content": ANY_CONTENT,
}
"""Names that denote a column or an expression over the event, not a property."""
PROPERTY_PREFIX = "properties."
"""Prefix that lets a property with the name of a column be filtered."""
PLACEHOLDER = "{filters:And}"
"""Place of the conditions in a template."""
MAX_FILTERS = 10
MAX_ITEMS = 100
MAX_NAME_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 1_000
NAME_PREFIX = "filter_"
"""Prefix of the bound names, which no parameter of a template has."""

_SEPARATOR = re.compile(r"[\\:,]")
_TRUTH = {"": True, "true": True, "1": True, "false": False, "0": False}


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Condition that the events of a report meet; `value` is checked by `validated`."""

    property: str
    op: Operator = "eq"
    value: Scalar | list[Scalar] | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """Condition in SQL, to be added after another one, and the values that ClickHouse binds."""

    sql: str = ""
    values: Mapping[str, object] = field(default_factory=dict)


def from_text(text: str) -> Filter:
    """Parse `property:op:value`, the notation of a URL; the items of a list are separated by commas.

    A colon or a comma of a name or an item has a backslash before it, as has a backslash. Raises
    QueryError (422).
    """
    name, op, value = [*_split(text, ":", 2), "", ""][:3]
    if op not in OPERATORS:
        raise _invalid(f"{text!r} must be PROPERTY:OP:VALUE with OP one of {', '.join(OPERATORS)}")
    if op in ("in", "not_in"):
        items: list[Scalar] = [_unescaped(item) for item in _split(value, ",")]
        return Filter(_unescaped(name), op, items)  # type: ignore[arg-type]
    if op == "exists":
        if value not in _TRUTH:
            raise _invalid("exists needs true or false")
        return Filter(_unescaped(name), "exists", _TRUTH[value])
    if op in ("gt", "lt"):
        try:
            return Filter(_unescaped(name), op, numbers.from_text(value))  # type: ignore[arg-type]
        except ValueError:
            raise _invalid(f"{op} needs a number") from None
    return Filter(_unescaped(name), op, value)  # type: ignore[arg-type]


def as_text(given: Filter) -> str:
    """Return the notation of a URL. `from_text` reads it, except that numbers of `eq` become texts."""
    if isinstance(given.value, list):
        value = ",".join(_escaped(_value_text(item)) for item in given.value)
    else:
        value = _value_text(given.value)
    return f"{_escaped(given.property)}:{given.op}:{value}"


def _value_text(value: Scalar | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return _SEPARATOR.sub(r"\\\g<0>", text)


def validated(filters: Sequence[Filter]) -> tuple[Filter, ...]:
    """Return the filters with values in one form for equal meanings. Raises QueryError (422)."""
    if len(filters) > MAX_FILTERS:
        raise _invalid(f"at most {MAX_FILTERS} filters can be given")
    return tuple(map(_validated, filters))


def conditions(filters: Iterable[Filter], keys: Mapping[str, str]) -> Conditions:
    """Return the conditions of validated filters.

    `keys` are expressions by property for texts, equal to the property's for all events that count.
    """
    values: dict[str, object] = {}
    parts = [
        _condition(each, f"{NAME_PREFIX}{number}", keys, values)
        for number, each in enumerate(filters)
    ]
    return Conditions("".join(f" AND {part}" for part in parts), values)


def _validated(given: Filter) -> Filter:
    name, op, value = given.property, given.op, given.value
    if not 1 <= len(name.removeprefix(PROPERTY_PREFIX)) <= MAX_NAME_CHARACTERS:
        raise _invalid(f"a property's name has from 1 to {MAX_NAME_CHARACTERS} characters")
    _check_unicode(name)
    if op == "exists":
        if value is not None and not isinstance(value, bool):
            raise _invalid(f"exists of {name} needs true or false")
        return Filter(name, op, value is not False)
    if op in ("gt", "lt"):
        if name in COLUMNS:
            raise _invalid(f"{op} compares numbers, but {name} is text")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _invalid(f"{op} of {name} needs a number")
        return Filter(name, op, _number(value))
    if op in ("in", "not_in"):
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_ITEMS:
            raise _invalid(f"{op} of {name} needs an array of 1 to {MAX_ITEMS} items")
        return Filter(name, op, [_scalar(name, item) for item in value])
    if value is None or isinstance(value, list):
        raise _invalid(f"{op} of {name} needs a string, a number or a boolean")
    return Filter(name, op, _scalar(name, value))


def _scalar(name: str, value: Scalar) -> str | float:
    """Return the text of the value; a number with a fraction, which has no one text, as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        number = _number(value)
        if not number.is_integer():
            return number
        value = int(number)
    text = str(value)
    if not 1 <= len(text) <= MAX_TEXT_CHARACTERS:
        raise _invalid(
            f"a value of {name} has from 1 to {MAX_TEXT_CHARACTERS} characters; "
            "`exists` finds events without the property"
        )
    _check_unicode(text)
    return text


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _invalid("names and values must be valid Unicode") from None


def _number(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _invalid("a number must be finite")
    return number


def _condition(
    given: Filter, prefix: str, keys: Mapping[str, str], values: dict[str, object]
) -> str:
    """Return one condition; add what it binds to `values`."""

    def bound(name: str, kind: str, value: object) -> str:
        values[f"{prefix}_{name}"] = value
        return f"{{{prefix}_{name}:{kind}}}"

    name = given.property.removeprefix(PROPERTY_PREFIX)
    column = COLUMNS.get(given.property)
    key = keys.get(given.property, column)

    def property_name() -> str:
        return bound("name", "String", name)

    def number() -> str:
        # The raw text of a string has quotes, so only numbers are compared.
        return f"toFloat64OrNull(JSONExtractRaw({READABLE_PROPERTIES}, {property_name()}))"

    if given.op == "exists":
        negation = "" if given.value else "NOT "
        if column is not None:
            return f"{negation}({column} != '')"
        return f"{negation}(JSONType({READABLE_PROPERTIES}, {property_name()}) != 'Null')"
    if given.op in ("gt", "lt"):
        sign = ">" if given.op == "gt" else "<"
        return f"ifNull({number()} {sign} {bound('number', 'Float64', given.value)}, 0)"
    items = given.value if isinstance(given.value, list) else [given.value]
    texts = [item for item in items if isinstance(item, str)]
    fractions = [item for item in items if not isinstance(item, str)]
    parts = []
    if texts:
        text = key or f"JSONExtract({READABLE_PROPERTIES}, {property_name()}, 'String')"
        parts.append(f"{text} IN {bound('texts', 'Array(String)', texts)}")
    if fractions and column is None:
        # One comparison for all: with one for each, a statement could exceed ClickHouse's limit.
        parts.append(f"ifNull({number()} IN {bound('numbers', 'Array(Float64)', fractions)}, 0)")
    either = " OR ".join(parts) or "0"
    return f"NOT ({either})" if given.op in ("ne", "not_in") else f"({either})"


def _split(text: str, separator: str, most: int = -1) -> list[str]:
    """Split at separators without a backslash before them; escapes are kept."""
    parts, start, position = [], 0, 0
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == separator and most != 0:
            parts.append(text[start:position])
            start = position + 1
            most -= 1
        position += 1
    return [*parts, text[start:]]


def _unescaped(text: str) -> str:
    unescaped, position = [], 0
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        unescaped.append(text[position])
        position += 1
    return "".join(unescaped)


def _invalid(problem: str) -> QueryError:
    return QueryError(422, "bad_filter", problem, parameter="filters")
