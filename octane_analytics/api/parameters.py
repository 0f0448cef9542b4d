"""What a request gives for a template's parameters, and what the template then runs with.

Owns defaults, types and bounds of values, and RFC 3339; refuses to know HTTP and SQL.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from octane_analytics.api.templates import TIME, Parameter, Template, refusal
from octane_analytics.errors import QueryError

DEFAULT_RANGE_SECONDS = 24 * 3600
_LAST_SECOND = 2**32 - 1
"""DateTime's, in 2106."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`effective` is what to show (times in RFC 3339, null for an absent option), `values` what to
    send to ClickHouse: of a `limit` one more, which tells a cut answer from a whole one."""

    effective: Mapping[str, str | int | None]
    values: Mapping[str, str | int]

    def max_rows(self, of_service: int) -> int:
        """Rows that the answer may show."""
        chosen = self.effective.get("limit")
        return min(of_service, chosen) if isinstance(chosen, int) else of_service


def bind(template: Template, given: Mapping[str, object], now: datetime) -> Bound:
    """Fills in what is absent or null. Raises QueryError (422) that names the parameter.

    Events are stored to the second, so both ends of the range are rounded up to one: `from` takes in
    events of its own second only if it is a whole one.
    """
    for name in given:
        if name not in template.parameters:
            raise QueryError(
                422,
                "unknown_parameter",
                f"{template.name} has no parameter {name!r}",
                parameter=name,
                known=list(template.parameters),
            )
    seconds = _range(given, now)
    effective: dict[str, str | int | None] = {}
    values: dict[str, str | int] = {}
    for name, parameter in template.parameters.items():
        if parameter.type == TIME:
            # As text: ClickHouse refuses a number of less than five digits for a DateTime.
            values[name] = f"{datetime.fromtimestamp(seconds[name], UTC):%Y-%m-%d %H:%M:%S}"
            effective[name] = rfc3339(datetime.fromtimestamp(seconds[name], UTC))
        else:
            chosen = _checked(name, parameter, given.get(name))
            values[name] = "" if chosen is None else chosen
            if name == "limit" and isinstance(chosen, int):
                values[name] = chosen + 1
            effective[name] = chosen
    return Bound(effective, values)


def rfc3339(time: datetime) -> str:
    """In UTC with a Z; a time without a zone is local time. No fraction where there is none."""
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _checked(name: str, parameter: Parameter, value: object) -> str | int | None:
    if value is None:
        return parameter.default
    if parameter.type == "String":
        if not isinstance(value, str):
            raise _bad(name, "must be a string")
        chosen: str | int = value
    else:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _bad(name, "must be a whole number")
        chosen = value
    problem = refusal(parameter, chosen)
    if problem:
        raise _bad(name, problem)
    return chosen


def _range(given: Mapping[str, object], now: datetime) -> dict[str, int]:
    start, end = _time("from", given.get("from")), _time("to", given.get("to")) or now
    last = math.ceil(end.timestamp())
    first = last - DEFAULT_RANGE_SECONDS if start is None else math.ceil(start.timestamp())
    seconds = {"from": first, "to": last}
    for name, value in seconds.items():
        if not 0 <= value <= _LAST_SECOND:
            raise _bad(name, "must lie from 1970-01-01 to 2106-02-07")
    if start is not None and start >= end:
        raise _bad("from", f"must be before `to`, which is {rfc3339(end)}")
    return seconds


def _time(name: str, value: object) -> datetime | None:
    if value is None:
        return None
    problem = "must be an RFC 3339 time with an offset, such as 2026-02-02T12:00:00Z"
    # fromisoformat reads more than RFC 3339: week dates, basic format, no time at all.
    if not isinstance(value, str) or len(value) < 20 or value[4] + value[7] + value[13] != "--:":
        raise _bad(name, problem)
    try:
        time = datetime.fromisoformat(value.upper())
    except ValueError:
        raise _bad(name, problem) from None
    if time.tzinfo is None:
        raise _bad(name, problem)
    return time


def _bad(name: str, problem: str) -> QueryError:
    return QueryError(422, "bad_parameter", f"{name} {problem}", parameter=name)
