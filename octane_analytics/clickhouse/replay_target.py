"""Table that a replay compares with and inserts into: on one server, or over all shards.

Several shards are compared through their Distributed table. Each chunk goes into one shard, as a
worker's batch does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from octane_analytics.clickhouse.connection import ALL_SHARDS
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.row_counts import CountingConnection
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.clickhouse.shard_sink import ShardSink
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.runtime.closeable import Closeable
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority

_NO_SETTINGS: Mapping[str, object] = {}


class ReplayTarget(Protocol):
    """All methods block and raise Unavailable."""

    @property
    def rows(self) -> TableName:
        """Table that has the rows of all shards, for queries on the server of the staging tables."""
        ...

    @property
    def within(self) -> str:
        """Operator IN for a subquery on staging tables."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """Settings of queries that read `rows`."""
        ...

    @property
    def is_sharded(self) -> bool: ...

    def sync(self) -> None:
        """Block until every server that may answer a query has all acknowledged rows."""
        ...

    def choose(self) -> str:
        """Return the identity of the shard for the next chunk; empty if there is one."""
        ...

    def use(self, shard: str) -> None:
        """Insert into this shard from now on."""
        ...

    def insert(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> None:
        """See `interfaces.BlockSink.insert_block`."""
        ...


class ServerTarget:
    """Table on the server of the staging tables."""

    is_sharded = False
    within = "IN"
    settings = _NO_SETTINGS

    def __init__(self, clickhouse: ClickHouseSink, *, is_replicated: bool) -> None:
        self._clickhouse = clickhouse
        self._is_replicated = is_replicated

    @property
    def rows(self) -> TableName:
        return self._clickhouse.table

    def sync(self) -> None:
        if self._is_replicated:
            self._clickhouse.sync_replica()

    def choose(self) -> str:
        return ""

    def use(self, shard: str) -> None:
        pass

    def insert(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> None:
        self._clickhouse.insert_block(columns, token, query_id)


class ShardedTarget(Closeable):
    """Table in several shards. Connects at the first call, so it may be built before a fork."""

    is_sharded = True
    within = "GLOBAL IN"
    """The shards do not have the staging tables."""
    settings = ALL_SHARDS

    def __init__(
        self, settings: ClickHouseSettings, *, client_name: str, is_replicated: bool
    ) -> None:
        self._settings = settings
        self._client_name = client_name
        self._is_replicated = is_replicated
        self._shards = ClickHouseShards(settings, client_name=client_name)
        self._sink: ShardSink | None = None

    @property
    def settings_of_all(self) -> ClickHouseSettings:
        """Settings of all shards."""
        return self._settings

    def close(self) -> None:
        self._shards.close()

    @property
    def rows(self) -> TableName:
        return TableName(self._settings.database, self._settings.read_table)

    def sync(self) -> None:
        """See `ReplayTarget`. Every replica, because the Distributed table reads from any of them."""
        if not self._is_replicated:
            return
        for address in self._settings.hosts():
            single = replace(self._settings, host=authority(*address), shard_weights=())
            with CountingConnection(single, client_name=self._client_name) as replica:
                replica.sync_replica()

    def choose(self) -> str:
        return self._shards.choose()

    def use(self, shard: str) -> None:
        self._sink = self._shards.sink(shard)

    def insert(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> None:
        assert self._sink is not None, "a chunk has a shard before it is inserted"
        self._sink.insert_block(columns, token, query_id)
