"""Validation of the values for `{name:Type}` in raw SQL.

ClickHouse binds the values: none is inserted into the statement. The type that the statement declares
defines which texts are valid.

| JSON | sent as |
|---|---|
| string | unchanged |
| number | its decimal digits |
| true, false | `true`, `false` |
| array of these | array |

Does not depend on statements.
"""

import re
from collections.abc import Mapping

from octane_analytics.errors import QueryError

MAX_PARAMETERS = 100
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_MAX_DEPTH = 4


def validate(given: Mapping[str, object] | None) -> dict[str, object]:
    """Return the values as the driver sends them. Raises QueryError (422) that names the parameter."""
    if given is None:
        return {}
    if len(given) > MAX_PARAMETERS:
        raise QueryError(
            422, "invalid_body", f"params has more than {MAX_PARAMETERS} parameters: give fewer"
        )
    return {_name(name): _value(name, value) for name, value in given.items()}


def _name(name: str) -> str:
    if not _NAME.match(name):
        raise _bad_parameter(name, "must have a name of A-Z, a-z, 0-9 and _, at most 64 characters")
    return name


def _value(name: str, value: object) -> object:
    if isinstance(value, list):
        return [_item(name, item, _MAX_DEPTH) for item in value]
    if value is None:
        raise _bad_parameter(name, "must not be null: write NULL, or omit the condition")
    return _scalar(name, value)


def _item(name: str, value: object, depth: int) -> object:
    if isinstance(value, list) and depth:
        return [_item(name, item, depth - 1) for item in value]
    return _scalar(name, value)


def _scalar(name: str, value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return value
    raise _bad_parameter(name, "must be a string, a number, true, false or an array of these")


def _bad_parameter(name: str, problem: str) -> QueryError:
    return QueryError(422, "bad_parameter", f"{name[:80]} {problem}", parameter=name[:80])
