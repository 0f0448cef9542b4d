"""Report execution: answers from the cache, a concurrent identical request, or ClickHouse.

Does not depend on HTTP.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from octane_analytics.api import errors
from octane_analytics.api.connection_pool import ConnectionPool, PooledConnection
from octane_analytics.api.filters import Filter
from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.reports.cache import CachedAnswer, ReportCache
from octane_analytics.api.reports.parameters import BoundParameters, bind
from octane_analytics.api.reports.single_flight import SingleFlight
from octane_analytics.api.reports.template import Template
from octane_analytics.api.results.formats import JSON, Envelope, Format, Rows, writer
from octane_analytics.api.results.json_values import encode
from octane_analytics.api.results.streaming import ChunkStream, Stream
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import QueryError, StatementRejected, Unavailable
from octane_analytics.telemetry.logging import fields

Outcome = Literal["hit", "shared", "miss", "bypass"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """Immutable report request.

    Only requests of the same `partition` share cached answers. `is_fresh` bypasses the cache; `trace`
    holds the ClickHouse settings that continue the trace.
    """

    template: Template
    given: Mapping[str, object]
    format: Format
    request_id: str
    partition: str = ""
    is_fresh: bool = False
    is_csv_raw: bool = False
    filters: tuple[Filter, ...] = ()
    trace: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    content: CachedAnswer | Stream
    outcome: Outcome
    max_rows: int
    age_seconds: float


class ReportService:
    """Runs reports. For one event loop."""

    def __init__(
        self,
        *,
        templates: Mapping[str, Template],
        table: TableName,
        limits: ComplexityLimits,
        pool: ConnectionPool,
        cache: ReportCache,
        now: Callable[[], datetime],
        on_rows_read: Callable[[int], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.templates = templates
        self._table = table
        self._limits = limits
        self._pool = pool
        self._cache = cache
        self._now = now
        self._on_rows_read = on_rows_read
        self._monotonic = monotonic
        self._flights: SingleFlight[CachedAnswer | Stream] = SingleFlight()

    def template(self, name: str) -> Template:
        """Return the template. Raises QueryError (404)."""
        if name not in self.templates:
            raise QueryError(
                404,
                "unknown_template",
                f"unknown template {name!r}",
                templates=list(self.templates),
            )
        return self.templates[name]

    async def answer(self, query: ReportQuery) -> ReportAnswer:
        """Answer from the cache or by a query. Raises QueryError."""
        template = query.template
        bound = bind(template, query.given, self._now(), query.filters)
        max_rows = bound.max_rows(template.row_limit or self._limits.result_rows)
        key = encode([query.partition, query.format.name, query.is_csv_raw]) + bound.identity

        async def execute() -> CachedAnswer | Stream:
            content = await self._execute(query, bound, max_rows)
            if isinstance(content, CachedAnswer):
                self._cache.put(key, content, template.cache_seconds)
            return content

        def with_outcome(content: CachedAnswer | Stream, outcome: Outcome) -> ReportAnswer:
            age = self._monotonic() - content.made_at if isinstance(content, CachedAnswer) else 0.0
            return ReportAnswer(content, outcome, max_rows, max(age, 0.0))

        if query.is_fresh:
            return with_outcome(await execute(), "bypass")
        cached = self._cache.get(key)
        if cached is not None:
            return with_outcome(cached, "hit")
        content, is_shared = await self._flights.join(key, execute)
        if content is None:
            return with_outcome(await execute(), "miss")
        return with_outcome(content, "shared" if is_shared else "miss")

    async def _execute(
        self, query: ReportQuery, bound: BoundParameters, max_rows: int
    ) -> CachedAnswer | Stream:
        stream = ChunkStream()
        work = asyncio.ensure_future(self._run(query, bound, max_rows, stream))
        try:
            either: set[asyncio.Future[Any]] = {work, stream.overflowed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            stream.abandon()
            work.cancel()
            raise
        if stream.overflowed.done():
            return Stream(stream, work, query.format.media_type)
        content = await work
        # None: streamed, and the job ended before the loop ran the callback of its overflow.
        return content or Stream(stream, work, query.format.media_type)

    async def _run(
        self, query: ReportQuery, bound: BoundParameters, max_rows: int, stream: ChunkStream
    ) -> CachedAnswer | None:
        template = query.template
        values = {**bound.values, "database": self._table.database, "table": self._table.table}
        limits = self._limits.settings(query.request_id)
        settings = {**limits, **query.trace, "limit": max_rows + 1}

        def job(connection: PooledConnection) -> CachedAnswer | None:
            stream.begin()
            started = time.perf_counter()
            envelope = Envelope(
                _header(template, bound),
                lambda: _trailer(bound, rows, started),
            )
            with connection.stream(
                template.statement(bound.effective, bound.conditions),
                values,
                settings=settings,
                max_block_bytes=self._limits.result_bytes,
            ) as result:
                rows = Rows(result.blocks, max_rows)
                output = writer(
                    query.format, result.columns, rows, envelope, is_csv_raw=query.is_csv_raw
                )
                digest = hashlib.blake2b(repr(result.columns).encode(), digest_size=12)
                is_enveloped = query.format is JSON
                # The envelope holds the range and the elapsed time: the ETag covers only the data.
                chunk = output.begin()
                digest.update(b"" if is_enveloped else chunk)
                stream.put(chunk)
                for block in rows:
                    chunk = output.rows(block)
                    digest.update(chunk)
                    stream.put(chunk)
                chunk = output.end()
                digest.update(b"" if is_enveloped else chunk)
                stream.put(chunk)
                self._on_rows_read(result.rows_read())
            body = stream.body()
            if body is None:
                return None
            etag = f'W/"{digest.hexdigest()}"'
            media_type = query.format.media_type
            return CachedAnswer(body, media_type, etag, rows.is_truncated, self._monotonic())

        try:
            return await self._pool.run(job)
        except StatementRejected as error:
            log.error(
                "report failed",
                extra=fields(
                    template=template.name,
                    clickhouse_code=error.code,
                    error=str(error),
                    request_id=query.request_id,
                ),
            )
            raise errors.from_report(error) from error
        except Unavailable as error:
            log.error(
                "ClickHouse unavailable; request answered 503",
                extra=fields(error=str(error), request_id=query.request_id),
            )
            raise errors.unavailable(error) from error


def _header(template: Template, bound: BoundParameters) -> dict[str, object]:
    header: dict[str, object] = {"template": template.name, "params": bound.effective}
    if bound.filters:
        header["filters"] = bound.filters
    return header


def _trailer(bound: BoundParameters, rows: Rows, started: float) -> dict[str, object]:
    trailer: dict[str, object] = {}
    offset = bound.effective.get("offset")
    if isinstance(offset, int):
        trailer["next_offset"] = offset + rows.count if rows.is_truncated else None
    trailer["elapsed_ms"] = round((time.perf_counter() - started) * 1000, 3)
    return trailer
