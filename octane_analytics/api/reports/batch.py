"""POST /reports: several reports, each answered or failed by itself.

They run one after the other, on one connection at a time, and each is charged to the token's rate.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octane_analytics.api.disconnect import cancel_on_disconnect
from octane_analytics.api.errors import error_body
from octane_analytics.api.reports.cache import CachedAnswer
from octane_analytics.api.reports.requests import report_query
from octane_analytics.api.reports.service import ReportService
from octane_analytics.api.request_bodies import BatchRequest, ReportRequest, decoded
from octane_analytics.api.results.formats import JSON, server_timing
from octane_analytics.api.results.json_values import encode
from octane_analytics.errors import QueryError
from octane_analytics.telemetry.api_metrics import ApiMetrics

MAX_REPORTS = 20
MAX_BATCH_BYTES = 8 << 20
"""Maximum size of all answers of a batch, which are held in memory."""


class BatchRoute:
    def __init__(
        self,
        service: ReportService,
        metrics: ApiMetrics,
        seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seconds` is the time limit of a batch: a report that is not answered by then fails."""
        self._service = service
        self._metrics = metrics
        self._seconds = seconds
        self._monotonic = monotonic

    async def post(self, request: Request) -> Response:
        body = await decoded(request, BatchRequest)
        if not 1 <= len(body.reports) <= MAX_REPORTS:
            raise QueryError(422, "invalid_body", f"reports must be from 1 to {MAX_REPORTS} long")
        started = self._monotonic()
        answers = await cancel_on_disconnect(request.receive, self._answers(request, body.reports))
        return Response(
            b'{"answers":[' + b",".join(answers) + b"]}",
            headers=server_timing(self._monotonic() - started),
            media_type="application/json",
        )

    async def _answers(self, request: Request, reports: list[msgspec.Raw]) -> list[bytes]:
        deadline = self._monotonic() + self._seconds
        answers: list[bytes] = []
        for number, raw in enumerate(reports):
            try:
                if number:
                    request.state.charge()  # the request itself paid for the first
                async with asyncio.timeout(deadline - self._monotonic()):
                    answers.append(await self._answer(request, raw, sum(map(len, answers))))
            except TimeoutError:
                late = QueryError(504, "timeout", f"the batch took {self._seconds:g} seconds")
                answers.append(_failure(late, request))
            except QueryError as error:
                answers.append(_failure(error, request))
        return answers

    async def _answer(self, request: Request, raw: msgspec.Raw, used_bytes: int) -> bytes:
        try:
            body = msgspec.json.decode(raw, type=ReportRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise QueryError(422, "invalid_body", str(error)) from error
        if body.format not in (None, JSON.name):
            raise QueryError(422, "bad_parameter", "format of a batch is json", parameter="format")
        template = self._service.template(body.template)
        query = report_query(request, template, body, accept="")
        answer = await self._service.answer(query)
        content = answer.content
        self._metrics.cache.labels(answer.outcome).inc()
        if not isinstance(content, CachedAnswer):
            content.abandon()
            raise _too_large()
        if used_bytes + len(content.body) > MAX_BATCH_BYTES:
            raise _too_large()
        head = encode(
            {
                "status": 200,
                "cache": answer.outcome,
                "age": int(answer.age_seconds),
                "etag": content.etag,
            }
        )
        return head[:-1] + b',"answer":' + content.body + b"}"


def _failure(error: QueryError, request: Request) -> bytes:
    return encode({"status": error.status, **error_body(error, str(request.state.request_id))})


def _too_large() -> QueryError:
    return QueryError(
        422, "result_too_large", "the answer is too large for a batch: ask for it alone"
    )
