"""Composition of the application of one worker: connection pools, limits and metrics from settings."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.types import ASGIApp

from octane_analytics.api.connection_pool import ConnectionPool
from octane_analytics.api.dashboard.service_status import ServiceStatusSource
from octane_analytics.api.limits import ComplexityLimits, QueryLimits
from octane_analytics.api.middleware.authorization import AccessPolicy
from octane_analytics.api.raw_sql import functions
from octane_analytics.api.raw_sql.endpoint import RawSqlEndpoint
from octane_analytics.api.raw_sql.validator import AccessRules
from octane_analytics.api.reports.template import Template
from octane_analytics.api.server.app import create_app
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.sections import Settings
from octane_analytics.settings.serving import ApiSettings
from octane_analytics.supervisor.control_socket import FILE_NAME
from octane_analytics.telemetry import api_metrics, exposition

QUERY_GRACE_SECONDS = 5.0
"""Added to ClickHouse's time limit of a query for the deadline on this side."""
PROBE_SECONDS = 5.0
_RESERVED = 100
"""Connections, at most a tenth, that listeners of live reports leave to other requests and to probes."""
_CLIENT_NAME = "octane-analytics api"


def compose_app(
    settings: Settings,
    *,
    templates: Mapping[str, Template],
    policy: AccessPolicy,
    metrics_directory: Path,
    is_draining: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """Return the application. Call after the fork; its connections are opened on first use."""
    api, clickhouse = settings.api, settings.clickhouse
    probe_settings = dataclasses.replace(clickhouse, timeout_seconds=PROBE_SECONDS)
    metrics = api_metrics.ApiMetrics()
    own_exposition = exposition.Exposition(metrics_directory)
    return create_app(
        templates=templates,
        cache_bytes=api.cache_bytes,
        table=TableName(clickhouse.database, clickhouse.read_table),
        limits=ComplexityLimits(
            seconds=api.query_seconds,
            result_rows=api.max_result_rows,
            result_bytes=api.max_result_bytes,
            memory_bytes=api.max_memory_bytes,
        ),
        pool=_query_pool(clickhouse, api, metrics),
        probes=ConnectionPool(
            lambda: ClickHouse(probe_settings, client_name=_CLIENT_NAME),
            size=1,
            queue_seconds=PROBE_SECONDS,
            deadline_seconds=PROBE_SECONDS,
        ),
        queries=_raw_sql_endpoint(settings, metrics),
        metrics=metrics,
        exposition=own_exposition,
        status=ServiceStatusSource(
            _control_socket(settings.worker.control_socket, metrics_directory),
            (settings.metrics.host, settings.metrics.port) if settings.metrics.port else None,
            own_exposition,
        ),
        policy=policy,
        cors_origins=api.cors_origins,
        is_draining=is_draining,
        max_listeners=api.max_connections - min(_RESERVED, api.max_connections // 10),
    )


def _control_socket(given: str | None, metrics_directory: Path) -> Path | None:
    """Return the supervisor's socket: CONTROL_SOCKET, or the one beside shared metrics files."""
    if given is not None:
        return None if given == "none" else Path(given)
    return metrics_directory / FILE_NAME


def _raw_sql_endpoint(settings: Settings, metrics: api_metrics.ApiMetrics) -> RawSqlEndpoint:
    api, clickhouse, queries = settings.api, settings.clickhouse, settings.queries
    query_user = clickhouse
    if queries.user is not None:
        query_user = dataclasses.replace(clickhouse, user=queries.user, password=queries.password)
    return RawSqlEndpoint(
        _query_pool(query_user, api, metrics, is_confined=True),
        AccessRules(
            TableName(clickhouse.database, clickhouse.read_table),
            functions.load(queries.functions),
            queries.tables,
        ),
        QueryLimits(
            seconds=api.query_seconds,
            result_rows=api.max_result_rows,
            result_bytes=api.max_result_bytes,
            memory_bytes=api.max_memory_bytes,
            rows_read=queries.max_rows_read,
            bytes_read=queries.max_bytes_read,
            threads=queries.threads,
            reads_shards=clickhouse.topology().is_sharded,
        ),
        query_user.user,
        metrics.rows_read.labels("/query").inc,
    )


def _query_pool(
    clickhouse: ClickHouseSettings,
    api: ApiSettings,
    metrics: api_metrics.ApiMetrics,
    *,
    is_confined: bool = False,
) -> ConnectionPool:
    deadline_seconds = api.query_seconds + QUERY_GRACE_SECONDS
    connection = dataclasses.replace(clickhouse, timeout_seconds=deadline_seconds)
    return ConnectionPool(
        lambda: ClickHouse(connection, client_name=_CLIENT_NAME, is_confined=is_confined),
        size=api.threads,
        queue_seconds=api.queue_seconds,
        deadline_seconds=deadline_seconds,
        on_cancelled=metrics.queries_cancelled.inc,
    )
