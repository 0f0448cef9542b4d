"""Executions of the report templates, as the API runs them, and of their alternatives.

Times are those of the client, until the last row is read. Memory, rows and bytes read, and the rollups
that were used come from `system.query_log`.
"""

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import click

from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.reports.library import load
from octane_analytics.api.reports.parameters import bind
from octane_analytics.api.reports.template import Template
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.connection import ALL_SHARDS
from octane_analytics.errors import QueryError, StatementRejected
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.serving import ApiSettings
from tests.tools.bench.reports import by_hand
from tests.tools.bench.reports.ledger_events import Ledger
from tests.tools.bench.reports.ledgers import RAW, ROLLUPS, Built, Ledgers
from tests.tools.bench.reports.sharded import SHARDED, ShardedLedgers

BY_HAND, VIEW = "by hand", "view"
WAYS = (RAW, ROLLUPS, SHARDED, BY_HAND, VIEW)
RANGES = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "90d": timedelta(days=90)}
PARAMETERS: Mapping[str, Mapping[str, object]] = {
    "audience_retention": {"content": "c-00001"},
    "funnel": {"steps": ["video_start", "video_heartbeat", "video_end"]},
    "property_percentiles": {"property": "startup_ms", "event_name": "video_start"},
    "top_values": {"property": "network_type"},
}
"""Parameters of the reports that require some; the timeline takes a session of the ledger,
and every other report has its defaults."""
_MANY_HOURS = timedelta(days=8)
"""Ranges from here on are shown by day, as a dashboard would."""
_CACHES = ("MARK CACHE", "UNCOMPRESSED CACHE", "INDEX MARK CACHE", "QUERY CONDITION CACHE")
_TIMED_OUT = frozenset({159, 160})


@dataclass(frozen=True)
class Query:
    """One execution, with the figures that the server logged."""

    seconds: float
    query_id: str
    first_value: str = ""
    error: str = ""


@dataclass
class Cell:
    """One report over one range in one way; `warm` and `cold` are seconds of each round."""

    events: int
    parts: int
    report: str
    span: str
    way: str
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    error: str = ""
    peak_bytes: int = 0
    read_rows: int = 0
    read_bytes: int = 0
    cpu_seconds: float = 0.0
    """Of the last execution, as memory, rows and bytes are."""
    projections: tuple[str, ...] = ()
    first_value: str = ""
    """First value of the first row, as text."""


def parameters(template: Template, span: timedelta, ledger: Ledger) -> dict[str, object]:
    """Return what a dashboard would send. Raise ClickException for a report that needs more."""
    given: dict[str, object] = {
        "from": (ledger.until - span).isoformat(),
        "to": ledger.until.isoformat(),
        **PARAMETERS.get(template.name, {}),
    }
    if template.name == "session_timeline":
        given["id"] = ledger.last_session_id
    if "bucket_seconds" in template.parameters:
        allowed = template.parameters["bucket_seconds"].allowed
        widest = 86_400 if span >= _MANY_HOURS else 3_600
        given["bucket_seconds"] = widest if not allowed or widest in allowed else max(allowed)
    try:
        bind(template, given, datetime.now(UTC))
    except QueryError as error:
        raise click.ClickException(f"report {template.name}: {error}") from error
    return given


def reports() -> Mapping[str, Template]:
    return load().templates


class Questions:
    """Runs statements over the ledgers, each limited as a report of the API is."""

    def __init__(
        self, ledgers: Ledgers, timeout_seconds: float, sharded: ShardedLedgers | None = None
    ) -> None:
        self._ledgers = ledgers
        self._sharded = sharded
        served = ApiSettings()
        self._limits = ComplexityLimits(
            seconds=timeout_seconds,
            result_rows=served.max_result_rows,
            result_bytes=served.max_result_bytes,
            memory_bytes=served.max_memory_bytes,
        )

    def measure(
        self, tables: Mapping[str, Built], names: Sequence[str], spans: Sequence[str], rounds: int
    ) -> list[Cell]:
        """Return a cell for each report, range and way; the ways take turns."""
        cells = []
        for name in names:
            for span in spans:
                mine = [
                    Cell(tables[RAW].events, tables[RAW].parts, name, span, way)
                    for way in self._ways(tables, name)
                ]
                for number in range(rounds):
                    for cell in mine[:: -1 if number % 2 else 1]:
                        self._round(cell, tables)
                for cell in mine:
                    click.echo(_line(cell), err=True)
                cells += mine
        return cells

    def _ways(self, tables: Mapping[str, Built], report: str) -> list[str]:
        is_compared = report in by_hand.ALTERNATIVES and tables[RAW].parts == 1
        return [way for way in WAYS if (way in tables) or (is_compared and way in (BY_HAND, VIEW))]

    def _round(self, cell: Cell, tables: Mapping[str, Built]) -> None:
        """Run once without caches and once with them. A way that failed is not run again."""
        if cell.error:
            return
        table = tables.get(cell.way, tables[RAW])
        with ClickHouse(self._settings(table), client_name="bench") as clickhouse:
            self._drop_caches()
            for times in (cell.cold, cell.warm):
                query = self._run(clickhouse, cell)
                if query.error:
                    cell.error = query.error
                    break
                times.append(query.seconds)
                cell.first_value = query.first_value
            if cell.way != SHARDED:  # those servers keep no log of queries
                _add_logged(clickhouse, cell, query.query_id)

    def _settings(self, table: Built) -> ClickHouseSettings:
        if table.way == SHARDED and self._sharded:
            return self._sharded.settings(table.table)
        return self._ledgers.settings(table.table)

    def _drop_caches(self) -> None:
        """Empty the caches of all servers, and the kernel's of their files."""
        for engine in (self._ledgers.engine, *(self._sharded.nodes if self._sharded else ())):
            settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
            with ClickHouse(settings, client_name="bench") as clickhouse:
                for cache in _CACHES:
                    clickhouse.execute(f"SYSTEM DROP {cache}")
            _drop_pages(Path(engine.log_path).parent)

    def _run(self, clickhouse: ClickHouse, cell: Cell) -> Query:
        sql, values, of_template = self._statement(clickhouse, cell)
        query_id = uuid.uuid4().hex
        began = time.perf_counter()
        try:
            settings = {**of_template, **self._limits.settings("bench"), **ALL_SHARDS}
            result = clickhouse.select(sql, values, settings=settings, query_id=query_id)
        except StatementRejected as error:
            seconds = self._limits.seconds
            text = f"over {seconds:g} s" if error.code in _TIMED_OUT else f"{error}"[:80]
            return Query(time.perf_counter() - began, query_id, error=text)
        seconds = time.perf_counter() - began
        first = f"{result.rows[0][0]}" if result.rows else ""
        return Query(seconds, query_id, first)

    def _statement(
        self, clickhouse: ClickHouse, cell: Cell
    ) -> tuple[str, dict[str, object], Mapping[str, object]]:
        """Return SQL, values and settings."""
        template = reports()[cell.report]
        given = parameters(template, RANGES[cell.span], self._ledgers.ledger(cell.events))
        bound = bind(template, given, datetime.now(UTC))
        values = {
            **bound.values,
            "database": clickhouse.table.database,
            "table": clickhouse.table.table,
            "target": by_hand.target(clickhouse.table, cell.report).table,
        }
        if cell.way == BY_HAND:
            return by_hand.ALTERNATIVES[cell.report].query, values, {}
        if cell.way == VIEW:
            return by_hand.ALTERNATIVES[cell.report].view_query, values, {}
        sql = template.statement(bound.effective, bound.range)
        return sql, values, template.settings(bound.range)


def _line(cell: Cell) -> str:
    size = f"{cell.events:,}" if cell.parts == 1 else f"{cell.events:,} in {cell.parts} parts"
    took = cell.error or f"{median(cell.warm) * 1000:,.0f} ms, cold {median(cell.cold) * 1000:,.0f}"
    return f"{cell.report:>22} {cell.span:>3} {size:>11} {cell.way:>8} {took}"


def _drop_pages(directory: Path) -> None:
    for folder, _folders, names in os.walk(directory / "data" / "store"):  # some vanish by merges
        for name in names:
            with suppress(FileNotFoundError), (Path(folder) / name).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _add_logged(clickhouse: ClickHouse, cell: Cell, query_id: str) -> None:
    clickhouse.execute("SYSTEM FLUSH LOGS query_log")
    found = clickhouse.select(
        "SELECT memory_usage, read_rows, read_bytes,"
        " ProfileEvents['OSCPUVirtualTimeMicroseconds'], projections"
        " FROM system.query_log WHERE query_id = {query_id:String} AND type != 'QueryStart'",
        {"query_id": query_id},
    ).rows
    if found:
        memory, rows, size, cpu, projections = found[0]
        cell.peak_bytes = max(cell.peak_bytes, int(memory))
        cell.read_rows, cell.read_bytes = int(rows), int(size)
        cell.cpu_seconds = int(cpu) / 1e6
        cell.projections = tuple(sorted({each.rpartition(".")[2] for each in projections}))
