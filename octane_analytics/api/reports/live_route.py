"""GET /live/NAME: a report as server-sent events.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from octane_analytics.api.disconnect import cancel_on_disconnect
from octane_analytics.api.reports.live import (
    LISTEN_SECONDS,
    LiveChannel,
    LiveReports,
    LiveToken,
)
from octane_analytics.api.reports.requests import from_url, option, report_query
from octane_analytics.api.reports.service import ReportService
from octane_analytics.api.results.formats import JSON
from octane_analytics.errors import QueryError

DEFAULT_INTERVAL = 5
MAX_INTERVAL = 3600
_MEDIA_TYPE = "text/event-stream"
_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Vary": "Authorization",
    # nginx would hold events back.
    "X-Accel-Buffering": "no",
}


class LiveRoute:
    def __init__(self, service: ReportService, live: LiveReports) -> None:
        self._service = service
        self._live = live

    async def get(self, request: Request) -> Response:
        template = self._service.template(request.path_params["name"])
        pairs = request.query_params.multi_items()
        body = from_url(template, pairs)
        if body.format not in (None, JSON.name):
            raise QueryError(422, "bad_parameter", "a live report is json", parameter="format")
        query = report_query(request, template, body, accept="")
        interval = _interval(option(pairs, "interval"))
        if request.method == "HEAD":
            return StreamingResponse(_nothing(), media_type=_MEDIA_TYPE, headers=_HEADERS)
        state = request.state
        channel = await cancel_on_disconnect(
            request.receive,
            self._live.join(query, interval, LiveToken(state.charge, state.is_valid)),
        )
        return _LiveResponse(
            self._events(request, channel), on_end=lambda: self._live.leave(channel)
        )

    def _events(self, request: Request, channel: LiveChannel) -> AsyncIterator[bytes]:
        token = request.state.caller.token
        seconds = LISTEN_SECONDS
        if token is not None and token.expires is not None:
            seconds = (token.expires - datetime.now(UTC)).total_seconds()
        return self._live.events(channel, request.headers.get("last-event-id", ""), seconds)


class _LiveResponse(StreamingResponse):
    """Calls `on_end` at the end, also if the client has gone before the first event is asked for."""

    def __init__(self, content: AsyncIterator[bytes], *, on_end: Callable[[], None]) -> None:
        super().__init__(content, media_type=_MEDIA_TYPE, headers=_HEADERS)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def _nothing() -> AsyncIterator[bytes]:
    """Yield an empty chunk: HEAD has the headers of an answer, and listens to nothing."""
    yield b""


def _interval(text: str | None) -> int:
    if text is None:
        return DEFAULT_INTERVAL
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MAX_INTERVAL):
        raise QueryError(
            422,
            "bad_parameter",
            f"interval must be a whole number of seconds from 1 to {MAX_INTERVAL}",
            parameter="interval",
        )
    return int(text)
