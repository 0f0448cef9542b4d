"""The app over a real ClickHouse, and events for its queries."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from starlette.types import ASGIApp

from octane_analytics.api.connection_pool import ConnectionPool
from octane_analytics.api.limits import ComplexityLimits, QueryLimits
from octane_analytics.api.middleware.authorization import AccessPolicy
from octane_analytics.api.raw_sql import functions
from octane_analytics.api.raw_sql.endpoint import RawSqlEndpoint
from octane_analytics.api.raw_sql.validator import AccessRules
from octane_analytics.api.reports.library import load
from octane_analytics.api.server.app import create_app
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.events.event import Row
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.telemetry.api_metrics import ApiMetrics

LIMITS = ComplexityLimits(
    seconds=10, result_rows=2000, result_bytes=8 << 20, memory_bytes=512 << 20
)
QUERY_LIMITS = QueryLimits(
    seconds=10,
    result_rows=2000,
    result_bytes=8 << 20,
    memory_bytes=512 << 20,
    rows_read=10**10,
    bytes_read=10**12,
    threads=2,
)


def raw_queries(
    settings: ClickHouseSettings,
    limits: QueryLimits = QUERY_LIMITS,
    readable: Collection[tuple[str, str]] = (),
) -> RawSqlEndpoint:
    pool = ConnectionPool(
        lambda: ClickHouse(settings, client_name="tests", is_confined=True),
        size=2,
        queue_seconds=30,
        deadline_seconds=20,
    )
    table = TableName(settings.database, settings.read_table)
    limits = replace(limits, reads_shards=settings.topology().is_sharded)
    return RawSqlEndpoint(
        pool, AccessRules(table, functions.load(), readable), limits, settings.user
    )


@contextmanager
def app_over(
    settings: ClickHouseSettings,
    limits: ComplexityLimits = LIMITS,
    *,
    query_limits: QueryLimits = QUERY_LIMITS,
    query_settings: ClickHouseSettings | None = None,
    readable: Collection[tuple[str, str]] = (),
    policy: AccessPolicy | None = None,
    cache_bytes: int = 0,
) -> Iterator[ASGIApp]:
    """Yield the app; `query_settings` are those of the raw SQL user, by default the same."""
    pools = [
        ConnectionPool(
            lambda: ClickHouse(settings, client_name="tests"),
            size=size,
            queue_seconds=30,
            deadline_seconds=20,
        )
        for size in (2, 1)
    ]
    queries = raw_queries(query_settings or settings, query_limits, readable)
    try:
        yield create_app(
            templates=load().templates,
            table=TableName(settings.database, settings.read_table),
            limits=limits,
            pool=pools[0],
            probes=pools[1],
            queries=queries,
            metrics=ApiMetrics(None),
            exposition=lambda: b"",
            policy=policy,
            cache_bytes=cache_bytes,
        )
    finally:
        for pool in pools:
            pool.close()
        queries.close()


def event(
    second: int,
    name: str,
    user: str = "u1",
    *,
    app: str = "openstream",
    raw: str | None = None,
    **properties: object,
) -> Row:
    """Return a row; `raw` is the unparsed text of the properties, in place of `properties`."""
    text = json.dumps(properties) if raw is None else raw
    return Row(second, app, name, user, text.encode())


def insert(settings: ClickHouseSettings, rows: Sequence[Row]) -> None:
    with ClickHouseSink(settings, client_name="tests") as connection:
        connection.insert_block([list(column) for column in zip(*rows, strict=True)], None, None)


def at(second: int) -> str:
    """Return the time in RFC 3339."""
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")
