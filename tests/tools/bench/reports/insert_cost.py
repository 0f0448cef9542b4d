"""CPU time of ClickHouse for inserts into a table without rollups, with them, and with views."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.events.decode import decode_all
from octane_analytics.sandbox.generator import generate
from tests.tools.bench.measure import cpu_seconds
from tests.tools.bench.reports import by_hand, rollups
from tests.tools.bench.reports.ledgers import RAW, ROLLUPS, Ledgers, sizes
from tests.tools.bench.reports.questions import VIEW

_TABLE = "inserts"
_RATE = 10_000
"""Events a second, which gives the number of sessions that are mixed in an insert."""
_MERGE_SECONDS = 300.0


@dataclass
class InsertCost:
    """Cost in one way; one value for each round."""

    rows: int
    """Rows of an insert."""
    inserts: int
    way: str
    insert_us: list[float] = field(default_factory=list)
    """CPU microseconds of an event, without merges."""
    merge_us: list[float] = field(default_factory=list)
    """The same for the merge of all parts into one."""
    bytes_per_event: float = 0.0
    """After that merge."""


def insert_costs(
    ledgers: Ledgers, events: int, sizes_of_inserts: Sequence[int], ways: Sequence[str], rounds: int
) -> list[InsertCost]:
    """Insert the same events in each way; the ways take turns. Large inserts take all events, small
    ones as many as 200 inserts hold."""
    costs = []
    for rows in sizes_of_inserts:
        count = max(min(events // rows, 200), 1)
        blocks = _blocks(rows, count)
        mine = [InsertCost(rows, count, way) for way in ways]
        for number in range(rounds):
            for cost in mine[:: -1 if number % 2 else 1]:
                _measure(ledgers, cost, blocks)
        costs += mine
    return costs


def _blocks(rows: int, count: int) -> list[Sequence[Sequence[object]]]:
    """Return the columns of each insert: events of the last minutes, as workers insert them."""
    total = rows * count
    until = datetime.now(UTC)
    lines = list(generate(total, seed=1, until=until, span=timedelta(seconds=total / _RATE + 1)))
    return [decode_all(lines[start : start + rows]).columns for start in range(0, total, rows)]


def _measure(
    ledgers: Ledgers, cost: InsertCost, blocks: Sequence[Sequence[Sequence[object]]]
) -> None:
    settings = ledgers.settings(_TABLE)
    pid = ledgers.engine.pid
    assert pid is not None
    with ClickHouseSink(settings, client_name="bench") as clickhouse:
        _drop(clickhouse)
        clickhouse.execute(schema.create_table(clickhouse.table))
        rollups.drop(clickhouse)
        if cost.way == ROLLUPS:
            rollups.apply(settings)
        if cost.way == VIEW:
            for report in by_hand.ALTERNATIVES:
                clickhouse.execute(by_hand.create_target(clickhouse.table, report))
                clickhouse.execute(by_hand.create_view(clickhouse.table, report))
        try:
            clickhouse.execute("SYSTEM STOP MERGES")
            began = cpu_seconds(pid)
            for number, columns in enumerate(blocks):
                clickhouse.insert_block(columns, f"bench-{number}", None)
            inserted = cpu_seconds(pid)
            clickhouse.execute("SYSTEM START MERGES")
            _merge(clickhouse, cost.way)
            merged = cpu_seconds(pid)
            rows, size, _ = sizes(clickhouse)
            assert rows == cost.rows * cost.inserts
            cost.insert_us.append((inserted - began) / rows * 1e6)
            cost.merge_us.append((merged - inserted) / rows * 1e6)
            cost.bytes_per_event = (size + _size_of_targets(clickhouse, cost.way)) / rows
        finally:
            clickhouse.execute("SYSTEM START MERGES")
            _drop(clickhouse)


def _merge(clickhouse: ClickHouseSink, way: str) -> None:
    """Block until the table and its views' targets have one part for each partition."""
    tables = [clickhouse.table]
    if way == VIEW:
        tables += [by_hand.target(clickhouse.table, report) for report in by_hand.ALTERNATIVES]
    deadline = time.monotonic() + _MERGE_SECONDS
    for table in tables:
        while time.monotonic() < deadline:
            clickhouse.execute(f"OPTIMIZE TABLE {table} FINAL")
            if _most_parts(clickhouse, table) <= 1:
                break
            time.sleep(0.05)


def _most_parts(clickhouse: ClickHouseSink, table: schema.TableName) -> int:
    found = clickhouse.select(
        "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts WHERE active "
        "AND database = {database:String} AND table = {table:String} GROUP BY partition_id)",
        {"database": table.database, "table": table.table},
    )
    return int(found.rows[0][0])


def _size_of_targets(clickhouse: ClickHouseSink, way: str) -> int:
    if way != VIEW:
        return 0
    names = [by_hand.target(clickhouse.table, report).table for report in by_hand.ALTERNATIVES]
    found = clickhouse.select(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active "
        "AND database = {database:String} AND has({tables:Array(String)}, table)",
        {"database": clickhouse.table.database, "tables": names},
    )
    return int(found.rows[0][0])


def _drop(clickhouse: ClickHouseSink) -> None:
    for statement in by_hand.drop_views(clickhouse.table):
        clickhouse.execute(statement)
    clickhouse.execute(f"DROP TABLE IF EXISTS {clickhouse.table} SYNC")


WAYS = (RAW, ROLLUPS, VIEW)
