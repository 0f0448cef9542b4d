# ruff: noqa: S608  # only checked identifiers are interpolated
"""Reads from one server what `replicas` compares, through a connection to that server alone."""

from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.replicas import (
    DistributedTable,
    Expectation,
    ReplicaState,
    ServerFacts,
)
from octane_analytics.clickhouse.rollup_table import read_state
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.clickhouse.table_ttl import setting_of
from octane_analytics.errors import StatementRejected, Unavailable
from octane_analytics.settings.connections import ClickHouseSettings

_OF_TABLE = "database = {database:String} AND table = {table:String}"
_REPLICA = f"""
SELECT zookeeper_path, replica_name, is_readonly OR is_session_expired, absolute_delay, total_replicas,
    zookeeper_exception
FROM system.replicas WHERE {_OF_TABLE}
"""
_NAMED = "database = {database:String} AND name = {table:String}"


def expectation(settings: ClickHouseSettings) -> Expectation:
    """Return what the servers of these settings are compared with. Raises ConfigError."""
    shards = settings.topology().shards
    return Expectation(
        table=TableName(settings.database, settings.table),
        shards=len(shards),
        distributed=TableName(settings.database, settings.distributed_table),
        cluster=settings.cluster,
        insert_quorum=settings.insert_quorum,
        hosts={shard.number: len(shard.hosts) for shard in shards},
    )


def read_facts(server: ClickHouse, address: str, shard: int, expected: Expectation) -> ServerFacts:
    """Return the facts of one server. Blocks on it; raises as `ClickHouse.select` does."""
    live = server.describe()
    macros = read_macros(server)
    if live is None:
        return ServerFacts(address, shard, macros=macros, cluster_shards=_shards(server, expected))
    projections = _rollups(server)
    (engine_full,) = _engine_full(server, expected.table)
    return ServerFacts(
        address,
        shard,
        live=live,
        replica=_replica(server) if live.is_replicated else None,
        macros=macros,
        rollups=projections,
        views=frozenset(str(view.name) for view in server.views()),
        has_rollup_settings=not projections
        or all(setting_of(engine_full, name) for name in rollups.SETTINGS),
        distributed=_distributed(server, expected) if expected.shards > 1 else None,
        cluster_shards=_shards(server, expected),
        cluster_paths=_cluster_paths(server, expected) if live.is_replicated else None,
        time_zone=server.select("SELECT timezone()").rows[0][0],
    )


def _name(table: TableName) -> dict[str, object]:
    return {"database": table.database, "table": table.table}


def _engine_full(server: ClickHouse, table: TableName) -> list[str]:
    found = server.select(f"SELECT engine_full FROM system.tables WHERE {_NAMED}", _name(table))
    return [engine_full for (engine_full,) in found.rows]


def read_macros(server: ClickHouse) -> dict[str, str] | None:
    """Return the macros of the server; None if the user may not read them."""
    try:
        return dict(server.select("SELECT macro, substitution FROM system.macros").rows)
    except StatementRejected:
        return None


def _replica(server: ClickHouse) -> ReplicaState | None:
    found = server.select(_REPLICA, _name(server.table)).rows
    if not found:
        return None
    path, name, is_readonly, delay, replicas, error = found[0]
    return ReplicaState(path, name, bool(is_readonly), delay, replicas, " ".join(error.split()))


def _rollups(server: ClickHouse) -> frozenset[str]:
    try:
        return read_state(server.select, server.table).projections
    except StatementRejected:
        return frozenset()  # an older server, or a user without rights, which others report


def _distributed(server: ClickHouse, expected: Expectation) -> DistributedTable | None:
    name = expected.distributed
    for engine_full in _engine_full(server, name):
        types = server.select(
            f"SELECT name, type FROM system.columns WHERE {_OF_TABLE}", _name(name)
        ).rows
        return DistributedTable(engine_full, dict(types))
    return None


def _shards(server: ClickHouse, expected: Expectation) -> int:
    if expected.cluster is None:
        return 0
    try:
        found = server.select(
            "SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = {cluster:String}",
            {"cluster": expected.cluster},
        ).rows
    except StatementRejected:
        if expected.shards > 1:
            raise
        return 0  # a single shard works without this right
    return int(found[0][0])


def _cluster_paths(server: ClickHouse, expected: Expectation) -> frozenset[str] | None:
    if expected.shards < 2 or expected.cluster is None:
        return None
    cluster = schema.string_literal(expected.cluster)
    try:
        found = server.select(
            f"SELECT DISTINCT zookeeper_path FROM cluster({cluster}, system.replicas) "
            f"WHERE {_OF_TABLE} SETTINGS skip_unavailable_shards = 0",
            _name(expected.table),
        ).rows
    except (StatementRejected, Unavailable):
        return None  # no right, or another shard does not answer, which others report
    return frozenset(path for (path,) in found)
