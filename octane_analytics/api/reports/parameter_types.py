"""What one parameter of a template is: its ClickHouse type, and which values it takes.

| type | from JSON | from text (a URL, the command line) |
|---|---|---|
| String | string | as it stands |
| (U)Int8 … (U)Int64 | whole number | digits |
| Float64 | number | a number |
| Bool | true, false | true, false, 1, 0 |
| Date | `2026-02-02` | the same |
| DateTime('UTC') | see `times` | see `times` |
| Array(String), Array((U)Int…) | array | the parameter once for each item |

Owns types, bounds and defaults of single values; refuses to know templates and requests.
"""

import functools
import math
import re
import zoneinfo
from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

import msgspec

from octane_analytics.api.timestamps import moment

TIME = "DateTime('UTC')"
MAX_TEXT = 1_000
"""Characters of a text, and items of an array, unless the template says otherwise."""

INTEGERS = {
    f"{sign}Int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for bits in (8, 16, 32, 64)
    for sign in ("U", "")
}
SCALARS = ("String", *INTEGERS, "Float64", "Bool", "Date", TIME)
ARRAYS = {f"Array({item})": item for item in ("String", *INTEGERS)}

_BOOLS = {"true": True, "1": True, "false": False, "0": False}
_WHOLE = re.compile(r"-?[0-9]{1,20}")


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a template takes. One that is neither `required` nor has a default is a String, and absent
    means no restriction. Bounds are those of a number, or of the length of a text or an array."""

    type: str
    help: str
    default: Any = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    allowed: tuple[str | int, ...] | None = None
    required: bool = False
    format: Literal["timezone"] | None = None
    """`timezone`: an IANA name such as Europe/Berlin."""

    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value, or length."""
        low, high = 1, MAX_TEXT
        if self.type in INTEGERS:
            low, high = INTEGERS[self.type]
        elif self.type == "Float64":
            return (
                -math.inf if self.minimum is None else self.minimum,
                math.inf if self.maximum is None else self.maximum,
            )
        return (
            low if self.minimum is None else self.minimum,
            high if self.maximum is None else self.maximum,
        )


def problem(parameter: Parameter) -> str | None:
    """What is wrong with a declaration; None where it can be used."""
    kind = parameter.type
    if kind not in SCALARS and kind not in ARRAYS:
        return f"type must be one of {', '.join((*SCALARS, *ARRAYS))}"
    if parameter.required and parameter.default is not None:
        return "what is required has no default"
    is_optional = kind == "String" and parameter.format is None
    if parameter.default is None and not parameter.required and not is_optional:
        return f"a {kind} needs a default, or `required = true`"
    if kind in ("Bool", "Date", TIME) and (parameter.minimum, parameter.maximum) != (None, None):
        return "only a number, a text or an array has bounds"
    if parameter.format is not None and kind != "String":
        return f"format {parameter.format} is for a String"
    if parameter.allowed is not None:
        if kind in ("Bool", "Date", TIME, "Float64"):
            return f"a {kind} cannot list what is allowed"
        item_type = ARRAYS.get(kind, kind)
        for value in parameter.allowed:
            if not _is_of(item_type, value):
                return f"{value!r} is not of type {item_type}"
    if parameter.default is not None:
        try:
            validate(parameter, parameter.default)
        except ValueError as error:
            return f"its default {error}"
    return None


def validate(parameter: Parameter, value: object) -> Any:
    """The value, which came as JSON, as the type has it; a time stays as it was written.

    Raises ValueError that says what it must be.
    """
    kind = parameter.type
    if kind in ARRAYS:
        return _checked_array(parameter, value)
    if kind == "String":
        if not isinstance(value, str):
            raise ValueError("must be a string")
        _check_allowed(parameter, value)
        if not value:
            raise ValueError("must not be empty")
        _check_bounds(parameter, len(value), " characters long")
        if parameter.format == "timezone" and not is_timezone(value):
            raise ValueError("must be an IANA time zone such as Europe/Berlin")
        return value
    if kind in INTEGERS:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("must be a whole number")
        _check_allowed(parameter, value)
        _check_bounds(parameter, value)
        return value
    if kind == "Float64":
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError("must be a number")
        _check_bounds(parameter, value)
        return float(value)
    if kind == "Bool":
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value
    if kind == "Date":
        return _date(value)
    moment(value)
    return value


def from_text(parameter: Parameter, texts: Sequence[str]) -> object:
    """As JSON would have had it. What cannot be read so stays a text, for `checked` to refuse."""
    if parameter.type in ARRAYS:
        item = Parameter(ARRAYS[parameter.type], "")
        return [from_text(item, [text]) for text in texts]
    if len(texts) != 1:
        raise ValueError("must be given once")
    text = texts[0]
    if parameter.type in INTEGERS and _WHOLE.fullmatch(text):
        return int(text)
    if parameter.type == "Float64":
        try:
            return float(text)
        except ValueError:
            return text
    if parameter.type == "Bool":
        return _BOOLS.get(text.lower(), text)
    return text


def to_clickhouse(value: object) -> object:
    """As the driver can send it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def is_timezone(name: str) -> bool:
    # Not `localtime` and its like, which mean another zone on another machine.
    return ("/" in name or name in ("UTC", "GMT")) and name in timezones()


@functools.cache
def timezones() -> frozenset[str]:
    """All that this machine knows. Reads its directories, once."""
    return frozenset(zoneinfo.available_timezones())


def _checked_array(parameter: Parameter, value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError("must be an array")
    _check_bounds(parameter, len(value), " items long")
    item = Parameter(ARRAYS[parameter.type], "", allowed=parameter.allowed)
    items = []
    for number, one in enumerate(value, 1):
        try:
            items.append(validate(item, one))
        except ValueError as error:
            raise ValueError(f"item {number} {error}") from None
    return items


def _check_allowed(parameter: Parameter, value: str | int) -> None:
    if parameter.allowed is not None and value not in parameter.allowed:
        raise ValueError(f"must be one of {', '.join(map(str, parameter.allowed))}")


def _check_bounds(parameter: Parameter, value: float, of_what: str = "") -> None:
    low, high = parameter.bounds()
    if not low <= value <= high:
        told = " to ".join(str(bound) for bound in (low, high))
        raise ValueError(f"must be from {told}{of_what}")


def _date(value: object) -> str:
    try:
        if isinstance(value, str) and len(value) == 10 and date.fromisoformat(value).year >= 1970:
            return value
    except ValueError:
        pass
    raise ValueError("must be a date such as 2026-02-02")


def _is_of(kind: str, value: object) -> bool:
    if kind == "String":
        return isinstance(value, str)
    return isinstance(value, int) and not isinstance(value, bool)
