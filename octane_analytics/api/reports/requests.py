"""Report queries of requests: options of a URL or a body, with what the caller's token fixes.

Does not depend on how an answer is produced.
"""

from collections.abc import Sequence
from typing import Literal

from starlette.requests import Request

from octane_analytics.api.auth.callers import (
    apply_bound_filters,
    apply_bound_parameters,
    is_confined,
    partition,
    require_own_range,
)
from octane_analytics.api.comparison import from_text as comparison_from_text
from octane_analytics.api.filters import from_text as filter_from_text
from octane_analytics.api.reports import cursor
from octane_analytics.api.reports.parameters import read_texts
from octane_analytics.api.reports.service import ReportQuery
from octane_analytics.api.reports.template import RESERVED, Template
from octane_analytics.api.request_bodies import ReportRequest
from octane_analytics.api.results import formats
from octane_analytics.clickhouse.connection import trace_settings
from octane_analytics.errors import QueryError

Pairs = Sequence[tuple[str, str]]

_SWITCH = {"0": False, "1": True}


def from_url(template: Template, pairs: Pairs) -> ReportRequest:
    """Return the request of a URL's query parameters. Raises QueryError (422)."""
    compare = option(pairs, "compare")
    return ReportRequest(
        template.name,
        read_texts(template, [pair for pair in pairs if pair[0] not in RESERVED]),
        option(pairs, "format"),
        switch(pairs, "csv_raw"),
        [filter_from_text(value) for name, value in pairs if name == "filter"],
        None if compare is None else comparison_from_text(compare),
        switch(pairs, "totals"),
        _integers(pairs),
        option(pairs, "cursor"),
    )


def option(pairs: Pairs, name: str) -> str | None:
    """Return the last value of the name; None if it is absent."""
    return next((value for each, value in reversed(pairs) if each == name), None)


def report_query(
    request: Request, template: Template, body: ReportRequest, *, accept: str
) -> ReportQuery:
    """Return the query, bound to the caller's fixed parameters and filters. Raises QueryError."""
    caller = request.state.caller
    given = body.params or {}
    if body.cursor is not None:
        given = cursor.apply(template, body.cursor, given)
    bound = apply_bound_parameters(caller, template.parameters, given)
    if body.compare is not None:
        require_own_range(caller)
    # The token file holds text; a parameter's type is known only here.
    fixed = read_texts(template, [(name, str(bound[name])) for name in caller.parameters])
    control = request.headers.get("cache-control", "").lower()
    return ReportQuery(
        template=template,
        given=bound | fixed,
        format=formats.choose(body.format, accept),
        request_id=str(request.state.request_id),
        partition=partition(caller),
        filters=tuple(apply_bound_filters(caller, template.has_filters, body.filters)),
        compare=body.compare,
        has_totals=body.totals,
        has_safe_integers=body.integers == "string",
        shows_reads=not is_confined(caller),
        trace=trace_settings(request.state.traceparent),
        is_csv_raw=body.csv_raw,
        is_fresh="no-cache" in control or "no-store" in control,
    )


def _integers(pairs: Pairs) -> Literal["number", "string"]:
    given = option(pairs, "integers")
    if given == "string":
        return "string"
    if given not in (None, "number"):
        raise QueryError(
            422, "bad_parameter", "integers must be number or string", parameter="integers"
        )
    return "number"


def switch(pairs: Pairs, name: str) -> bool:
    """Return whether the option is 1; false if it is absent. Raises QueryError (422)."""
    given = option(pairs, name)
    if given is None:
        return False
    if given not in _SWITCH:
        raise QueryError(422, "bad_parameter", f"{name} must be 0 or 1", parameter=name)
    return _SWITCH[given]
