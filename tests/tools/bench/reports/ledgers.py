"""Ledgers in one ClickHouse, built once and kept as long as their directory.

Each size and number of parts has a table without rollups (`raw`) and one with them, whose parts are
hard links to the same data. `ledgers.json` in the directory lists the finished tables; an unfinished
one is built again from its beginning.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.rollups import SETS
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.engine import EngineError
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.bench.reports import by_hand, rollups
from tests.tools.bench.reports.ledger_events import EVENTS_PER_SESSION, Ledger, select_events

RAW, ROLLUPS = "raw", "rollups"
_INSERT_EVENTS = 1_000_000
_MEMORY_BYTES = 8 << 30
TIMEOUT_SECONDS = 3600.0
_FILE = "ledgers.json"
_SPILL = {"max_bytes_before_external_group_by": 2 << 30}
"""Memory of an aggregation by hour and content, which has millions of groups in a month."""
_NO_MERGES = (
    "max_bytes_to_merge_at_max_space_in_pool = 1, max_bytes_to_merge_at_min_space_in_pool = 1"
)
"""Table settings under which no parts are merged, also after a restart of the server."""


@dataclass(frozen=True)
class Built:
    """Facts about one finished table."""

    table: str
    way: str
    events: int
    """Nominal size of the ledger."""
    parts: int
    """Requested number of parts; 1 for one per month."""
    rows: int
    bytes_on_disk: int
    parts_on_disk: int
    build_seconds: float
    rollups: tuple[str, ...] = ()


class Ledgers:
    """Tables of one directory. Not thread-safe."""

    def __init__(self, engine: EmbeddedClickHouse, file: Path, days: int, seed: int) -> None:
        self.engine = engine
        self._file = file
        self._seed = seed
        self._days = days
        kept = json.loads(file.read_text()) if file.exists() else None
        if kept is None:
            kept = {"until": datetime.now(UTC).isoformat(timespec="seconds"), "tables": []}
            kept |= {"days": days, "seed": seed}
        if (kept["days"], kept["seed"]) != (days, seed):
            raise click.ClickException(
                f"{file.parent} holds ledgers of {kept['days']} days and seed {kept['seed']}: "
                "give the same, or another --directory"
            )
        self.until = datetime.fromisoformat(kept["until"])
        self._built = {
            each["table"]: Built(**each | {"rollups": tuple(each["rollups"])})
            for each in kept["tables"]
        }

    def settings(self, table: str) -> ClickHouseSettings:
        return ClickHouseSettings(
            host=self.engine.host,
            port=self.engine.tcp_port,
            table=table,
            timeout_seconds=TIMEOUT_SECONDS,
        )

    def ledger(self, events: int) -> Ledger:
        """Return the description of a ledger of that size."""
        return Ledger(events, self.until, self._days, self._seed)

    def is_built(self, way: str, events: int, parts: int) -> bool:
        return _name(way, events, parts) in self._built

    def raw(self, events: int, parts: int) -> Built:
        """Return the table without rollups; block while it is built."""

        def build(clickhouse: ClickHouse) -> None:
            create(clickhouse, is_merged=parts == 1)
            ledger = self.ledger(events)
            # Slices of time: of a million events, or as many as there are to be parts.
            step = max(round(_INSERT_EVENTS / EVENTS_PER_SESSION), 1)
            if parts > 1:
                step = max(-(-ledger.sessions // parts), 1)
            firsts = range(0, ledger.sessions, step)
            fill(clickhouse, ledger, firsts, step, threads=1 if parts > 1 else 2)
            if parts == 1:
                merge(clickhouse)
                _build_targets(clickhouse)

        return self._ensure(RAW, events, parts, build)

    def rolled_up(self, events: int, parts: int) -> Built:
        """Return the table with rollups, whose data is linked from the raw one; block meanwhile."""
        source = self.raw(events, parts)

        def build(clickhouse: ClickHouse) -> None:
            create(clickhouse, is_merged=parts == 1)
            of_source = schema.TableName(clickhouse.table.database, source.table)
            for partition in _partitions(clickhouse, source.table):
                clickhouse.execute(
                    f"ALTER TABLE {clickhouse.table} ATTACH PARTITION ID '{partition}' FROM {of_source}"
                )
            rollups.apply(self.settings(clickhouse.table.table), ",".join(SETS))

        return self._ensure(ROLLUPS, events, parts, build)

    def _ensure(
        self, way: str, events: int, parts: int, build: Callable[[ClickHouse], None]
    ) -> Built:
        name = _name(way, events, parts)
        if name in self._built:
            return self._built[name]
        click.echo(f"building {name} …", err=True)
        with ClickHouse(self.settings(name), client_name="bench") as clickhouse:
            for statement in by_hand.drop_views(clickhouse.table):
                clickhouse.execute(statement)
            clickhouse.execute(f"DROP TABLE IF EXISTS {clickhouse.table} SYNC")
            began = time.monotonic()
            build(clickhouse)
            seconds = time.monotonic() - began
            rows, size, count = sizes(clickhouse)
            built = Built(
                name,
                way,
                events,
                parts,
                rows,
                size,
                count,
                seconds,
                tuple(rollups.names(clickhouse)),
            )
        self._built[name] = built
        self._write()
        click.echo(f"built {name}: {rows:,} events, {seconds:,.0f} s, {size >> 20:,} MiB", err=True)
        return built

    def _write(self) -> None:
        kept = {
            "until": self.until.isoformat(),
            "days": self._days,
            "seed": self._seed,
            "tables": [asdict(each) for each in self._built.values()],
        }
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(kept, indent=1) + "\n")
        fresh.replace(self._file)


@contextmanager
def opened(directory: Path, days: int, seed: int) -> Iterator[Ledgers]:
    """Context of the ledgers of a directory, which is created if missing, and of its ClickHouse."""
    engine = EmbeddedClickHouse(
        directory / "clickhouse", system_logs=True, max_memory_bytes=_MEMORY_BYTES
    )
    try:
        engine.start(timeout_seconds=300.0)
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    try:
        yield Ledgers(engine, directory / _FILE, days, seed)
    finally:
        engine.stop()


def sizes(clickhouse: ClickHouse) -> tuple[int, int, int]:
    """Return rows, bytes on disk and number of the table's active parts."""
    found = clickhouse.select(
        "SELECT sum(rows), sum(bytes_on_disk), count() FROM system.parts WHERE active "
        "AND database = {database:String} AND table = {table:String}",
        {"database": clickhouse.table.database, "table": clickhouse.table.table},
    ).rows[0]
    return int(found[0]), int(found[1]), int(found[2])


def _name(way: str, events: int, parts: int) -> str:
    return f"{way}_{events}_{parts}"


def create(clickhouse: ClickHouse, *, is_merged: bool) -> None:
    """Create the table without rollups and without a TTL, which would empty a kept ledger."""
    clickhouse.execute(schema.create_table(clickhouse.table))
    rollups.drop(clickhouse)
    clickhouse.execute(f"ALTER TABLE {clickhouse.table} REMOVE TTL")
    if not is_merged:
        clickhouse.execute(f"ALTER TABLE {clickhouse.table} MODIFY SETTING {_NO_MERGES}")


def fill(
    clickhouse: ClickHouse, ledger: Ledger, firsts: Sequence[int], step: int, *, threads: int = 1
) -> None:
    """Insert the slices of `step` sessions that begin with these; each thread writes a part."""
    settings = {
        # A session becomes some fifty rows of a block.
        "max_block_size": 2_048,
        "max_insert_threads": threads,
        "min_insert_block_size_rows": 2 * _INSERT_EVENTS,
        "min_insert_block_size_bytes": 0,
    }
    with click.progressbar(firsts, label=clickhouse.table.table, file=sys.stderr) as bar:
        for first in bar:
            events = select_events(ledger, first, min(first + step, ledger.sessions))
            clickhouse.select(f"INSERT INTO {clickhouse.table} {events}", settings=settings)


def merge(clickhouse: ClickHouse) -> None:
    """Block until each month is one part."""
    while sizes(clickhouse)[2] > len(_partitions(clickhouse, clickhouse.table.table)):
        clickhouse.execute(f"OPTIMIZE TABLE {clickhouse.table} FINAL")


def _build_targets(clickhouse: ClickHouse) -> None:
    for report in by_hand.ALTERNATIVES:
        clickhouse.execute(by_hand.create_target(clickhouse.table, report))
        for partition in _partitions(clickhouse, clickhouse.table.table):
            fill = by_hand.fill_target(clickhouse.table, report, partition)
            clickhouse.select(fill, settings=_SPILL)
        clickhouse.execute(f"OPTIMIZE TABLE {by_hand.target(clickhouse.table, report)} FINAL")


def _partitions(clickhouse: ClickHouse, table: str) -> list[str]:
    found = clickhouse.select(
        "SELECT DISTINCT partition_id FROM system.parts WHERE active "
        "AND database = {database:String} AND table = {table:String} ORDER BY partition_id",
        {"database": clickhouse.table.database, "table": table},
    )
    return [str(partition) for (partition,) in found.rows]
