"""Comparison of the servers of CLICKHOUSE_HOST: replicas of one table, shards of different tables.

Pure; `server_facts` reads the facts. What one server alone shows is judged in `table_fit` and `schema`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.replica_tables import one_server
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.table_ttl import setting_of

_SKIPS = "skip_unavailable_shards"
MAX_DELAY_SECONDS = 60
"""Lag of a replica that is reported."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """Row of system.replicas."""

    path: str
    """Path of the table in ZooKeeper or Keeper, equal in all replicas of one table."""
    name: str
    is_readonly: bool
    delay_seconds: int
    replicas: int
    """Number of replicas that the table has in all."""
    error: str = ""
    """Why ZooKeeper or Keeper cannot be reached; empty if it can."""


@dataclass(frozen=True, slots=True)
class DistributedTable:
    engine_full: str
    columns: Mapping[str, str]
    """Types by column."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    address: str
    shard: int
    """Number of the shard in CLICKHOUSE_HOST."""
    live: LiveTable | None = None
    replica: ReplicaState | None = None
    macros: Mapping[str, str] | None = None
    """Macros of the server; None if the user may not read them."""
    rollups: frozenset[str] = frozenset()
    """Names of the rollups of the table."""
    views: frozenset[str] = frozenset()
    """Names of the materialized views that an insert triggers, directly or through others."""
    has_rollup_settings: bool = True
    """True if the table has the settings that rollups need, or does not have rollups."""
    distributed: DistributedTable | None = None
    cluster_shards: int = 0
    """Number of shards of CLICKHOUSE_CLUSTER in this server's remote_servers; 0 without the cluster."""
    cluster_paths: frozenset[str] | None = None
    """Paths of the table in the shards of that cluster; None if they cannot be read."""
    time_zone: str = ""


@dataclass(frozen=True, slots=True)
class ClusterFinding:
    text: str
    """Starts with the address of a server or the number of a shard."""
    is_refusal: bool = False
    """True if rows would be counted twice, would be missing, or could not be inserted."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Settings that the servers are compared with."""

    table: TableName
    shards: int
    distributed: TableName
    cluster: str | None = None
    insert_quorum: int = 0
    hosts: Mapping[int, int] = field(default_factory=dict)
    """Number of servers in CLICKHOUSE_HOST by shard; a single one may stand for several."""


def cluster_findings(
    servers: Sequence[ServerFacts], expected: Expectation
) -> Iterator[ClusterFinding]:
    """Yield the differences between the servers that were read, and those of each one's replication."""
    yield from path_findings(servers)
    for shard in _by_shard(servers):
        yield from _replica_findings(shard, expected)
    present = [server for server in servers if server.live is not None]
    yield from _unequal(present, "column types", _column_types)
    yield from _unequal(present, "rollups", _rollup_labels)
    yield from _unequal(
        present,
        "time zones",
        lambda server: server.time_zone,
        "months begin at midnight of the server's zone: give all servers one <timezone>",
    )
    for server in present:
        if expected.shards > 1:
            yield from _distributed_findings(server, expected)


def unlisted_findings(
    servers: Sequence[ServerFacts], expected: Expectation
) -> Iterator[ClusterFinding]:
    """Yield the servers whose cluster has further shards than the only one that is listed.

    For reports and workers; a table may be created on one shard after the other.
    """
    for server in servers:
        if expected.shards == 1 and server.live is not None and server.cluster_shards > 1:
            yield ClusterFinding(
                f"{server.address}: cluster {expected.cluster} has {server.cluster_shards} shards in "
                "remote_servers, CLICKHOUSE_HOST lists one of them: reports would not read the others; "
                "list them all",
                is_refusal=True,
            )


def macro_findings(servers: Sequence[ServerFacts]) -> Iterator[ClusterFinding]:
    """Yield what prevents new replicated tables by the default path: their macros."""
    known = [server for server in servers if server.macros is not None]
    for server in known:
        missing = [name for name in ("shard", "replica") if name not in (server.macros or {})]
        if missing:
            yield ClusterFinding(
                f"{server.address} has no macro {' and '.join(missing)}: set <macros> in its "
                "configuration, the same shard and different replicas within a shard",
                is_refusal=True,
            )
    owners: dict[str, ServerFacts] = {}
    replicas: dict[tuple[int, str], ServerFacts] = {}
    for server in known:
        macros = server.macros or {}
        shard, replica = macros.get("shard"), macros.get("replica")
        if shard is None or replica is None:
            continue
        first = owners.setdefault(shard, server)
        if first.shard != server.shard:
            yield ClusterFinding(
                f"{server.address} and {first.address} are in shards {server.shard} and {first.shard} "
                f"of CLICKHOUSE_HOST, but both have the macro shard = {shard}: they would hold the same "
                "rows",
                is_refusal=True,
            )
        twin = replicas.setdefault((server.shard, replica), server)
        if twin is not server:
            yield ClusterFinding(
                f"{server.address} and {twin.address} both have the macro replica = {replica}: give "
                "each replica its own",
                is_refusal=True,
            )
    for group in _by_shard(known):
        names = {(server.macros or {}).get("shard") for server in group} - {None}
        if len(names) > 1:
            listed = _listed((s.address, str((s.macros or {}).get("shard"))) for s in group)
            yield ClusterFinding(
                f"shard {group[0].shard} has servers with different macros shard ({listed}): they would "
                "not be replicas of one table",
                is_refusal=True,
            )


def path_findings(servers: Sequence[ServerFacts]) -> Iterator[ClusterFinding]:
    """Yield where the tables contradict the replicas and shards of CLICKHOUSE_HOST."""
    owners: dict[str, ServerFacts] = {}
    for shard in _by_shard(servers):
        replicated = [server for server in shard if server.replica is not None]
        paths = {server.replica.path for server in replicated if server.replica}
        if len(paths) > 1:
            listed = _listed((s.address, s.replica.path) for s in replicated if s.replica)
            yield ClusterFinding(
                f"shard {shard[0].shard} has servers that are not replicas of one table ({listed}): "
                "write shards with a semicolon between them in CLICKHOUSE_HOST, or recreate one table "
                "under the other's path",
                is_refusal=True,
            )
        for server in replicated:
            path = server.replica.path if server.replica else ""
            first = owners.setdefault(path, server)
            if first.shard != server.shard:
                yield ClusterFinding(
                    f"{server.address} and {first.address} are replicas of one table ({path}), but in "
                    f"shards {server.shard} and {first.shard} of CLICKHOUSE_HOST: separate replicas by "
                    "commas",
                    is_refusal=True,
                )
                break


def _replica_findings(
    shard: Sequence[ServerFacts], expected: Expectation
) -> Iterator[ClusterFinding]:
    present = [server for server in shard if server.live is not None]
    yield from _twins(present)
    has_writable = not all(server.replica and server.replica.is_readonly for server in present)
    for server in present:
        replica = server.replica
        if replica is None:
            continue
        if replica.is_readonly:
            reason = f" ({replica.error})" if replica.error else ""
            yield ClusterFinding(
                f"{server.address} is a read-only replica{reason}: it accepts no rows; check ZooKeeper "
                "or Keeper and the server's log",
                is_refusal=not has_writable,
            )
        elif replica.delay_seconds > MAX_DELAY_SECONDS:
            yield ClusterFinding(
                f"{server.address} lags its shard by {replica.delay_seconds:,} s: reads there lack the "
                "newest rows; see system.replication_queue"
            )
        if expected.insert_quorum > max(1, replica.replicas):
            yield ClusterFinding(
                f"{server.address} has {replica.replicas} replicas, fewer than CLICKHOUSE_INSERT_QUORUM "
                f"({expected.insert_quorum}): no insert would be acknowledged",
                is_refusal=True,
            )
        if not server.has_rollup_settings:
            yield ClusterFinding(
                f"{server.address} has rollups without the table setting "
                f"{', '.join(rollups.SETTINGS)}: run `octane-analytics schema apply --rollups`"
            )
    listed = expected.hosts.get(shard[0].shard, 0)
    states = [server.replica for server in present if server.replica is not None]
    if states and 1 < listed < states[0].replicas:
        yield ClusterFinding(
            f"shard {shard[0].shard} has {states[0].replicas} replicas, and CLICKHOUSE_HOST lists "
            f"{listed}: list them all, or remove a lost one with SYSTEM DROP REPLICA"
        )
    yield from _unequal(present, "deduplication windows", _windows)
    if len({server.views for server in present}) > 1:
        views = _listed((s.address, ", ".join(sorted(s.views)) or "none") for s in present)
        yield ClusterFinding(
            f"shard {shard[0].shard} has different materialized views ({views}): rows that are "
            "inserted through a server without the view are missing in its target; create it on each",
            is_refusal=True,
        )


def _twins(servers: Sequence[ServerFacts]) -> Iterator[ClusterFinding]:
    """Yield the addresses of one shard that are the same server."""
    seen: dict[tuple[str, str], ServerFacts] = {}
    for server in servers:
        if server.replica is None:
            continue
        first = seen.setdefault((server.replica.path, server.replica.name), server)
        if first is not server:
            yield ClusterFinding(
                one_server(first.address, server.address, server.replica.name),
                is_refusal=True,
            )


def _distributed_findings(server: ServerFacts, expected: Expectation) -> Iterator[ClusterFinding]:
    apply = "run `octane-analytics schema apply`"
    if server.cluster_shards != expected.shards:
        found = f"has {server.cluster_shards} shards" if server.cluster_shards else "does not exist"
        yield ClusterFinding(
            f"{server.address}: cluster {expected.cluster} {found} in remote_servers, CLICKHOUSE_HOST "
            f"lists {expected.shards} shards: reports would not read them all",
            is_refusal=True,
        )
    table = server.distributed
    name = expected.distributed
    if table is None:
        yield ClusterFinding(
            f"{server.address} does not have {name}, which reports read: {apply}", is_refusal=True
        )
        return
    if not schema.reads_cluster(table.engine_full, expected.table, expected.cluster or ""):
        arguments = schema.distributed_arguments(expected.table, expected.cluster or "")
        yield ClusterFinding(
            f"{server.address}: {name} is not Distributed({arguments}): drop it and {apply}",
            is_refusal=True,
        )
        return
    if setting_of(table.engine_full, _SKIPS) not in ("", "0", "false"):
        yield ClusterFinding(
            f"{server.address}: {name} has the setting {_SKIPS}, and reports would omit the rows of a "
            f"shard that is away, without an error: drop it and {apply}",
            is_refusal=True,
        )
    live = {column.name: column.type for column in server.live.columns} if server.live else {}
    wrong = [c for c in schema.COLUMN_NAMES if table.columns.get(c) != live.get(c)]
    if wrong:
        yield ClusterFinding(
            f"{server.address}: {name} has other columns than {expected.table} ({', '.join(wrong)}): "
            f"drop it and {apply}"
        )


def cluster_path_findings(servers: Sequence[ServerFacts]) -> Iterator[ClusterFinding]:
    """Yield the servers whose cluster reads other tables than those of CLICKHOUSE_HOST."""
    listed = {server.replica.path for server in servers if server.replica is not None}
    for server in servers:
        if server.cluster_paths is None or not listed or server.cluster_paths == listed:
            continue
        others = ", ".join(sorted(server.cluster_paths - listed))
        lacks = ", ".join(sorted(listed - server.cluster_paths))
        parts = [f"reads {others}"] * bool(others) + [f"does not read {lacks}"] * bool(lacks)
        yield ClusterFinding(
            f"{server.address}: its cluster {' and '.join(parts)}, unlike CLICKHOUSE_HOST: correct "
            "remote_servers, or reports count other rows than workers insert",
            is_refusal=True,
        )


def _unequal(
    servers: Sequence[ServerFacts],
    subject: str,
    of: Callable[[ServerFacts], str],
    advice: str = "run `octane-analytics schema apply`",
) -> Iterator[ClusterFinding]:
    values = {server.address: of(server) for server in servers}
    if len(set(values.values())) > 1:
        yield ClusterFinding(f"{subject} differ: {_listed(values.items())}; {advice}")


def _column_types(server: ServerFacts) -> str:
    columns = server.live.columns if server.live else ()
    return ", ".join(f"{column.name} {column.type}" for column in columns)


def _windows(server: ServerFacts) -> str:
    live = server.live
    if live is None:
        return ""
    age = "" if live.window_seconds is None else f" and {live.window_seconds:,} s"
    return f"{live.window:,} inserts{age}"


def _rollup_labels(server: ServerFacts) -> str:
    labels = sorted({rollups.label_of(name) or name for name in server.rollups})
    return ", ".join(labels) or "none"


def _by_shard(servers: Iterable[ServerFacts]) -> Iterator[list[ServerFacts]]:
    ordered = sorted(servers, key=lambda server: server.shard)
    for _, shard in groupby(ordered, key=lambda server: server.shard):
        yield list(shard)


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{address}: {value}" for address, value in pairs)
