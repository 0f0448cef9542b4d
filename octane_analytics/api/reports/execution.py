"""One run of a report on a connection: its statements, and the answer that they are written to.

Does not depend on HTTP, caches or the event loop.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from octane_analytics.api import comparison
from octane_analytics.api.connection_pool import PooledConnection
from octane_analytics.api.reports import cursor
from octane_analytics.api.reports.parameters import BoundParameters
from octane_analytics.api.reports.template import Template
from octane_analytics.api.results.formats import (
    JSON,
    Envelope,
    Format,
    Rows,
    cost,
    row_object,
    writer,
)
from octane_analytics.clickhouse.results import DataRead, ResultColumn, RowStream

Row = tuple[Any, ...]
_ALL_ROWS = {"limit": 2**32 - 1, "offset": 0}


class Output(Protocol):
    def put(self, chunk: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """Immutable plan of a run. `values` name the table; `settings` are those of ClickHouse."""

    template: Template
    bound: BoundParameters
    compared: BoundParameters | None
    """Parameters of the range to compare with; None for no comparison."""
    has_totals: bool
    max_rows: int
    format: Format
    is_csv_raw: bool
    has_safe_integers: bool
    shows_reads: bool
    """True if the answer says how much ClickHouse read."""
    values: Mapping[str, object]
    settings: Mapping[str, object]
    max_block_bytes: int

    @property
    def keys(self) -> tuple[str, ...]:
        return self.template.key or ()


@dataclass(slots=True)
class RunStatistics:
    read: DataRead = field(default_factory=lambda: DataRead(0, 0))
    etag: str = ""
    is_truncated: bool = False
    started: float = field(default_factory=time.perf_counter)

    def add(self, result: RowStream) -> None:
        more = result.data_read()
        self.read = DataRead(self.read.rows + more.rows, self.read.bytes + more.bytes)


def run(connection: PooledConnection, plan: ReportPlan, output: Output) -> RunStatistics:
    """Run the report and put its answer into `output`. Raises what the connection raises."""
    return _Run(connection, plan, output).run()


class _Run:
    def __init__(self, connection: PooledConnection, plan: ReportPlan, output: Output) -> None:
        self._connection = connection
        self._plan = plan
        self._output = output
        self._statistics = RunStatistics()
        self._digest = hashlib.blake2b(digest_size=12)
        self._found_totals: Row | None = None
        self._earlier_totals: Row | None = None
        self._only_row: Row | None = None

    def run(self) -> RunStatistics:
        plan, statistics = self._plan, self._statistics
        with self._stream(plan.bound, max_rows=plan.max_rows) as result:
            if plan.compared is None:
                rows = self._write(result, result.columns, Rows(result.blocks, plan.max_rows))
            else:
                found = Rows(result.blocks, plan.max_rows)
                kept = [row for block in found for row in block]
                statistics.add(result)
                self._found_totals = result.totals()
                joined = self._joined(result.columns, kept, plan.compared)
                columns = comparison.columns_with_changes(result.columns, plan.keys)
                rows = Rows([joined] if joined else [], plan.max_rows)
                rows.is_truncated = found.is_truncated
                self._write(result, columns, rows)
        statistics.etag = f'W/"{self._digest.hexdigest()}"'
        statistics.is_truncated = rows.is_truncated
        return statistics

    def _stream(self, bound: BoundParameters, *, max_rows: int, **changes: object) -> Any:
        return self._select(
            self._plan.template.statement(
                bound.effective, bound.range, bound.conditions, has_totals=self._plan.has_totals
            ),
            {**bound.values, **changes},
            max_rows,
        )

    def _select(self, sql: str, values: Mapping[str, object], max_rows: int) -> Any:
        return self._connection.stream(
            sql,
            {**values, **self._plan.values},
            settings={**self._plan.settings, "limit": max_rows + 1},
            max_block_bytes=self._plan.max_block_bytes,
        )

    def _write(self, result: RowStream, columns: tuple[ResultColumn, ...], rows: Rows) -> Rows:
        plan = self._plan
        output = writer(
            plan.format,
            columns,
            rows,
            Envelope(self._header(), lambda: self._trailer(result, rows, columns)),
            is_csv_raw=plan.is_csv_raw,
            has_safe_integers=plan.has_safe_integers,
        )
        # The envelope holds the range and the elapsed time: the ETag covers only the data.
        is_enveloped = plan.format is JSON
        self._digest.update(repr(columns).encode())
        self._put(output.begin(), is_digested=not is_enveloped)
        for block in rows:
            self._put(output.rows(block))
            if plan.template.is_single_row:
                self._only_row = block[0]
        self._put(output.end(), is_digested=not is_enveloped)
        return rows

    def _put(self, chunk: bytes, *, is_digested: bool = True) -> None:
        if is_digested:
            self._digest.update(chunk)
        self._output.put(chunk)

    def _header(self) -> dict[str, object]:
        plan = self._plan
        header: dict[str, object] = {
            "template": plan.template.name,
            "params": plan.bound.effective,
        }
        if plan.bound.filters:
            header["filters"] = plan.bound.filters
        if plan.compared is not None:
            header["compare"] = {name: plan.compared.effective[name] for name in ("from", "to")}
        return header

    def _trailer(
        self, result: RowStream, rows: Rows, columns: tuple[ResultColumn, ...]
    ) -> dict[str, object]:
        plan, statistics = self._plan, self._statistics
        trailer: dict[str, object] = {}
        offset = plan.bound.effective.get("offset")
        if isinstance(offset, int):
            following = offset + rows.count
            trailer["next_offset"] = following if rows.is_truncated else None
            trailer["next_cursor"] = (
                cursor.encode(following, plan.bound.effective) if rows.is_truncated else None
            )
        if plan.compared is None:
            statistics.add(result)
            self._found_totals = result.totals()
        if plan.has_totals and plan.template.is_single_row:
            trailer |= {
                "totals": self._row_object(columns, self._only_row),
                "total_rows": rows.count,
            }
        elif plan.has_totals:
            totals = self._totals(result.columns, rows, offset if isinstance(offset, int) else 0)
            self._digest.update(repr(totals).encode())
            trailer |= totals
        read = statistics.read if plan.shows_reads else None
        return trailer | cost(read, statistics.started)

    def _totals(
        self, columns: tuple[ResultColumn, ...], rows: Rows, offset: int
    ) -> dict[str, object]:
        plan, found = self._plan, self._found_totals
        totals: object = None
        if found is not None:
            if plan.compared is not None:
                earlier = self._earlier_totals or self._compared_totals(plan.compared)
                found = comparison.with_change(columns, plan.keys, found, earlier)
                columns = comparison.columns_with_changes(columns, plan.keys)
            totals = self._row_object(columns, found) | dict.fromkeys(plan.keys)
        is_last = not rows.is_truncated and (rows.count > 0 or offset == 0)
        count = offset + rows.count if is_last else self._count()
        return {"totals": totals, "total_rows": count}

    def _row_object(self, columns: tuple[ResultColumn, ...], row: Row | None) -> dict[str, object]:
        if row is None:
            return {}
        return row_object(columns, row, has_safe_integers=self._plan.has_safe_integers)

    def _compared_totals(self, compared: BoundParameters) -> Row | None:
        with self._stream(compared, max_rows=1, **self._paged({"limit": 1})) as result:
            for _ in result.blocks:
                pass
            self._statistics.add(result)
            totals: Row | None = result.totals()
            return totals

    def _count(self) -> int:
        bound = self._plan.bound
        sql = self._plan.template.statement(bound.effective, bound.range, bound.conditions)
        values = {**bound.values, **self._paged(_ALL_ROWS)}
        count = f"SELECT count() FROM (\n{sql}\n)"  # noqa: S608
        with self._select(count, values, 1) as result:
            rows = _collected(result.blocks)
            self._statistics.add(result)
        return int(rows[0][0])

    def _paged(self, page: Mapping[str, object]) -> dict[str, object]:
        parameters = self._plan.template.parameters
        return {name: value for name, value in page.items() if name in parameters}

    def _joined(
        self, columns: tuple[ResultColumn, ...], rows: list[Row], compared: BoundParameters
    ) -> list[Row]:
        plan = self._plan
        keys = plan.keys
        template, values = plan.template, dict(compared.values)
        is_by_time = not keys or comparison.is_by_time(columns, keys)
        # Ranges with the same pages: the query that reads the earlier rows has their totals, too.
        sql = template.statement(
            compared.effective,
            compared.range,
            compared.conditions,
            has_totals=plan.has_totals and is_by_time,
        )
        if not is_by_time:
            # Rows of the same keys, wherever they are in the order of the other range.
            first = next(n for n, column in enumerate(columns) if column.name == keys[0])
            wanted = f"{{{comparison.KEYS}:Array(String)}}"
            sql = f"SELECT * FROM (\n{sql}\n) WHERE toString(`{keys[0]}`) IN {wanted}"  # noqa: S608
            values |= self._paged(_ALL_ROWS)
            values[comparison.KEYS] = [str(row[first]) for row in rows]
        if not rows:
            return []
        with self._select(sql, values, comparison.MAX_COMPARED_ROWS) as result:
            earlier = _collected(result.blocks)
            self._statistics.add(result)
            self._earlier_totals = result.totals()
        return comparison.join(columns, keys, rows, plan.bound.range[0], earlier, compared.range[0])


def _collected(blocks: Iterable[list[Row]]) -> list[Row]:
    return [row for block in blocks for row in block]
