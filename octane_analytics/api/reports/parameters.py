"""What a request gives for a template's parameters, and what the template then runs with.

Owns defaults, the range of time, and what makes two requests the same; refuses to know HTTP and SQL.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from octane_analytics.api.reports.parameter_types import (
    TIME,
    Parameter,
    from_text,
    to_clickhouse,
    validate,
)
from octane_analytics.api.reports.template import Template
from octane_analytics.api.timestamps import NOW, Moment, from_epoch, moment, rfc3339
from octane_analytics.errors import QueryError

DEFAULT_RANGE_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class BoundParameters:
    """`effective` is what to show (times in RFC 3339, null for an absent option), `values` what to
    send to ClickHouse: of a `limit` one more, which tells a cut answer from a whole one.

    `identity` is the same for requests that ask the same: those that name a time relative to now in
    the same words do, a few seconds later too.
    """

    effective: Mapping[str, object]
    values: Mapping[str, object]
    identity: bytes

    def max_rows(self, of_service: int) -> int:
        """Rows that the answer may show."""
        chosen = self.effective.get("limit")
        return min(of_service, chosen) if isinstance(chosen, int) else of_service


def read_texts(template: Template, pairs: Iterable[tuple[str, str]]) -> dict[str, object]:
    """What a URL or a command line gives, as JSON would have given it. Raises as `bind` does."""
    texts: dict[str, list[str]] = {}
    for name, text in pairs:
        texts.setdefault(name, []).append(text)
    given: dict[str, object] = {}
    for name, listed in texts.items():
        try:
            given[name] = from_text(_known(template, name), listed)
        except ValueError as error:
            raise _bad(name, str(error)) from error
    return given


def bind(template: Template, given: Mapping[str, object], now: datetime) -> BoundParameters:
    """Fills in what is absent or null. Raises QueryError (422) that names the parameter.

    Both ends of the range are rounded up to a second: `from` takes in events of its own second only
    if it is a whole one.
    """
    for name in given:
        _known(template, name)
    moments = _moments(template, given)
    seconds = _seconds(moments, now)
    effective: dict[str, object] = {}
    values: dict[str, object] = {}
    identity: list[object] = [template.name]
    for name, parameter in template.parameters.items():
        if parameter.type == TIME:
            # As text: ClickHouse refuses a number of less than five digits for a DateTime.
            values[name] = f"{from_epoch(seconds[name]):%Y-%m-%d %H:%M:%S}"
            effective[name] = rfc3339(from_epoch(seconds[name]))
            identity.append(moments[name])
        else:
            chosen = _chosen(name, parameter, given.get(name))
            values[name] = to_clickhouse(chosen)
            if name == "limit" and isinstance(chosen, int):
                values[name] = chosen + 1
            effective[name] = chosen
            identity.append(chosen)
    return BoundParameters(effective, values, msgspec.json.encode(identity))


def _known(template: Template, name: str) -> Parameter:
    if name not in template.parameters:
        raise QueryError(
            422,
            "unknown_parameter",
            f"{template.name} has no parameter {name!r}",
            parameter=name,
            known=list(template.parameters),
        )
    return template.parameters[name]


def _chosen(name: str, parameter: Parameter, value: object) -> object:
    if value is None and parameter.required:
        raise _bad(name, "is required")
    if value is None:
        return parameter.default
    try:
        return validate(parameter, value)
    except ValueError as error:
        raise _bad(name, str(error)) from error


def _moments(template: Template, given: Mapping[str, object]) -> dict[str, Moment | None]:
    """What is given for each parameter that is a time, or its default; None for a missing `from`."""
    moments: dict[str, Moment | None] = {}
    for name, parameter in template.parameters.items():
        if parameter.type == TIME:
            value = given.get(name)
            if value is None and parameter.required:
                raise _bad(name, "is required")
            value = parameter.default if value is None else value
            try:
                moments[name] = None if value is None else moment(value)
            except ValueError as error:
                raise _bad(name, str(error)) from error
    moments["to"] = moments["to"] or NOW
    return moments


def _seconds(moments: Mapping[str, Moment | None], now: datetime) -> dict[str, int]:
    seconds = {}
    for name, each in moments.items():
        try:
            if each is not None:
                seconds[name] = each.at(now)
        except ValueError as error:
            raise _bad(name, str(error)) from error
    if "from" not in seconds:
        seconds["from"] = max(seconds["to"] - DEFAULT_RANGE_SECONDS, 0)
    if seconds["from"] >= seconds["to"]:
        end = rfc3339(from_epoch(seconds["to"]))
        raise _bad("from", f"must be before `to`, which is {end}")
    return seconds


def _bad(name: str, problem: str) -> QueryError:
    return QueryError(422, "bad_parameter", f"{name} {problem}", parameter=name)
