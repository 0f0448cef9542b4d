"""Requests to an ASGI app without a server, and the app over scripted connections."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from octane_analytics.api.connection_pool import ConnectionPool, PooledConnection
from octane_analytics.api.limits import ComplexityLimits, QueryLimits
from octane_analytics.api.raw_sql import functions
from octane_analytics.api.raw_sql.endpoint import RawSqlEndpoint
from octane_analytics.api.raw_sql.validator import AccessRules
from octane_analytics.api.reports.library import load
from octane_analytics.api.server.app import create_app
from octane_analytics.clickhouse.results import DataRead, Excerpt, Result, ResultColumn, RowStream
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.telemetry.api_metrics import ApiMetrics

NOW = datetime(2026, 2, 2, 12, 0, 0, 500_000, tzinfo=UTC)
LIMITS = ComplexityLimits(seconds=30, result_rows=3, result_bytes=1 << 20, memory_bytes=1 << 30)
QUERY_LIMITS = QueryLimits(
    seconds=30,
    result_rows=3,
    result_bytes=1 << 20,
    memory_bytes=1 << 30,
    rows_read=1 << 40,
    bytes_read=1 << 40,
    threads=2,
)
RULES = AccessRules(TableName("db", "events"), functions.load())
SELECT_TREE = (
    "SelectWithUnionQuery (children 1)",
    " ExpressionList (children 1)",
    "  SelectQuery (children 1)",
    "   ExpressionList (children 1)",
    "    Literal UInt64_1",
)

QUERY_TREE = (
    "QUERY id: 0",
    "  PROJECTION",
    "    LIST id: 1, nodes: 1",
    "      CONSTANT id: 2, constant_value: UInt64_1, constant_value_type: UInt8",
    "  JOIN TREE",
    "    IDENTIFIER id: 3, identifier: system.one",
)


def result(*rows: tuple[object, ...], **columns: str) -> Result:
    return Result(tuple(ResultColumn(name, kind) for name, kind in columns.items()), list(rows))


def judged(*answers: Result | Exception) -> "Script":
    """Return a connection that parses any statement as SELECT 1, then returns the given results."""
    return Script(
        result(("limit", "0", None, None, 0), ("readonly", "0", None, None, 0), name="String"),
        result(("123", [], [], [], 0, [], 0, 0), fingerprint="String"),
        result(*((line,) for line in SELECT_TREE), explain="String"),
        result(*((line,) for line in QUERY_TREE), explain="String"),
        *answers,
    )


class Script:
    """Connection that returns or raises the next of its results at each call."""

    def __init__(self, *steps: Result | Exception | Callable[[], Result]) -> None:
        self.steps = list(steps)
        self.calls: list[tuple[str, Mapping[str, object], Mapping[str, object]]] = []
        self.is_closed = False

    def select(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
    ) -> Result:
        self.calls.append((sql, parameters or {}, settings or {}))
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Result) else step()

    @contextmanager
    def stream(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
        max_block_bytes: int | None = None,
    ) -> Iterator[RowStream]:
        answer = self.select(sql, parameters, settings=settings, query_id=query_id)
        yield RowStream(
            answer.columns, iter([answer.rows] if answer.rows else []), lambda: DataRead(5, 500)
        )

    def excerpt(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object],
        max_rows: int,
        max_bytes: int,
    ) -> Excerpt:
        rows = self.select(sql, parameters, settings=settings)
        return Excerpt(
            rows.columns, rows.rows[:max_rows], len(rows.rows) <= max_rows, DataRead(7, 700)
        )

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


def pool(connection: PooledConnection, **changes: float) -> ConnectionPool:
    options: dict[str, Any] = {"queue_seconds": 30.0, "deadline_seconds": 30.0} | changes
    return ConnectionPool(lambda: connection, size=1, **options)


def app_over(
    connection: PooledConnection,
    *,
    probe: PooledConnection | None = None,
    registry: CollectorRegistry | None = None,
    limits: ComplexityLimits = LIMITS,
    cache_bytes: int = 0,
    now: Callable[[], datetime] = lambda: NOW,
) -> ASGIApp:
    return create_app(
        templates=load().templates,
        table=TableName("db", "events"),
        limits=limits,
        pool=pool(connection),
        probes=pool(probe or connection),
        queries=RawSqlEndpoint(pool(connection), RULES, QUERY_LIMITS, "analyst"),
        metrics=ApiMetrics(registry),
        exposition=lambda: b"# metrics\n",
        cache_bytes=cache_bytes,
        now=now,
    )


def call(app: ASGIApp, method: str, path: str, **options: object) -> httpx.Response:
    """Send one request; `options` are httpx's."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)  # type: ignore[arg-type]

    return asyncio.run(send())


def report(app: ASGIApp, template: str, **params: object) -> httpx.Response:
    return call(app, "POST", "/report", json={"template": template, "params": params})


def query(app: ASGIApp, sql: str, /, **params: object) -> httpx.Response:
    return call(app, "POST", "/query", json={"sql": sql, "params": params})
