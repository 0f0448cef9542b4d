"""The ASGI application: routes, middleware and error responses.

Does not depend on how connections are created and where settings come from.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from octane_analytics.api import errors
from octane_analytics.api.connection_pool import ConnectionPool, PooledConnection
from octane_analytics.api.dashboard.pages import DashboardPages
from octane_analytics.api.dashboard.service_status import ServiceStatusSource
from octane_analytics.api.docs.pages import DocumentationPages
from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.middleware.authorization import (
    AccessPolicy,
    AuthorizationMiddleware,
    cross_origin,
)
from octane_analytics.api.middleware.compression import CompressionMiddleware
from octane_analytics.api.middleware.request_context import RequestContextMiddleware
from octane_analytics.api.raw_sql.endpoint import RawSqlEndpoint
from octane_analytics.api.reports.batch import BatchRoute
from octane_analytics.api.reports.cache import ReportCache
from octane_analytics.api.reports.live import LiveReports
from octane_analytics.api.reports.live_route import LiveRoute
from octane_analytics.api.reports.routes import ReportRoutes
from octane_analytics.api.reports.service import ReportService
from octane_analytics.api.reports.template import Template
from octane_analytics.api.results import json_values
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import QueryError, StatementRejected, Unavailable
from octane_analytics.telemetry.api_metrics import ApiMetrics
from octane_analytics.telemetry.exposition import CONTENT_TYPE
from octane_analytics.telemetry.logging import fields

_READINESS_SQL = "SELECT 1 FROM {database:Identifier}.{table:Identifier} LIMIT 0"
QUIET_ROUTES = ("/healthz", "/readyz", "/metrics")

log = logging.getLogger(__name__)

T = TypeVar("T")


def create_app(
    *,
    templates: Mapping[str, Template],
    table: TableName,
    limits: ComplexityLimits,
    pool: ConnectionPool,
    probes: ConnectionPool,
    queries: RawSqlEndpoint,
    metrics: ApiMetrics,
    exposition: Callable[[], bytes],
    cache_bytes: int = 0,
    policy: AccessPolicy | None = None,
    status: ServiceStatusSource | None = None,
    cors_origins: Sequence[str] = (),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    is_draining: Callable[[], bool] = lambda: False,
    max_listeners: int = 2**32,
) -> Starlette:
    """Return the application. It closes all pools when its lifespan ends.

    `probes` serves readiness, so that it does not queue with queries; `exposition` returns the metrics
    of all processes and may block on files; `cache_bytes` bounds the cached answers; `policy` decides
    which callers are served (None: local clients, without tokens); `status` has the state of the
    service (None: this process's metrics only); pages of the `cors_origins` may send requests from a
    browser; `now` is the end of a range without `to`; `is_draining` ends live reports once it returns
    true, which have at most `max_listeners`.
    """
    operations = _Routes(table, limits, pool, probes, exposition)
    service = ReportService(
        templates=templates,
        table=table,
        limits=limits,
        pool=pool,
        cache=ReportCache(cache_bytes),
        now=now,
        on_rows_read=metrics.rows_read.labels("/report").inc,
    )
    reports = ReportRoutes(service, metrics, BatchRoute(service, metrics, limits.seconds))
    live_reports = LiveReports(
        service,
        is_draining=is_draining,
        max_listeners=max_listeners,
        on_listeners=metrics.live_listeners.inc,
    )
    live = LiveRoute(service, live_reports)
    pages = DocumentationPages(templates)
    dashboard = DashboardPages(status or ServiceStatusSource(None, None, exposition))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        pool.close()
        probes.close()
        queries.close()

    routes = [
        Route("/", dashboard.start, methods=["GET"]),
        Route("/favicon.ico", dashboard.icon, methods=["GET"]),
        Route("/dashboard", dashboard.dashboard, methods=["GET"]),
        Route("/dashboard/{file:path}", dashboard.file, methods=["GET"]),
        Route("/status", dashboard.status, methods=["GET"]),
        Route("/status/data", dashboard.status_data, methods=["GET"]),
        Route("/caller", dashboard.caller, methods=["GET"]),
        Route("/report", reports.post, methods=["POST"]),
        Route("/report/{name}", reports.get, methods=["GET"]),
        Route("/reports", reports.reports, methods=["GET", "POST"]),
        Route("/reports/{name}/schema", reports.schema, methods=["GET"]),
        Route("/live/{name}", live.get, methods=["GET"]),
        Route("/openapi.json", pages.openapi, methods=["GET"]),
        Route("/docs", pages.page, methods=["GET"]),
        Route("/docs/{file}", pages.file, methods=["GET"]),
        Route("/query", queries.query, methods=["POST"]),
        Route("/schema", queries.tables, methods=["GET"]),
        Route("/healthz", operations.healthz, methods=["GET"]),
        Route("/readyz", operations.readyz, methods=["GET"]),
        Route("/metrics", operations.metrics, methods=["GET"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _handle_http_error, QueryError: _handle_query_error},
        middleware=[
            Middleware(
                RequestContextMiddleware,
                metrics=metrics,
                routes=routes,
                quiet=QUIET_ROUTES,
            ),
            # Before authorization: a preflight has no token, and pages may read refusals.
            *cross_origin(cors_origins),
            Middleware(AuthorizationMiddleware, policy=policy or AccessPolicy()),
            Middleware(CompressionMiddleware),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


@dataclass(frozen=True, slots=True)
class _Routes:
    _table: TableName
    _limits: ComplexityLimits
    _pool: ConnectionPool
    _probes: ConnectionPool
    _exposition: Callable[[], bytes]

    async def healthz(self, request: Request) -> Response:
        return _json(200, json_values.encode({"status": "ok"}))

    async def readyz(self, request: Request) -> Response:
        def job(connection: PooledConnection) -> None:
            try:
                connection.select(_READINESS_SQL, self._identifiers(), settings={"readonly": 1})
            except StatementRejected as error:
                raise errors.from_report(error) from error

        await _run(self._probes, job, request)
        return _json(200, json_values.encode({"status": "ready"}))

    async def metrics(self, request: Request) -> Response:
        return Response(
            await asyncio.to_thread(self._exposition), headers={"Content-Type": CONTENT_TYPE}
        )

    def _identifiers(self) -> dict[str, object]:
        return {"database": self._table.database, "table": self._table.table}


async def _run(pool: ConnectionPool, job: Callable[[PooledConnection], T], request: Request) -> T:
    try:
        return await pool.run(job)
    except Unavailable as error:
        log.error(
            "ClickHouse unavailable; request answered 503",
            extra=fields(error=str(error), request_id=_request_id(request)),
        )
        raise errors.unavailable(error) from error


async def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = {404: "no such path", 405: "method not allowed for this path"}.get(
        error.status_code, error.detail
    )
    answer = await _handle_query_error(request, QueryError(error.status_code, code, message))
    answer.headers.update(error.headers or {})
    return answer


async def _handle_query_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueryError)
    body = json_values.encode(errors.error_body(error, _request_id(request)))
    answer = _json(error.status, body)
    if error.status == 503:
        answer.headers["Retry-After"] = str(errors.RETRY_AFTER_SECONDS)
    return answer


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, media_type="application/json")


def _request_id(request: Request) -> str:
    return str(request.state.request_id)
