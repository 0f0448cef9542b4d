"""Several reports in one request: POST /reports.

Each report is answered or fails by itself, as if it had been requested alone: it shares the cache and
queries in progress, and counts against the token's rate.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from octane_analytics.api.errors import error_body
from octane_analytics.api.reports.cache import CachedAnswer
from octane_analytics.api.reports.routes import report_query
from octane_analytics.api.reports.service import ReportService
from octane_analytics.api.request_bodies import BatchItem, BatchRequest, decoded
from octane_analytics.api.results import json_values
from octane_analytics.api.results.formats import JSON
from octane_analytics.api.results.streaming import MAX_BUFFERED_BYTES
from octane_analytics.errors import QueryError
from octane_analytics.telemetry.api_metrics import ApiMetrics

AT_ONCE = 4
"""Reports of one batch that run at the same time; fewer if the token may have only fewer requests."""


class BatchRoute:
    def __init__(self, service: ReportService, metrics: ApiMetrics) -> None:
        self._service = service
        self._metrics = metrics

    async def post(self, request: Request) -> Response:
        """Answer the reports in the order of the request; blocks until the last is answered."""
        body = await decoded(request, BatchRequest)
        token = request.state.caller.token
        running = asyncio.Semaphore(min(AT_ONCE, (token and token.concurrency) or AT_ONCE))

        async def answered(index: int, item: BatchItem) -> bytes:
            try:
                if index > 0:  # the request itself counts as one
                    request.state.count_request()
                async with running:
                    return b'{"status":200,"answer":' + await self._answer(request, item) + b"}"
            except QueryError as error:
                failure = error_body(error, str(request.state.request_id))
                return json_values.encode({"status": error.status, **failure})

        async with asyncio.TaskGroup() as group:
            answers = [
                group.create_task(answered(index, item)) for index, item in enumerate(body.reports)
            ]
        joined = b",".join(answer.result() for answer in answers)
        return Response(
            b'{"answers":[' + joined + b"]}",
            media_type="application/json",
            headers={"Cache-Control": "no-store", "Vary": "Authorization"},
        )

    async def _answer(self, request: Request, item: BatchItem) -> bytes:
        template = self._service.template(item.template)
        answer = await self._service.answer(report_query(request, template, item, JSON))
        self._metrics.cache.labels(answer.outcome).inc()
        if isinstance(answer.content, CachedAnswer):
            return answer.content.body
        answer.content.abandon()
        raise QueryError(
            413,
            "answer_too_large",
            f"the answer has more than {MAX_BUFFERED_BYTES} bytes: request the report alone, or "
            "with a smaller limit",
        )
