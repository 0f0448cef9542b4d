"""Report execution: answers from the cache, a concurrent identical request, or ClickHouse.

Does not depend on HTTP.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from octane_analytics.api import errors
from octane_analytics.api.comparison import (
    MAX_COMPARED_ROWS,
    Comparison,
    compared_range,
    identity,
)
from octane_analytics.api.connection_pool import ConnectionPool, PooledConnection
from octane_analytics.api.filters import Filter
from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.reports.cache import CachedAnswer, ReportCache
from octane_analytics.api.reports.execution import ReportPlan, run
from octane_analytics.api.reports.parameters import BoundParameters, bind
from octane_analytics.api.reports.single_flight import SingleFlight
from octane_analytics.api.reports.template import Template
from octane_analytics.api.results.formats import JSON, Format
from octane_analytics.api.results.json_values import encode
from octane_analytics.api.results.streaming import ChunkStream, Stream
from octane_analytics.api.timestamps import from_epoch, rfc3339
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
    compare: Comparison | None = None
    has_totals: bool = False
    has_safe_integers: bool = False
    shows_reads: bool = True
    """False if rows of others are read too, so that their number would say how many there are."""
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
        compared = self._compared(query, bound)
        max_rows = bound.max_rows(template.row_limit or self._limits.result_rows)
        if compared is not None:
            max_rows = min(max_rows, MAX_COMPARED_ROWS)
        key = self._key(query, bound)

        async def execute() -> CachedAnswer | Stream:
            content = await self._execute(query, bound, compared, max_rows)
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

    def _compared(self, query: ReportQuery, bound: BoundParameters) -> BoundParameters | None:
        """Return the parameters of the range to compare with. Raises QueryError (422)."""
        template = query.template
        if query.has_totals and not template.has_totals:
            raise _unsupported("totals", f"{template.name} has no totals")
        if query.has_totals and query.format is not JSON:
            raise QueryError(422, "totals_need_json", "totals are part of the format json only")
        if query.compare is None:
            return None
        if template.key is None:
            raise _unsupported("compare", f"{template.name} declares no key to compare by")
        now = self._now()
        start, end = compared_range(query.compare, *bound.range, now)
        times = {name: rfc3339(from_epoch(each)) for name, each in (("from", start), ("to", end))}
        return bind(template, {**query.given, **times}, now, query.filters)

    def key(self, query: ReportQuery) -> bytes:
        """Return the key of equivalent queries of one partition. Raises QueryError (422)."""
        bound = bind(query.template, query.given, self._now(), query.filters)
        self._compared(query, bound)
        return self._key(query, bound)

    def _key(self, query: ReportQuery, bound: BoundParameters) -> bytes:
        """Return the key of the answer in the cache."""
        compare = None if query.compare is None else identity(query.compare)
        switches = [
            query.is_csv_raw,
            query.has_totals,
            query.has_safe_integers,
            query.shows_reads,
        ]
        options = [query.format.name, *switches, compare]
        return encode([query.partition, *options]) + bound.identity

    async def _execute(
        self,
        query: ReportQuery,
        bound: BoundParameters,
        compared: BoundParameters | None,
        max_rows: int,
    ) -> CachedAnswer | Stream:
        stream = ChunkStream()
        work = asyncio.ensure_future(self._run(query, bound, compared, max_rows, stream))
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
        self,
        query: ReportQuery,
        bound: BoundParameters,
        compared: BoundParameters | None,
        max_rows: int,
        stream: ChunkStream,
    ) -> CachedAnswer | None:
        template = query.template
        plan = ReportPlan(
            template=template,
            bound=bound,
            compared=compared,
            has_totals=query.has_totals,
            max_rows=max_rows,
            format=query.format,
            is_csv_raw=query.is_csv_raw,
            has_safe_integers=query.has_safe_integers,
            shows_reads=query.shows_reads,
            values={"database": self._table.database, "table": self._table.table},
            settings={
                **template.settings(bound.range, *([compared.range] if compared else [])),
                **self._limits.settings(query.request_id),
                **query.trace,
            },
            max_block_bytes=self._limits.result_bytes,
        )

        def job(connection: PooledConnection) -> CachedAnswer | None:
            stream.begin()
            statistics = run(connection, plan, stream)
            self._on_rows_read(statistics.read.rows)
            body = stream.body()
            if body is None:
                return None
            return CachedAnswer(
                body,
                query.format.media_type,
                statistics.etag,
                statistics.is_truncated,
                self._monotonic(),
                time.perf_counter() - statistics.started,
                statistics.read if query.shows_reads else None,
            )

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


def _unsupported(name: str, problem: str) -> QueryError:
    return QueryError(422, "bad_parameter", problem, parameter=name)
