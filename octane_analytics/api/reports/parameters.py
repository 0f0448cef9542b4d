"""Binding of request parameters to a template: defaults, time range, identity of requests.

Does not depend on HTTP or SQL.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from octane_analytics.api.filters import Filter, validated
from octane_analytics.api.filters import conditions as filter_conditions
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
    """Parameters of one request.

    `effective` is shown to the client (times in RFC 3339, null for an absent option); `values` is sent
    to ClickHouse, with one row added to `limit`, which reveals whether the answer is truncated.
    `identity` is equal for equivalent requests: equal texts of times relative to now are equivalent,
    also seconds later.
    """

    effective: Mapping[str, object]
    values: Mapping[str, object]
    identity: bytes
    filters: tuple[Filter, ...] = ()
    range: tuple[int, int] = (0, 0)
    """`from` and `to` in seconds since 1970."""
    conditions: str = ""
    """SQL of the filters; what it binds is in `values`."""

    def max_rows(self, service_limit: int) -> int:
        """Return the maximum number of rows of the answer."""
        limit = self.effective.get("limit")
        return min(service_limit, limit) if isinstance(limit, int) else service_limit


def read_texts(template: Template, pairs: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Convert parameters of a URL or a command line to JSON values. Raises QueryError (422)."""
    texts: dict[str, list[str]] = {}
    for name, text in pairs:
        texts.setdefault(name, []).append(text)
    given: dict[str, object] = {}
    for name, values in texts.items():
        try:
            given[name] = from_text(_declared(template, name), values)
        except ValueError as error:
            raise _bad_parameter(name, str(error)) from error
    return given


def bind(
    template: Template,
    given: Mapping[str, object],
    now: datetime,
    filters: Sequence[Filter] = (),
) -> BoundParameters:
    """Validate `given` and `filters`; apply defaults for absent or null values.

    Raises QueryError (422) that names the parameter. Both ends of the range are rounded up to a second,
    so events in the second of a fractional `from` are excluded.
    """
    for name in given:
        _declared(template, name)
    moments = _moments(template, given)
    seconds = _seconds(moments, now)
    effective: dict[str, object] = {}
    values: dict[str, object] = {}
    identity: list[object] = [template.name]
    for name, parameter in template.parameters.items():
        if parameter.type == TIME:
            # As text: ClickHouse rejects a number of fewer than five digits for a DateTime.
            values[name] = f"{from_epoch(seconds[name]):%Y-%m-%d %H:%M:%S}"
            effective[name] = rfc3339(from_epoch(seconds[name]))
            identity.append(moments[name])
        else:
            chosen = _value(name, parameter, given.get(name))
            values[name] = to_clickhouse(chosen)
            if name == "limit" and isinstance(chosen, int):
                values[name] = chosen + 1
            effective[name] = chosen
            identity.append(chosen)
    chosen_filters = _filters(template, filters)
    conditions = filter_conditions(chosen_filters, template.filter_keys)
    if chosen_filters:
        identity.append(chosen_filters)
    return BoundParameters(
        effective,
        {**values, **conditions.values},
        msgspec.json.encode(identity),
        chosen_filters,
        (seconds["from"], seconds["to"]),
        conditions.sql,
    )


def _filters(template: Template, filters: Sequence[Filter]) -> tuple[Filter, ...]:
    if filters and not template.has_filters:
        raise QueryError(
            422,
            "bad_filter",
            f"{template.name} does not take filters",
            parameter="filters",
        )
    return validated(filters)


def _declared(template: Template, name: str) -> Parameter:
    if name not in template.parameters:
        raise QueryError(
            422,
            "unknown_parameter",
            f"{template.name} has no parameter {name!r}",
            parameter=name,
            known=list(template.parameters),
        )
    return template.parameters[name]


def _value(name: str, parameter: Parameter, value: object) -> object:
    if value is None and parameter.required:
        raise _bad_parameter(name, "is required")
    if value is None:
        return parameter.default
    try:
        return validate(parameter, value)
    except ValueError as error:
        raise _bad_parameter(name, str(error)) from error


def _moments(template: Template, given: Mapping[str, object]) -> dict[str, Moment | None]:
    """Return the given or default moment of each time parameter; None for a missing `from`."""
    moments: dict[str, Moment | None] = {}
    for name, parameter in template.parameters.items():
        if parameter.type == TIME:
            value = given.get(name)
            if value is None and parameter.required:
                raise _bad_parameter(name, "is required")
            value = parameter.default if value is None else value
            try:
                moments[name] = None if value is None else moment(value)
            except ValueError as error:
                raise _bad_parameter(name, str(error)) from error
    moments["to"] = moments["to"] or NOW
    return moments


def _seconds(moments: Mapping[str, Moment | None], now: datetime) -> dict[str, int]:
    seconds = {}
    for name, each in moments.items():
        try:
            if each is not None:
                seconds[name] = each.at(now)
        except ValueError as error:
            raise _bad_parameter(name, str(error)) from error
    if "from" not in seconds:
        seconds["from"] = max(seconds["to"] - DEFAULT_RANGE_SECONDS, 0)
    if seconds["from"] >= seconds["to"]:
        end = rfc3339(from_epoch(seconds["to"]))
        raise _bad_parameter("from", f"must be before `to`, which is {end}")
    return seconds


def _bad_parameter(name: str, problem: str) -> QueryError:
    return QueryError(422, "bad_parameter", f"{name} {problem}", parameter=name)
