"""Report routes: POST /report, GET /report/NAME, GET /reports.

Parses requests and sets headers; does not depend on how an answer is produced (see `service`).
"""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from octane_analytics.api.auth.callers import apply_bound_filters, apply_bound_parameters, partition
from octane_analytics.api.comparison import Comparison
from octane_analytics.api.comparison import from_text as comparison_from_text
from octane_analytics.api.filters import COLUMNS, Filter, from_text
from octane_analytics.api.reports.cache import CachedAnswer
from octane_analytics.api.reports.json_schema import parameters_schema
from octane_analytics.api.reports.parameters import read_texts
from octane_analytics.api.reports.service import ReportAnswer, ReportQuery, ReportService
from octane_analytics.api.reports.template import Template
from octane_analytics.api.request_bodies import ReportRequest, decoded
from octane_analytics.api.results import formats, json_values
from octane_analytics.clickhouse.connection import trace_settings
from octane_analytics.errors import QueryError
from octane_analytics.telemetry.api_metrics import ApiMetrics

_ANSWER_OPTIONS = ("format", "csv_raw", "filter", "compare", "totals")
"""Query parameters of a URL that do not belong to the template."""
_SWITCH = {"0": False, "1": True, "false": False, "true": True}


class ReportRoutes:
    def __init__(self, service: ReportService, metrics: ApiMetrics) -> None:
        self._service = service
        self._metrics = metrics

    async def post(self, request: Request) -> Response:
        body = await decoded(request, ReportRequest)
        template = self._service.template(body.template)
        return await self._respond(
            request,
            template,
            body.params or {},
            body.format,
            filters=body.filters,
            compare=body.compare,
            has_totals=body.totals,
            is_csv_raw=body.csv_raw,
        )

    async def get(self, request: Request) -> Response:
        template = self._service.template(request.path_params["name"])
        pairs = request.query_params.multi_items()
        format_names = [value for name, value in pairs if name == "format"]
        compare = [value for name, value in pairs if name == "compare"]
        given = read_texts(template, [pair for pair in pairs if pair[0] not in _ANSWER_OPTIONS])
        return await self._respond(
            request,
            template,
            given,
            format_names[-1] if format_names else None,
            filters=[from_text(value) for name, value in pairs if name == "filter"],
            compare=comparison_from_text(compare[-1]) if compare else None,
            has_totals=_switch(pairs, "totals"),
            is_csv_raw=_switch(pairs, "csv_raw"),
        )

    async def listing(self, request: Request) -> Response:
        return Response(
            json_values.encode(
                {"templates": [_describe(each) for each in self._service.templates.values()]}
            ),
            media_type="application/json",
        )

    async def _respond(
        self,
        request: Request,
        template: Template,
        given: dict[str, object],
        format_name: str | None,
        *,
        filters: Sequence[Filter],
        compare: Comparison | None,
        has_totals: bool,
        is_csv_raw: bool,
    ) -> Response:
        control = request.headers.get("cache-control", "").lower()
        caller = request.state.caller
        bound = apply_bound_parameters(caller, template.parameters, given)
        # The token file holds text; a parameter's type is known only here.
        fixed = read_texts(template, [(name, str(bound[name])) for name in caller.parameters])
        query = ReportQuery(
            template=template,
            given=bound | fixed,
            format=formats.choose(format_name, request.headers.get("accept", "")),
            request_id=str(request.state.request_id),
            partition=partition(caller),
            filters=tuple(apply_bound_filters(caller, template.has_filters, filters)),
            compare=compare,
            has_totals=has_totals,
            trace=trace_settings(request.state.traceparent),
            is_csv_raw=is_csv_raw,
            is_fresh="no-cache" in control or "no-store" in control,
        )
        answer = await self._service.answer(query)
        self._metrics.cache.labels(answer.outcome).inc()
        headers = {"Vary": "Accept, Authorization", "X-Row-Limit": str(answer.max_rows)}
        if not isinstance(answer.content, CachedAnswer):
            return StreamingResponse(
                answer.content.chunks(),
                media_type=answer.content.media_type,
                headers=headers | {"Cache-Control": "no-store"},
            )
        headers |= _cache_headers(query, answer, answer.content)
        if request.method != "POST" and _matches(
            request.headers.get("if-none-match", ""), answer.content.etag
        ):
            return Response(status_code=304, headers=headers)
        headers["Content-Type"] = answer.content.media_type
        return Response(answer.content.body, headers=headers)


def _switch(pairs: Sequence[tuple[str, str]], name: str) -> bool:
    """Return whether the option of a URL is on. Raises QueryError (422)."""
    given = [value for each, value in pairs if each == name]
    if given and given[-1] not in _SWITCH:
        raise QueryError(422, "bad_parameter", f"{name} must be 0 or 1", parameter=name)
    return bool(given) and _SWITCH[given[-1]]


def _cache_headers(
    query: ReportQuery, answer: ReportAnswer, content: CachedAnswer
) -> dict[str, str]:
    seconds = query.template.cache_seconds
    scope = "private" if query.partition else "public"
    return {
        "ETag": content.etag,
        "Age": str(int(answer.age_seconds)),
        "Cache-Control": f"{scope}, max-age={seconds}" if seconds else f"{scope}, no-cache",
        "X-Cache": answer.outcome,
        "X-Truncated": "true" if content.is_truncated else "false",
    }


def _matches(if_none_match: str, etag: str) -> bool:
    """Compare weakly, by RFC 9110."""
    listed = {item.strip().removeprefix("W/") for item in if_none_match.split(",")}
    return "*" in listed or etag.removeprefix("W/") in listed


def _describe(template: Template) -> dict[str, object]:
    return {
        "name": template.name,
        "title": template.title,
        "description": template.description,
        "parameters": parameters_schema(template),
        "columns": template.columns,
        "filters": {"columns": list(COLUMNS), "properties": True} if template.has_filters else None,
        "key": template.key,
        "has_totals": template.has_totals,
        "cache_seconds": template.cache_seconds,
        "row_limit": template.row_limit,
    }
