"""The app over a real ClickHouse, and events to ask it about."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from starlette.types import ASGIApp

from octane_analytics.api.app import create_app
from octane_analytics.api.guard import Limits
from octane_analytics.api.library import load
from octane_analytics.api.pool import Pool
from octane_analytics.clickhouse import ClickHouse
from octane_analytics.schema import TableName
from octane_analytics.settings.sections import ClickHouseSettings
from octane_analytics.telemetry.metrics import ApiMetrics
from octane_analytics.types import Row

LIMITS = Limits(seconds=10, result_rows=2000, result_bytes=8 << 20, memory_bytes=512 << 20)


@contextmanager
def app_over(settings: ClickHouseSettings, limits: Limits = LIMITS) -> Iterator[ASGIApp]:
    pools = [
        Pool(
            lambda: ClickHouse(settings, client_name="tests"),
            size=size,
            queue_seconds=5,
            deadline_seconds=20,
        )
        for size in (2, 1)
    ]
    try:
        yield create_app(
            templates=load().templates,
            table=TableName(settings.database, settings.table),
            limits=limits,
            pool=pools[0],
            probes=pools[1],
            metrics=ApiMetrics(None),
            exposition=lambda: b"",
        )
    finally:
        for pool in pools:
            pool.close()


def event(
    second: int,
    name: str,
    user: str = "u1",
    *,
    app: str = "openstream",
    raw: str | None = None,
    **properties: object,
) -> Row:
    """`raw` is the text of the properties as it came, in place of `properties`."""
    text = json.dumps(properties) if raw is None else raw
    return Row(second, app, name, user, text.encode())


def insert(settings: ClickHouseSettings, rows: Sequence[Row]) -> None:
    with ClickHouse(settings, client_name="tests") as connection:
        connection.insert([list(column) for column in zip(*rows, strict=True)], None)


def at(second: int) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")
