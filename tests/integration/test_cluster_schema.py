"""`schema` on two shards of two replicas: what it creates, repeats, reports and never claims."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.rollups import DEFAULT_SETS
from octane_analytics.clickhouse.schema import TableName, create_replicated_table
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import call
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster, Node

Schema = Callable[..., CompletedProcess[str]]


@pytest.fixture
def database() -> str:
    return f"ledger_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def schema(clickhouse_cluster: ClickHouseCluster, database: str) -> Iterator[Schema]:
    base = {
        "CLICKHOUSE_HOST": clickhouse_cluster.hosts(),
        "CLICKHOUSE_CLUSTER": CLUSTER,
        "CLICKHOUSE_DATABASE": database,
        "CLICKHOUSE_TIMEOUT": "20",
    }

    def schema(*arguments: str, **settings: str) -> CompletedProcess[str]:
        return call("schema", *arguments, settings=base | settings)

    yield schema
    for node in clickhouse_cluster.nodes:
        if node.pid is None:
            node.start()
        select(node, f"DROP DATABASE IF EXISTS {database} SYNC")


def select(node: Node, sql: str, database: str = "default") -> list[tuple[object, ...]]:
    settings = ClickHouseSettings(host=node.authority, database=database, timeout_seconds=20)
    with ClickHouse(settings, client_name="tests") as clickhouse:
        return list(clickhouse.select(sql).rows)


def paths(cluster: ClickHouseCluster, database: str) -> list[list[object]]:
    query = f"SELECT zookeeper_path FROM system.replicas WHERE database = '{database}'"
    return [[select(node, query)[0][0] for node in shard] for shard in cluster.shards]


def test_apply_creates_replicas_of_each_shard(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    applied = schema("apply", "--replicated")
    assert (applied.returncode, applied.stderr) == (0, ""), applied
    for node in clickhouse_cluster.nodes:
        assert f"{node.authority}:\n" in applied.stdout
        for table in ("ai_analytics_events", "ai_analytics_events_all"):
            assert select(node, f"SELECT count() FROM {database}.{table}") == [(0,)]
        windows = select(
            node,
            "SELECT extract(engine_full, 'window = (\\\\d+)'), "
            "extract(engine_full, 'window_seconds = (\\\\d+)') FROM system.tables "
            f"WHERE database = '{database}' AND name = 'ai_analytics_events'",
        )
        assert windows == [("10000", "86400")]
        rollups = f"SELECT count() FROM system.projections WHERE database = '{database}'"
        assert select(node, rollups) == [(len(DEFAULT_SETS),)]
    first, second = paths(clickhouse_cluster, database)
    assert len(set(first)) == len(set(second)) == 1
    assert first != second
    assert applied.stdout.count(f"created table {database}.ai_analytics_events\n") == 4
    assert "matches the expected schema on 4 servers" in applied.stdout

    again = schema("apply", "--replicated")
    assert again.returncode == 0
    assert "created" not in again.stdout
    assert again.stdout.count("nothing to do") == 4
    checked = schema("check")
    assert checked.returncode == 0, checked.stdout


def test_apply_names_a_server_it_did_not_reach(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    away = clickhouse_cluster.shards[0][0]
    away.kill()
    applied = schema("apply", "--replicated")
    assert applied.returncode == 69
    assert f"not done on {away.authority}" in applied.stderr
    assert "matches" not in applied.stdout
    assert applied.stdout.count("created table") == 6
    away.start()
    assert schema("check").returncode == 1
    completed = schema("apply", "--replicated")
    assert completed.returncode == 0, completed
    first, second = paths(clickhouse_cluster, database)
    assert len(set(first)) == 1
    assert first != second


def test_servers_created_apart_are_still_replicas(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    (one, other), _ = clickhouse_cluster.shards
    shard = {"CLICKHOUSE_HOST": f"{one.authority},{other.authority}"}
    for present, away in ((one, other), (other, one)):
        away.kill()
        applied = schema("apply", "--replicated", "--no-rollups", **shard)
        assert applied.returncode == 69, applied.stdout
        assert f"{present.authority}:\n" in applied.stdout
        assert f"created table {database}.ai_analytics_events\n" in applied.stdout
        away.start()
    assert schema("check", **shard).returncode == 0
    query = f"SELECT DISTINCT zookeeper_path FROM system.replicas WHERE database = '{database}'"
    assert select(one, query) == select(other, query)


def test_replica_waits_for_the_definition_of_its_shard(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    (one, other), _ = clickhouse_cluster.shards
    shard = {"CLICKHOUSE_HOST": f"{one.authority},{other.authority}"}
    other.kill()
    assert schema("apply", "--replicated", **shard).returncode == 69
    other.start()
    one.kill()
    # The rollups of the first are in ZooKeeper, but the default table has none when it is created.
    applied = schema("apply", "--replicated", **shard)
    assert applied.returncode == 69, applied.stdout
    assert "have another definition" in applied.stdout
    one.start()
    assert schema("apply", "--replicated", **shard).returncode == 0
    assert schema("check", **shard).returncode == 0


def test_shards_of_one_server_need_no_replication(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    (first, _), (second, _) = clickhouse_cluster.shards
    plain = {"CLICKHOUSE_HOST": f"{first.authority};{second.authority}"}
    applied = schema("apply", **plain)
    assert applied.returncode == 0, applied
    assert schema("check", **plain).returncode == 0
    engines = f"SELECT engine FROM system.tables WHERE database = '{database}' ORDER BY name"
    for node in (first, second):
        assert select(node, engines) == [("MergeTree",), ("Distributed",)]
    converted = schema("apply", "--replicated", **plain)
    assert converted.returncode == 78
    assert "AS REPLICATED" in converted.stdout


def test_new_shard_gets_the_table_of_the_others(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    only = {"CLICKHOUSE_HOST": clickhouse_cluster.hosts([0]), "CLICKHOUSE_CLUSTER": ""}
    options = ("--replicated", "--window", "30000", "--rollups", "totals")
    assert schema("apply", *options, **only).returncode == 0
    # Neither the window nor the rollups of the first shard are given again.
    grown = schema("apply")
    assert grown.returncode == 0, grown
    assert grown.stdout.count(f"created table {database}.ai_analytics_events\n") == 2
    assert grown.stdout.count("which reads cluster octane") == 4
    assert grown.stdout.count("deduplication window: 30,000 inserts") == 4
    for node in clickhouse_cluster.nodes:
        rollups = f"SELECT name FROM system.projections WHERE database = '{database}'"
        assert len(select(node, rollups)) == 1


def test_apply_widens_the_window_of_every_replica(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    assert schema("apply", "--replicated", "--no-rollups").returncode == 0
    narrow = clickhouse_cluster.shards[1][1]
    select(
        narrow,
        f"ALTER TABLE {database}.ai_analytics_events MODIFY SETTING "
        "replicated_deduplication_window = 50, replicated_deduplication_window_seconds = 60",
    )
    checked = schema("check")
    assert checked.returncode == 1
    assert "difference: deduplication windows differ" in checked.stdout
    assert f"{narrow.authority}: 50 inserts and 60 s" in checked.stdout
    # No option names the engine of a table that exists.
    applied = schema("apply", "--window", "20000")
    assert applied.returncode == 0, applied
    assert applied.stdout.count("to 20,000 inserts") == 4
    assert schema("check").returncode == 0


def test_rollups_are_added_on_every_replica(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    assert schema("apply", "--replicated", "--no-rollups").returncode == 0
    for shard in clickhouse_cluster.shards:
        select(
            shard[0],
            f"INSERT INTO {database}.ai_analytics_events SELECT now(), 'app', 'event', "
            "toString(number), '{}' FROM numbers(1000)",
        )
    applied = schema("apply", "--rollups", "totals")
    assert applied.returncode == 0, applied
    assert applied.stdout.count("added rollup octane_totals_") == 2
    assert applied.stdout.count("has rollups octane_totals_") == 2
    for node in clickhouse_cluster.nodes:
        found = select(
            node,
            "SELECT countIf(has(p.projections, r.name)), count() FROM system.parts AS p JOIN "
            "system.projections AS r ON p.database = r.database AND p.table = r.table "
            f"WHERE active AND p.database = '{database}'",
        )
        assert found[0][0] == found[0][1] != 0
        # DELETE FROM needs a setting that is local to a replica.
        select(node, f"DELETE FROM {database}.ai_analytics_events WHERE user_id = '{node.name}'")


def test_replica_with_a_lost_disk_is_advised(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    assert schema("apply", "--replicated").returncode == 0
    (lost, other), _ = clickhouse_cluster.shards
    lost.stop()
    shutil.rmtree(lost.data_directory)
    lost.start()
    applied = schema("apply")
    assert applied.returncode == 1
    assert "SYSTEM DROP REPLICA" in applied.stdout
    select(other, f"SYSTEM DROP REPLICA '{lost.name}' FROM TABLE {database}.ai_analytics_events")
    assert schema("apply").returncode == 0
    assert schema("check").returncode == 0


def test_several_servers_need_replicas(schema: Schema, database: str) -> None:
    applied = schema("apply")
    assert applied.returncode == 78
    assert "add --replicated" in applied.stderr


def test_shards_listed_as_replicas_are_refused(
    schema: Schema, clickhouse_cluster: ClickHouseCluster
) -> None:
    assert schema("apply", "--replicated").returncode == 0
    (a, b), (c, _) = clickhouse_cluster.shards
    as_replicas = ",".join(node.authority for node in (a, c))
    as_shards = ";".join(node.authority for node in (a, b))
    for command in ("check", "apply"):
        found = schema(command, CLICKHOUSE_HOST=as_replicas)
        assert found.returncode == 1
        assert "not replicas of one table" in found.stdout
        found = schema(command, CLICKHOUSE_HOST=as_shards)
        assert found.returncode == 1
        assert "are replicas of one table" in found.stdout


def test_new_tables_need_matching_macros(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    (a, b), (c, _) = clickhouse_cluster.shards
    crossed = f"{a.authority},{c.authority};{b.authority}"
    applied = schema("apply", "--replicated", CLICKHOUSE_HOST=crossed)
    assert applied.returncode == 1
    assert "different macros shard" in applied.stdout
    assert "both have the macro shard = 1" in applied.stdout
    assert "nothing was changed" in applied.stderr
    assert select(a, f"SELECT 1 FROM system.tables WHERE database = '{database}'") == []


def test_distributed_table_of_another_cluster_is_reported(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    assert schema("apply", "--replicated").returncode == 0
    node = clickhouse_cluster.nodes[0]
    name = f"{database}.ai_analytics_events_all"
    select(node, f"DROP TABLE {name} SYNC")
    assert "does not have" in schema("check").stdout
    select(node, f"CREATE TABLE {name} AS {name.removesuffix('_all')} ENGINE = Memory")
    checked = schema("check")
    assert checked.returncode == 1
    assert f"{name} is not Distributed(" in checked.stdout
    unknown = schema("check", CLICKHOUSE_CLUSTER="elsewhere")
    assert "cluster elsewhere does not exist in remote_servers" in unknown.stdout


def test_on_cluster_is_refused_by_servers_without_it(schema: Schema) -> None:
    applied = schema("apply", "--replicated", "--on-cluster")
    assert applied.returncode == 1
    assert "leave out --on-cluster" in applied.stderr
    assert schema("apply", "--on-cluster").returncode == 2


def test_on_cluster_sends_two_statements(
    schema: Schema,
    clickhouse_cluster: ClickHouseCluster,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Servers of the tests refuse ON CLUSTER. Each runs here what a server's queue would give to it."""
    sent: list[tuple[str, str]] = []
    table_id = uuid.uuid4()
    execute = ClickHouse.execute

    def run_on_cluster(connection: ClickHouse, statement: str) -> None:
        clause = f" ON CLUSTER {CLUSTER}"
        if clause not in statement:
            return execute(connection, statement)
        (address,) = connection._settings.hosts()
        sent.append((f"{address[0]}:{address[1]}", statement))
        # The server that takes the statement chooses the UUID of a table, for all servers.
        chosen = f" UUID '{table_id}'" if statement.startswith("CREATE TABLE") else ""
        for node in clickhouse_cluster.nodes:
            quoted = statement.replace("\\", "\\\\").replace("'", "\\'")
            assert clause in str(select(node, f"SELECT formatQuerySingleLine('{quoted}')")[0][0])
            select(node, statement.replace(clause, chosen))
        return None

    monkeypatch.setattr(ClickHouse, "execute", run_on_cluster)
    applied = schema("apply", "--replicated", "--on-cluster", "--window", "20000")
    assert (applied.returncode, applied.stderr) == (0, ""), applied
    first = clickhouse_cluster.nodes[0].authority
    name = TableName(database, "ai_analytics_events")
    assert sent == [
        (first, f"CREATE DATABASE IF NOT EXISTS {database} ON CLUSTER {CLUSTER}"),
        (first, create_replicated_table(name, 20_000, cluster=CLUSTER)),
    ]
    assert applied.stdout.count("exists: nothing to do") == 4
    assert applied.stdout.count("which reads cluster octane") == 4
    one, other = paths(clickhouse_cluster, database)
    assert len(set(one)) == len(set(other)) == 1
    assert one != other
    assert schema("check").returncode == 0

    again = schema("apply", "--replicated", "--on-cluster")
    assert again.returncode == 0
    assert len(sent) == 2


def test_grants_visit_every_server(schema: Schema, clickhouse_cluster: ClickHouseCluster) -> None:
    """clickhouse-local stores no users: each server refuses, and the next one is visited."""
    applied = schema(
        "grants", "--apply", CLICKHOUSE_QUERY_PASSWORD="secret", CLICKHOUSE_DATABASE=""
    )
    assert applied.returncode == 1
    for node in clickhouse_cluster.nodes:
        assert f"{node.authority}: not done: " in applied.stdout
    assert "conf/clickhouse/octane-query.xml" in applied.stderr


def test_single_replica_may_be_the_only_server(
    schema: Schema, clickhouse_cluster: ClickHouseCluster, database: str
) -> None:
    node = clickhouse_cluster.nodes[0]
    alone = {"CLICKHOUSE_HOST": node.authority, "CLICKHOUSE_CLUSTER": ""}
    applied = schema("apply", "--replicated", **alone)
    assert applied.returncode == 0, applied
    assert select(
        node, f"SELECT total_replicas FROM system.replicas WHERE database = '{database}'"
    ) == [(1,)]
    assert schema("check", **alone).returncode == 0
