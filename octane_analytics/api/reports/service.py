"""One report's answer: from the cache, from a request that asks the same, or from ClickHouse.

Owns what makes two requests the same and how an answer is made; refuses to know HTTP.
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
    """`partition` keeps callers' answers apart: only requests of the same one share. `is_fresh` asks
    for an answer that is made now; `trace` are settings that tell ClickHouse whose trace it is in."""

    template: Template
    given: Mapping[str, object]
    format: Format
    request_id: str
    partition: str = ""
    is_fresh: bool = False
    is_csv_raw: bool = False
    trace: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    content: CachedAnswer | Stream
    outcome: Outcome
    max_rows: int
    age_seconds: float


class ReportService:
    """For one event loop."""

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
        """Raises QueryError (404)."""
        if name not in self.templates:
            raise QueryError(
                404,
                "unknown_template",
                f"there is no template {name!r}",
                templates=list(self.templates),
            )
        return self.templates[name]

    async def answer(self, asked: ReportQuery) -> ReportAnswer:
        """Raises QueryError."""
        template = asked.template
        bound = bind(template, asked.given, self._now())
        max_rows = bound.max_rows(template.row_limit or self._limits.result_rows)
        key = encode([asked.partition, asked.format.name, asked.is_csv_raw]) + bound.identity

        async def work() -> CachedAnswer | Stream:
            made = await self._make(asked, bound, max_rows)
            if isinstance(made, CachedAnswer):
                self._cache.put(key, made, template.cache_seconds)
            return made

        def answered(content: CachedAnswer | Stream, outcome: Outcome) -> ReportAnswer:
            age = self._monotonic() - content.made_at if isinstance(content, CachedAnswer) else 0.0
            return ReportAnswer(content, outcome, max_rows, max(age, 0.0))

        if asked.is_fresh:
            return answered(await work(), "bypass")
        kept = self._cache.get(key)
        if kept is not None:
            return answered(kept, "hit")
        content, is_shared = await self._flights.join(key, work)
        if content is None:
            return answered(await work(), "miss")
        return answered(content, "shared" if is_shared else "miss")

    async def _make(
        self, asked: ReportQuery, bound: BoundParameters, max_rows: int
    ) -> CachedAnswer | Stream:
        conduit = ChunkStream()
        work = asyncio.ensure_future(self._run(asked, bound, max_rows, conduit))
        try:
            either: set[asyncio.Future[Any]] = {work, conduit.overflowed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            conduit.abandon()
            work.cancel()
            raise
        if conduit.overflowed.done():
            return Stream(conduit, work, asked.format.media_type)
        made = await work
        # Some of it streams, and the end came before the loop heard of the beginning.
        return made or Stream(conduit, work, asked.format.media_type)

    async def _run(
        self, asked: ReportQuery, bound: BoundParameters, max_rows: int, conduit: ChunkStream
    ) -> CachedAnswer | None:
        template = asked.template
        values = {**bound.values, "database": self._table.database, "table": self._table.table}
        limits = self._limits.settings(asked.request_id)
        settings = {**limits, **asked.trace, "limit": max_rows + 1}

        def job(connection: PooledConnection) -> CachedAnswer | None:
            conduit.begin()
            started = time.perf_counter()
            envelope = Envelope(
                {"template": template.name, "params": bound.effective},
                lambda: _closing(bound, rows, started),
            )
            with connection.stream(
                template.sql,
                values,
                settings=settings,
                max_block_bytes=self._limits.result_bytes,
            ) as result:
                rows = Rows(result.blocks, max_rows)
                out = writer(
                    asked.format, result.columns, rows, envelope, is_csv_raw=asked.is_csv_raw
                )
                content = hashlib.blake2b(repr(result.columns).encode(), digest_size=12)
                is_enveloped = asked.format is JSON
                # An envelope tells when and how; the rows alone make two answers the same.
                chunk = out.begin()
                content.update(b"" if is_enveloped else chunk)
                conduit.put(chunk)
                for block in rows:
                    chunk = out.rows(block)
                    content.update(chunk)
                    conduit.put(chunk)
                chunk = out.end()
                content.update(b"" if is_enveloped else chunk)
                conduit.put(chunk)
                self._on_rows_read(result.rows_read())
            body = conduit.body()
            if body is None:
                return None
            etag = f'W/"{content.hexdigest()}"'
            media_type = asked.format.media_type
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
                    request_id=asked.request_id,
                ),
            )
            raise errors.from_report(error) from error
        except Unavailable as error:
            log.error(
                "ClickHouse cannot serve",
                extra=fields(error=str(error), request_id=asked.request_id),
            )
            raise errors.unavailable(error) from error


def _closing(bound: BoundParameters, rows: Rows, started: float) -> dict[str, object]:
    closing: dict[str, object] = {}
    offset = bound.effective.get("offset")
    if isinstance(offset, int):
        closing["next_offset"] = offset + rows.count if rows.is_truncated else None
    closing["elapsed_ms"] = round((time.perf_counter() - started) * 1000, 3)
    return closing
