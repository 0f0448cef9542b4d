"""Report routes: POST /report, GET /report/NAME, GET /reports, POST /reports (see `batch`).

Parses requests and sets headers; does not depend on how an answer is produced (see `service`).
"""

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from octane_analytics.api.filters import COLUMNS
from octane_analytics.api.reports.batch import BatchRoute
from octane_analytics.api.reports.cache import CachedAnswer
from octane_analytics.api.reports.json_schema import parameters_schema
from octane_analytics.api.reports.requests import from_url, report_query, switch
from octane_analytics.api.reports.row_schema import described_columns, row_schema
from octane_analytics.api.reports.service import ReportAnswer, ReportQuery, ReportService
from octane_analytics.api.reports.template import Template
from octane_analytics.api.request_bodies import ReportRequest, decoded
from octane_analytics.api.results import json_values
from octane_analytics.api.results.formats import read_headers, server_timing
from octane_analytics.telemetry.api_metrics import ApiMetrics


class ReportRoutes:
    def __init__(self, service: ReportService, metrics: ApiMetrics, batch: BatchRoute) -> None:
        self._batch = batch
        self._service = service
        self._metrics = metrics

    async def post(self, request: Request) -> Response:
        body = await decoded(request, ReportRequest)
        return await self._respond(request, self._service.template(body.template), body)

    async def get(self, request: Request) -> Response:
        template = self._service.template(request.path_params["name"])
        pairs = request.query_params.multi_items()
        return await self._respond(
            request,
            template,
            from_url(template, pairs),
            is_download=switch(pairs, "download"),
        )

    async def reports(self, request: Request) -> Response:
        """Answer a batch, or list all reports. One route, so that its methods are known."""
        if request.method == "POST":
            return await self._batch.post(request)
        return Response(
            json_values.encode(
                {"templates": [_describe(each) for each in self._service.templates.values()]}
            ),
            media_type="application/json",
        )

    async def schema(self, request: Request) -> Response:
        template = self._service.template(request.path_params["name"])
        return Response(
            json_values.encode(
                {
                    "name": template.name,
                    "parameters": parameters_schema(template),
                    "columns": described_columns(template),
                    "row": row_schema(template),
                    "key": template.key,
                }
            ),
            media_type="application/json",
        )

    async def _respond(
        self,
        request: Request,
        template: Template,
        body: ReportRequest,
        *,
        is_download: bool = False,
    ) -> Response:
        query = report_query(request, template, body, accept=request.headers.get("accept", ""))
        answer = await self._service.answer(query)
        self._metrics.cache.labels(answer.outcome).inc()
        headers = {"Vary": "Accept, Authorization", "X-Row-Limit": str(answer.max_rows)}
        # The names of templates are of a-z, 0-9 and _.
        of_format = query.format.headers(template.name, is_download=is_download)
        if not isinstance(answer.content, CachedAnswer):
            headers |= {"Cache-Control": "no-store"}
            return StreamingResponse(answer.content.chunks(), headers=headers | of_format)
        headers |= _cache_headers(query, answer, answer.content)
        if request.method != "POST" and _matches(
            request.headers.get("if-none-match", ""), answer.content.etag
        ):
            return Response(status_code=304, headers=headers)
        return Response(answer.content.body, headers=headers | of_format)


def _cache_headers(
    query: ReportQuery, answer: ReportAnswer, content: CachedAnswer
) -> dict[str, str]:
    seconds = query.template.cache_seconds
    timing = {} if answer.outcome == "hit" else server_timing(content.seconds)
    scope = "private" if query.partition else "public"
    return {
        "ETag": content.etag,
        "Age": str(int(answer.age_seconds)),
        "Cache-Control": f"{scope}, max-age={seconds}" if seconds else f"{scope}, no-cache",
        "X-Cache": answer.outcome,
        "X-Truncated": "true" if content.is_truncated else "false",
        **timing,
        **read_headers(content.read),
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
