# ruff: noqa: S608  # only table names from the settings and column names of the schema are interpolated
"""Staging tables and journal of a replay in ClickHouse.

All are named `octane_replay_<id>_…`, are in the target's database, and are dropped at the end. The
comparison runs in ClickHouse, by slices of event time, so that a longer range needs no more memory here
or in the server. Only names are interpolated into statements; values are bound.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_journal import OWNER, JournalReplicas, read_entries
from octane_analytics.clickhouse.replay_tables import (
    JOURNAL,
    MONTH_TABLES,
    ROW_HASH,
    TABLES,
    staging_table,
)
from octane_analytics.clickhouse.replay_target import ReplayTarget, ServerTarget
from octane_analytics.clickhouse.results import Result
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.replay.interfaces import (
    Counts,
    JournalEntry,
    Staged,
    StagedChunk,
    StagedSlice,
)
from octane_analytics.settings.connections import ClickHouseSettings

SLICE_ROWS = 1_000_000
CHUNK_ROWS = 50_000
CHUNK_BYTES = 32 << 20
_MUCH_MORE = 2
"""Ratio of the target's rows to the log's above which the target counts as much larger."""
SPILL = {
    "max_bytes_before_external_group_by": 256 << 20,
    "max_bytes_before_external_sort": 256 << 20,
}
_NAMES = ", ".join(schema.COLUMN_NAMES)
_ROW = ROW_HASH
IN_SLICE = "timestamp >= toDateTime({first:UInt32}) AND timestamp <= toDateTime({last:UInt32})"
BEFORE = "offset < {limits:Array(Int64)}[partition + 1]"
BETWEEN = (
    "offset >= {limits:Array(Int64)}[partition + 1] AND offset < {ends:Array(Int64)}[partition + 1]"
)


class ReplayStaging:
    """Staging tables of one replay and its target; implements `replay.interfaces.StagingStore`."""

    def __init__(
        self,
        clickhouse: ClickHouseSink,
        replay_id: str,
        live: LiveTable,
        target: ReplayTarget | None = None,
        peers: Sequence[ClickHouseSettings] = (),
    ) -> None:
        """`target` is the table of `clickhouse` unless it is given; `peers` are the settings of each of
        the server's other replicas."""
        self._clickhouse = clickhouse
        self._id = replay_id
        self._target = clickhouse.table
        self._replicas = JournalReplicas(peers if live.is_replicated else ())
        self._rows = target or ServerTarget(clickhouse, is_replicated=live.is_replicated)
        self._places: dict[str, str] | None = None
        """Shards by the names of their chunks."""
        self.alive = f"({schema.TTL}) > now()" if live.ttl == schema.SHOWN_TTL else "1"
        """Condition of rows that the TTL does not remove."""

    def table(self, name: str) -> TableName:
        """Return the staging table of this name."""
        return staging_table(self._target, self._id, name)

    def create(self, owner: str) -> None:
        """Create the tables; the journal exists, with its owner, before the other tables do.

        Raise StatementRejected if the user lacks a right.
        """
        self._replicas.create(self._clickhouse, self.table(JOURNAL), owner)
        self.journal(OWNER, owner)
        for name in TABLES:
            if name != JOURNAL:
                self._create_table(name)

    def is_complete(self) -> bool:
        """Return whether this server has all tables: another one, with the journal, lacks the others."""
        return all(self._clickhouse.exists(self.table(name)) for name in TABLES)

    def recreate(self) -> None:
        """Create the tables that this server lacks. They are empty."""
        for name in TABLES:
            if not self._clickhouse.exists(self.table(name)):
                self._create_table(name)

    def _create_table(self, name: str) -> None:
        self.execute(f"CREATE TABLE {self.table(name)} {TABLES[name]}")

    def execute(self, statement: str) -> None:
        """Run a statement without a result on the server of the staging tables."""
        self._clickhouse.execute(statement)

    def drop(self) -> None:
        for name in (*TABLES, *MONTH_TABLES):
            if name != JOURNAL:
                self._clickhouse.execute(f"DROP TABLE IF EXISTS {self.table(name)}")
        # Last, so that after a crash the owner of the remaining tables is still known.
        self._replicas.drop(self.table(JOURNAL))
        self._clickhouse.execute(f"DROP TABLE IF EXISTS {self.table(JOURNAL)}")

    def journal(self, kind: str, body: str) -> None:
        self.journal_together([(kind, body)])

    def journal_together(self, entries: Sequence[tuple[str, str]]) -> None:
        """Append entries, kind and body, of which a replica has all or none."""
        self.insert_into(JOURNAL, ("kind", "body"), list(map(list, zip(*entries, strict=True))))

    def journal_entries(self) -> list[JournalEntry]:
        return read_entries(self._clickhouse, self.table(JOURNAL))

    def stage(self, staged: Staged) -> None:
        names = [*schema.COLUMN_NAMES, "partition", "offset", "is_wanted"]
        columns = [*staged.columns, staged.partitions, staged.offsets, staged.is_wanted]
        if staged.reasons:
            names.append("reason")
            columns.append([staged.reasons.get(place, "") for place in range(len(staged))])
        self.insert_into("log", names, columns)

    def positions(self) -> Mapping[int, int]:
        found = self.query(
            f"SELECT partition, max(offset) + 1 FROM {self.table('log')} GROUP BY partition"
        )
        return dict(found.rows)

    def sync(self) -> None:
        self._rows.sync()

    def counts(self) -> Counts:
        found = self.query(
            "SELECT reason, alive, count() FROM ("
            f"SELECT any(reason) AS reason, any({self.alive}) AS alive "
            f"FROM {self.table('log')} WHERE is_wanted GROUP BY partition, offset"
            ") GROUP BY reason, alive"
        ).rows
        valid = sum(rows for reason, _, rows in found if not reason)
        first_epoch = last_epoch = None
        if valid:
            first_epoch, last_epoch = self.query(
                "SELECT toUInt32(min(timestamp)), toUInt32(max(timestamp)) "
                f"FROM {self.table('log')} WHERE is_wanted AND reason = ''"
            ).rows[0]
        rejected: dict[str, int] = {}
        for reason, _, rows in found:
            if reason:
                rejected[reason] = rejected.get(reason, 0) + rows
        return Counts(
            read=sum(rows for _, _, rows in found),
            valid=valid,
            expired=sum(rows for reason, alive, rows in found if not reason and not alive),
            rejected=rejected,
            first_epoch=first_epoch,
            last_epoch=last_epoch,
        )

    def months(self) -> list[int]:
        """Return the months, as in 202611, of the range's events that the target keeps."""
        found = self.query(
            f"SELECT DISTINCT {schema.PARTITION_KEY} FROM {self.table('log')} "
            f"WHERE is_wanted AND reason = '' AND {self.alive} ORDER BY 1"
        )
        return [month for (month,) in found.rows]

    def slices(self) -> list[StagedSlice]:
        found = self.query(
            "SELECT toUInt32(min(minute)), toUInt32(max(minute)) + 60 FROM ("
            "SELECT toStartOfMinute(timestamp) AS minute, sum(count()) OVER (ORDER BY minute) AS upto "
            f"FROM {self.table('log')} WHERE reason = '' GROUP BY minute"
            f") GROUP BY intDiv(upto - 1, {SLICE_ROWS}) ORDER BY 1"
        )
        return [StagedSlice(number, *row) for number, row in enumerate(found.rows)]

    def find_missing(
        self, number: int, part: StagedSlice, limits: Mapping[int, int] | None, after: int | None
    ) -> None:
        log = self.table("log")
        counted = "is_wanted" if limits is None else BEFORE
        if after is None:
            candidates = f"SELECT row FROM {log} WHERE {IN_SLICE} AND is_wanted AND reason = ''"
        else:
            candidates = f"SELECT row FROM {self.table('undecided')} WHERE pass = {{after:UInt32}}"
        is_candidate = f"row {self._rows.within} ({candidates})"
        if after is None and self._are_nearly_all_candidates(part):
            is_candidate = "1"
        missing = f"""
            SELECT row, sum(kafka) - sum(here) AS times FROM (
                SELECT row, 1 AS kafka, 0 AS here FROM {log}
                WHERE {IN_SLICE} AND {counted} AND reason = '' AND {self.alive} AND {is_candidate}
                GROUP BY row, partition, offset
                UNION ALL
                SELECT {_ROW} AS row, 0 AS kafka, 1 AS here FROM {self._rows.rows}
                WHERE {IN_SLICE} AND {is_candidate}
            ) GROUP BY row HAVING sum(kafka) > sum(here)
        """
        self._store_missing(
            number, part, missing, {"limits": partition_array(limits), "after": after or 0}
        )

    def _are_nearly_all_candidates(self, part: StagedSlice) -> bool:
        """Return whether filtering by row would exclude nothing of the slice, and little of the target.

        The filter costs nearly half of the comparison, and bounds memory if the target is far larger.
        """
        found = self.query(
            f"SELECT countIf(NOT is_wanted), count(), (SELECT count() FROM {self._rows.rows} "
            f"WHERE {IN_SLICE}) FROM {self.table('log')} WHERE {IN_SLICE}",
            {"first": part.first, "last": part.end - 1},
        )
        ((unwanted, staged, in_target),) = found.rows
        return bool(not unwanted and in_target <= _MUCH_MORE * staged)

    def select_all(self, number: int, part: StagedSlice) -> None:
        everything = f"""
            SELECT row, count() AS times FROM (
                SELECT row FROM {self.table("log")}
                WHERE {IN_SLICE} AND is_wanted AND reason = '' AND {self.alive}
                GROUP BY row, partition, offset
            ) GROUP BY row
        """
        self._store_missing(number, part, everything, {})

    def _store_missing(
        self, number: int, part: StagedSlice, rows: str, values: Mapping[str, object]
    ) -> None:
        """Store each row of the query `rows` as missing, `times` times, numbered from 0."""
        self.query(
            f"""
            INSERT INTO {self.table("lacking")} (pass, slice, number, bytes, {_NAMES})
            SELECT {{pass:UInt32}}, {{slice:UInt32}}, rowNumberInAllBlocks(), bytes, {_NAMES}
            FROM (
                SELECT {_NAMES}, range(toUInt64(times)) AS copies,
                    length(app_id) + length(event_name) + length(user_id) + length(properties)
                        AS bytes
                FROM (SELECT {_NAMES}, row FROM {self.table("log")} WHERE {IN_SLICE}) AS staged
                INNER JOIN ({rows}) AS wanted USING (row)
                LIMIT 1 BY row
            ) ARRAY JOIN copies
            """,
            {
                **values,
                "pass": number,
                "slice": part.number,
                "first": part.first,
                "last": part.end - 1,
            },
            # The numbers must have no gaps or repetitions.
            {"max_threads": 1, "max_insert_threads": 1},
        )

    def mark_undecided(
        self,
        number: int,
        after: int | None,
        limits: Mapping[int, int],
        ends: Mapping[int, int],
    ) -> int:
        candidates = f"SELECT row FROM {self.table('log')} WHERE is_wanted AND reason = ''"
        if after is not None:
            candidates = f"SELECT row FROM {self.table('undecided')} WHERE pass = {{after:UInt32}}"
        live = f"SELECT row FROM {self.table('log')} WHERE {BETWEEN} AND reason = ''"
        if after is None:
            # The set of the IN holds the few live rows, not those of the range.
            rows = f"SELECT DISTINCT row FROM ({candidates} AND row IN ({live}))"
        else:
            rows = f"SELECT DISTINCT row FROM ({live} AND row IN ({candidates}))"
        values = {
            "pass": number,
            "after": after or 0,
            "limits": partition_array(limits),
            "ends": partition_array(ends),
        }
        undecided = self.table("undecided")
        self.query(f"INSERT INTO {undecided} SELECT {{pass:UInt32}}, row FROM ({rows})", values)
        found = self.query(
            f"SELECT uniqExact(row) FROM {undecided} WHERE pass = {{pass:UInt32}}", values
        )
        return int(found.rows[0][0])

    def chunks(self, number: int, table: str = "lacking") -> list[StagedChunk]:
        found = self.query(
            "SELECT slice, min(number), max(number) FROM ("
            "SELECT slice, number, "
            "sum(bytes) OVER (PARTITION BY slice ORDER BY number) AS upto "
            f"FROM {self.table(table)} WHERE pass = {{pass:UInt32}}"
            f") GROUP BY slice, intDiv(number, {CHUNK_ROWS}), intDiv(upto, {CHUNK_BYTES}) "
            "ORDER BY 1, 2",
            {"pass": number},
        )
        return [StagedChunk(number, *row) for row in found.rows]

    def rows(self, chunk: StagedChunk, table: str = "lacking") -> Sequence[Sequence[object]]:
        found = self.query(
            "SELECT toUInt32(timestamp), app_id, event_name, user_id, properties "
            f"FROM {self.table(table)} WHERE pass = {{pass:UInt32}} AND slice = {{slice:UInt32}} "
            "AND number >= {first:UInt64} AND number <= {last:UInt64} ORDER BY number",
            {"pass": chunk.number, "slice": chunk.slice, "first": chunk.first, "last": chunk.last},
        )
        return list(zip(*found.rows, strict=True))

    def missing_rows(self, number: int) -> int:
        found = self.query(
            f"SELECT count() FROM {self.table('lacking')} WHERE pass = {{pass:UInt32}}",
            {"pass": number},
        )
        return int(found.rows[0][0])

    def insert(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> None:
        self._rows.insert(columns, token, query_id)

    def place(self, chunk: str) -> None:
        if not self._rows.is_sharded:
            return
        if self._places is None:
            journaled = (entry.body for entry in self.journal_entries() if entry.kind == "shard")
            self._places = dict(map(json.loads, journaled))
        if chunk not in self._places:
            shard = self._rows.choose()
            self.journal("shard", json.dumps([chunk, shard]))
            self._places[chunk] = shard
        self._rows.use(self._places[chunk])

    @property
    def target(self) -> TableName:
        """Table that is replayed into, on each of its servers."""
        return self._target

    @property
    def target_rows(self) -> TableName:
        """Table with the rows of all shards of the target."""
        return self._rows.rows

    def insert_into(
        self, table: str, names: Sequence[str], columns: Sequence[Sequence[Any]]
    ) -> None:
        """Insert into a staging table."""
        self._clickhouse.insert_into(self.table(table), names, columns, None)

    def query(
        self,
        sql: str,
        values: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Result:
        """Run a statement on the server of the staging tables, which may read the rows of the target."""
        return self._clickhouse.select(
            sql, values, settings={**SPILL, **self._rows.settings, **(settings or {})}
        )


def partition_array(limits: Mapping[int, int] | None) -> list[int]:
    """Return an array indexed by partition; zero for a partition that is not named."""
    if not limits:
        return [0]
    return [limits.get(p, 0) for p in range(max(limits) + 1)]
