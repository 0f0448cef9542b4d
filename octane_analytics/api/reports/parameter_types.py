"""Template parameters: declaration, ClickHouse type, and validation of values.

| type | from JSON | from text (a URL, the command line) |
|---|---|---|
| String | string | unchanged |
| (U)Int8 … (U)Int64 | whole number | digits |
| Float64 | number | a number |
| Bool | true, false | true, false, 1, 0 |
| Date | `2026-02-02` | the same |
| DateTime('UTC') | see `timestamps` | see `timestamps` |
| Array(String), Array((U)Int…) | array | the parameter repeated, once per item |

Does not depend on templates or requests.
"""

import math
import re
from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

import msgspec

from octane_analytics.api import numbers
from octane_analytics.api.timestamps import moment, timezones

TIME = "DateTime('UTC')"
MAX_TEXT = 1_000
"""Default maximum of characters of a string and of items of an array."""

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
    """Declaration of one parameter.

    A parameter without a default that is not `required` is a String; if absent, it does not restrict.
    The bounds apply to a number, or to the length of a string or an array.
    """

    type: str
    help: str
    default: Any = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    allowed: tuple[str | int, ...] | None = None
    required: bool = False
    format: Literal["timezone"] | None = None
    """`timezone`: an IANA time zone such as Europe/Berlin."""

    def bounds(self) -> tuple[float, float]:
        """Return the lowest and the highest value, or length."""
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


def declaration_error(parameter: Parameter) -> str | None:
    """Return why the declaration is invalid; None if it is valid."""
    kind = parameter.type
    if kind not in SCALARS and kind not in ARRAYS:
        return f"type must be one of {', '.join((*SCALARS, *ARRAYS))}"
    if parameter.required and parameter.default is not None:
        return "a required parameter has no default"
    is_optional = kind == "String" and parameter.format is None
    if parameter.default is None and not parameter.required and not is_optional:
        return f"a {kind} needs a default, or `required = true`"
    if kind in ("Bool", "Date", TIME) and (parameter.minimum, parameter.maximum) != (None, None):
        return "only a number, a string or an array has bounds"
    if parameter.format is not None and kind != "String":
        return f"format {parameter.format} is for a String"
    if parameter.allowed is not None:
        if kind in ("Bool", "Date", TIME, "Float64"):
            return f"a {kind} cannot list allowed values"
        item_type = ARRAYS.get(kind, kind)
        for value in parameter.allowed:
            if not _has_type(item_type, value):
                return f"{value!r} is not of type {item_type}"
    if parameter.default is not None:
        try:
            validate(parameter, parameter.default)
        except ValueError as error:
            return f"its default {error}"
    return None


def validate(parameter: Parameter, value: object) -> Any:
    """Return a value from JSON converted to the parameter's type; a time is returned unchanged.

    Raises ValueError with the requirement that is not met.
    """
    kind = parameter.type
    if kind in ARRAYS:
        return _validate_array(parameter, value)
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
    """Convert text to the JSON value; text that cannot be converted is left for `validate` to reject."""
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
            return numbers.from_text(text)
        except ValueError:
            return text
    if parameter.type == "Bool":
        return _BOOLS.get(text.lower(), text)
    return text


def to_clickhouse(value: object) -> object:
    """Return the value in the form that the driver binds."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def is_timezone(name: str) -> bool:
    # Excludes `localtime` and the like, whose meaning depends on the machine.
    return ("/" in name or name in ("UTC", "GMT")) and name in timezones()


def _validate_array(parameter: Parameter, value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError("must be an array")
    _check_bounds(parameter, len(value), " items long")
    item = Parameter(ARRAYS[parameter.type], "", allowed=parameter.allowed)
    items = []
    for number, element in enumerate(value, 1):
        try:
            items.append(validate(item, element))
        except ValueError as error:
            raise ValueError(f"item {number} {error}") from None
    return items


def _check_allowed(parameter: Parameter, value: str | int) -> None:
    if parameter.allowed is not None and value not in parameter.allowed:
        raise ValueError(f"must be one of {', '.join(map(str, parameter.allowed))}")


def _check_bounds(parameter: Parameter, value: float, unit: str = "") -> None:
    low, high = parameter.bounds()
    if not low <= value <= high:
        raise ValueError(f"must be from {low} to {high}{unit}")


def _date(value: object) -> str:
    try:
        if isinstance(value, str) and len(value) == 10 and date.fromisoformat(value).year >= 1970:
            return value
    except ValueError:
        pass
    raise ValueError("must be a date such as 2026-02-02")


def _has_type(kind: str, value: object) -> bool:
    if kind == "String":
        return isinstance(value, str)
    return isinstance(value, int) and not isinstance(value, bool)
