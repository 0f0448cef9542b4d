# ruff: noqa: S608  # only table names from the settings and column names of the schema are interpolated
"""Months of a rebuild over several shards: each shard's share is built on one of its servers.

**Shares.** A batch belongs to one shard, and a worker that repeats it counts its rows in that one only.
A rebuild therefore leaves each row in its shard, or a late repeat would insert it again: REPLACE
PARTITION drops the tokens of the month, so that only the rows prevent that. Of an event that occurs n
times in the log, n rows are kept, those of the first shards before others; surplus ones are dropped. A
lost row goes to the shard of the nearest row before it in its Kafka partition, which is most likely of
the same batch, or of the nearest one after it. A placement is the same when it is repeated, also after
some shards were replaced.

**Not atomic.** The shards are replaced one after the other; a reader sees the old month of a shard or
its new one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_months import IN_MONTH, Months, replace_month
from octane_analytics.clickhouse.replay_staging import (
    BEFORE,
    IN_SLICE,
    SPILL,
    ReplayStaging,
    partition_array,
)
from octane_analytics.clickhouse.replay_tables import MONTH_TABLES, ROW_HASH
from octane_analytics.errors import NeedsOperator, OctaneError, Unavailable
from octane_analytics.replay.interfaces import StagedSlice
from octane_analytics.runtime.closeable import Closeable
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import Address, authority

_FOUND_ROWS = 100_000
_NAMES = ", ".join(schema.COLUMN_NAMES)
_PLACED, _FOUND, _BUILD = "placed", "found", "build"


class ShardMonths(Months, Closeable):
    """Builds in every shard; implements `replay.rebuild.MonthBuilder`."""

    def __init__(
        self, staging: ReplayStaging, settings: ClickHouseSettings, *, client_name: str
    ) -> None:
        """`settings` are those of all shards."""
        super().__init__(staging)
        self._shards = settings.of_each_shard()
        self._client_name = client_name
        self._turns = [
            shard.number for shard in settings.topology().shards for _ in range(shard.weight)
        ]
        """Numbers of the shards of rows without any neighbour, from 1."""
        self._servers: list[ClickHouseSink] = []
        """Server of each shard that has its build."""
        self._built: list[int] = []
        """Rows of each shard's build."""

    def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []

    def build(self, month: int, limits: Mapping[int, int]) -> int:
        self.close()
        for own in self._shards:
            self._servers.append(self._ready_server(own))
        self._place(month, limits)
        self._built = [
            self._build(number, server) for number, server in enumerate(self._servers, 1)
        ]
        return sum(self._built)

    def replace(self, month: int) -> None:
        for server, rows in zip(self._servers, self._built, strict=True):
            if rows:
                server.execute(replace_month(self._staging, month))
            else:
                # ClickHouse refuses to replace a partition by an empty one.
                server.execute(f"ALTER TABLE {server.table} DROP PARTITION {int(month)}")

    def drop(self) -> None:
        """Drop the builds, on all servers that can be reached; the next replay drops the others."""
        self.close()
        for own in self._shards:
            for server in _each_server(own, self._client_name):
                server.execute(f"DROP TABLE IF EXISTS {self._staging.table(_BUILD)}")

    def _ready_server(self, own: ClickHouseSettings) -> ClickHouseSink:
        """Return a server of the shard that has all its rows. Raise Unavailable."""
        error: Unavailable | None = None
        for address in own.hosts():
            server = _single(own, address, self._client_name)
            try:
                if schema.is_replicated(server.counted_table().engine):
                    server.sync_replica()
            except NeedsOperator:
                server.close()
                raise
            except Unavailable as unavailable:
                server.close()
                error = error or unavailable
            else:
                return server
        assert error is not None, "a shard has servers"
        raise error

    def _place(self, month: int, limits: Mapping[int, int]) -> None:
        """Write the events of the month before the limits to `placed`, with their shards."""
        staging = self._staging
        for name in (_PLACED, _FOUND):
            staging.execute(f"DROP TABLE IF EXISTS {staging.table(name)}")
            staging.execute(f"CREATE TABLE {staging.table(name)} {MONTH_TABLES[name]}")
        for part in staging.slices():
            values = {"month": month, "first": part.first, "last": part.end - 1}
            staging.execute(f"TRUNCATE TABLE {staging.table(_FOUND)}")
            for number, server in enumerate(self._servers, 1):
                self._find(number, server, values)
            self._place_slice(part, {**values, "limits": partition_array(limits)})

    def _find(self, number: int, server: ClickHouseSink, values: Mapping[str, object]) -> None:
        """Copy the hashes of the shard's rows in the slice to `found`, each with its number of rows."""
        query = (
            f"SELECT hex({ROW_HASH}) AS row, toUInt32(count()) FROM {server.table} "
            f"WHERE {IN_SLICE} AND {IN_MONTH} AND {self._staging.alive} GROUP BY row"
        )
        rows: list[tuple[object, ...]] = []
        with server.stream(query, values, settings=SPILL) as stream:
            for block in stream.blocks:
                rows += block
                if len(rows) >= _FOUND_ROWS:
                    self._store_found(number, rows)
                    rows = []
        if rows:
            self._store_found(number, rows)

    def _store_found(self, number: int, rows: list[tuple[object, ...]]) -> None:
        hashes, times = zip(*rows, strict=True)
        columns = [[number] * len(rows), list(hashes), list(times)]
        self._staging.insert_into(_FOUND, ("shard", "row", "times"), columns)

    def _place_slice(self, part: StagedSlice, values: Mapping[str, object]) -> None:
        staging = self._staging
        nearest = (
            "anyLast(vote) OVER (PARTITION BY partition ORDER BY offset{} "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
        )
        events = f"""
            SELECT {_NAMES}, partition, offset, row,
                row_number() OVER (PARTITION BY row ORDER BY partition, offset) AS nth
            FROM (
                SELECT {_NAMES}, partition, offset, row FROM {staging.table("log")}
                WHERE {IN_SLICE} AND {IN_MONTH} AND {BEFORE} AND reason = '' AND {staging.alive}
                LIMIT 1 BY partition, offset
            )
        """
        homes = f"""
            SELECT toFixedString(unhex(row), 16) AS row, arraySort(groupArray((shard, times))) AS homes
            FROM {staging.table(_FOUND)} GROUP BY row
        """
        staging.query(
            f"""
            INSERT INTO {staging.table(_PLACED)} (pass, slice, number, bytes, {_NAMES})
            SELECT home, {{slice:UInt32}},
                row_number() OVER (PARTITION BY home ORDER BY partition, offset) - 1,
                length(app_id) + length(event_name) + length(user_id) + length(properties), {_NAMES}
            FROM (
                SELECT {_NAMES}, partition, offset, assumeNotNull(coalesce(
                    kept, {nearest.format("")}, {nearest.format(" DESC")},
                    {{turns:Array(UInt32)}}[1 + cityHash64(row) % length({{turns:Array(UInt32)}})]
                )) AS home
                FROM (
                    SELECT {_NAMES}, partition, offset, row, nullIf(
                        homes[arrayFirstIndex(upto -> nth <= upto, arrayCumSum(homes.2))].1, 0
                    ) AS kept, if(length(homes) = 1, kept, NULL) AS vote
                    FROM ({events}) AS events LEFT JOIN ({homes}) AS found USING (row)
                )
            )
            """,
            {**values, "slice": part.number, "turns": self._turns},
        )

    def _build(self, number: int, server: ClickHouseSink) -> int:
        """Build the share of the shard; return its rows."""
        staging, build = self._staging, self._staging.table(_BUILD)
        server.execute(f"DROP TABLE IF EXISTS {build}")
        server.execute(schema.create_table_like(build, server.table))
        for chunk in staging.chunks(number, _PLACED):
            columns = staging.rows(chunk, _PLACED)
            server.insert_into(build, schema.COLUMN_NAMES, columns, None)
        return int(server.select(f"SELECT count() FROM {build}").rows[0][0])


def _each_server(own: ClickHouseSettings, client_name: str) -> Iterator[ClickHouseSink]:
    """Yield a connection to each server of the shard that can be reached."""
    for address in own.hosts():
        with _single(own, address, client_name) as server:
            try:
                server.select("SELECT 1")
            except OctaneError:
                continue
            yield server


def _single(own: ClickHouseSettings, address: Address, client_name: str) -> ClickHouseSink:
    return ClickHouseSink(replace(own, host=authority(*address)), client_name=client_name)
