"""Batches on two shards of two replicas each: repeats, failover, quorum, an outage of ZooKeeper."""

import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from octane_analytics.cli.replay import setup
from octane_analytics.cli.replay.fence import ReplayFence
from octane_analytics.cli.replay.owners import identity_of
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.clickhouse.replay_survey import ReplayServers
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.clickhouse.shard_sink import ShardSink
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.errors import ConfigError, StatementRejected, Unavailable
from octane_analytics.pipeline.repeated_insert import insert_repeated
from octane_analytics.replay.plan import Mode
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from octane_analytics.worker import preflight
from tests.support.command import wait_until
from tests.support.crash_points import kills
from tests.support.ingest_rig import Rig, names, once
from tests.tools.cluster.nodes import ClickHouseCluster, Node

TABLE = "ai_analytics_events"
ROWS: list[list[object]] = [[int(time.time())] * 2, ["app"] * 2, ["e"] * 2, ["u", "v"], ["{}"] * 2]
CREATE = (
    f"CREATE TABLE {TABLE} (timestamp DateTime, app_id String, event_name String, user_id String, "
    "properties String) ENGINE = ReplicatedMergeTree('/tables/{shard}/events', '{replica}') "
    "ORDER BY (app_id, event_name, timestamp) PARTITION BY toYYYYMM(timestamp) "
    "SETTINGS replicated_deduplication_window_seconds = 86400"
)


def run(node: Node, statement: str) -> list[tuple[object, ...]]:
    settings = ClickHouseSettings(host=node.authority, timeout_seconds=20)
    with ClickHouse(settings, client_name="tests") as clickhouse:
        return list(clickhouse.select(statement).rows)


def users(node: Node, *, does_sync: bool = True) -> list[str]:
    if does_sync:
        run(node, f"SYSTEM SYNC REPLICA {TABLE}")
    return [str(user) for (user,) in run(node, f"SELECT user_id FROM {TABLE} ORDER BY user_id")]


def is_dropped(node: Node, name: str) -> bool:
    """Drop a replica whose session in ZooKeeper has ended."""
    try:
        run(node, f"SYSTEM DROP REPLICA '{name}' FROM TABLE {TABLE}")
    except StatementRejected:
        return False
    return True


@pytest.fixture
def cluster(clickhouse_cluster: ClickHouseCluster) -> Iterator[ClickHouseCluster]:
    for node in clickhouse_cluster.nodes:
        run(node, CREATE)
    yield clickhouse_cluster
    if clickhouse_cluster.zookeeper.pid is None:
        clickhouse_cluster.zookeeper.start()
    for node in clickhouse_cluster.nodes:
        if node.pid is None:
            node.start()
        run(node, f"DROP TABLE {TABLE} SYNC")


def opened(cluster: ClickHouseCluster, *, quorum: int = 0) -> ClickHouseShards:
    settings = replace(cluster.settings(), timeout_seconds=6.0, insert_quorum=quorum)
    return ClickHouseShards(settings, client_name="tests")


def until_done(sink: ShardSink, seconds: float = 40.0) -> None:
    """Repeat the batch as a worker does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            insert_repeated(sink, ROWS, "t")
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def test_batch_is_repeated_on_another_replica_once(cluster: ClickHouseCluster) -> None:
    (first, replica), _ = cluster.shards
    with opened(cluster) as shards:
        sink = shards.sink("1")
        sink.insert_block(ROWS, "t", "t")
        assert users(replica) == ["u", "v"]
        first.kill()
        until_done(sink)
        first.start()
    assert users(first) == users(replica) == ["u", "v"]


def test_repeat_waits_for_replica_that_is_behind(cluster: ClickHouseCluster) -> None:
    """The rows are on a replica that is down: another one does not take them for missing."""
    (first, replica), _ = cluster.shards
    run(replica, f"SYSTEM STOP FETCHES {TABLE}")
    with opened(cluster) as shards:
        sink = shards.sink("1")
        sink.insert_block(ROWS, "t", "t")
        first.kill()
        with pytest.raises(Unavailable):
            insert_repeated(sink, ROWS, "t")
        run(replica, f"SYSTEM START FETCHES {TABLE}")
        first.start()
        until_done(sink)
    assert users(first) == users(replica) == ["u", "v"]


def test_rows_lost_with_a_replica_are_restored(cluster: ClickHouseCluster) -> None:
    """The token stays in ZooKeeper, and would swallow the repeated block."""
    _, (first, replica) = cluster.shards
    run(replica, f"SYSTEM STOP FETCHES {TABLE}")
    with opened(cluster) as shards:
        sink = shards.sink("2")
        sink.insert_block(ROWS, "t", "t")
        first.kill()
        wait_until(lambda: is_dropped(replica, first.name), 30.0)
        run(replica, f"SYSTEM START FETCHES {TABLE}")
        until_done(sink)
        until_done(sink)
    assert users(replica) == ["u", "v"]
    first.start()


def test_insert_below_its_quorum_is_not_done(cluster: ClickHouseCluster) -> None:
    (first, replica), _ = cluster.shards
    run(replica, f"SYSTEM STOP FETCHES {TABLE}")
    with opened(cluster, quorum=2) as shards:
        sink = shards.sink("1")
        with pytest.raises(Unavailable):
            sink.insert_block(ROWS, "t", "t")
        assert users(first, does_sync=False) == ["u", "v"]
        for _ in range(2):
            with pytest.raises(Unavailable):
                insert_repeated(sink, ROWS, "t")
        run(replica, f"SYSTEM START FETCHES {TABLE}")
        until_done(sink)
        sink.insert_block(ROWS, "t2", "t2")
    assert users(replica, does_sync=False) == users(first) == ["u", "u", "v", "v"]


def test_one_server_by_two_names_is_no_quorum(cluster: ClickHouseCluster) -> None:
    (first, replica), _ = cluster.shards
    run(replica, f"SYSTEM STOP FETCHES {TABLE}")
    twice = f"{first.authority},localhost:{first.tcp_port}"
    settings = ClickHouseSettings(host=twice, timeout_seconds=6.0, insert_quorum=2)
    with ClickHouseShards(settings, client_name="tests") as shards:
        sink = shards.sink("")
        with pytest.raises(Unavailable):
            sink.insert_block(ROWS, "t", "t")
        with pytest.raises(Unavailable, match="1 replicas have the rows"):
            insert_repeated(sink, ROWS, "t")
    with pytest.raises(ConfigError, match=f"are one server, replica {first.name}: list it once"):
        preflight.check_replicas(settings)


@pytest.mark.parametrize(
    "engine", ["MergeTree", "ReplicatedMergeTree('/other/{shard}/events', '{replica}')"]
)
@pytest.mark.parametrize("is_sharded", [True, False], ids=["shards", "one-shard"])
def test_failover_to_another_table_inserts_nothing(
    cluster: ClickHouseCluster, engine: str, *, is_sharded: bool
) -> None:
    (first, stray), _ = cluster.shards
    columns = CREATE[CREATE.index("(") : CREATE.index(" ENGINE")]
    order = "ORDER BY (app_id, event_name, timestamp)"
    run(stray, f"RENAME TABLE {TABLE} TO kept")
    run(stray, f"CREATE TABLE {TABLE} {columns} ENGINE = {engine} {order}")
    settings = replace(
        cluster.settings(None if is_sharded else [0]),
        cluster="octane" if is_sharded else None,
        timeout_seconds=6.0,
    )
    try:
        with pytest.raises(ConfigError, match="make them replicas of one table"):
            preflight.check_replicas(settings.of_each_shard()[0])
        with ClickHouseShards(settings, client_name="tests") as shards:
            sink = shards.sink("1" if is_sharded else "")
            sink.insert_block(ROWS, "t", "t")
            first.kill()
            for _ in range(3):
                with pytest.raises(Unavailable):
                    sink.insert_block(ROWS, "t2", "t2")
            with pytest.raises(Unavailable):
                insert_repeated(sink, ROWS, "t2")
            assert run(stray, f"SELECT count() FROM {TABLE}") == [(0,)]
            first.start()
            until_done(sink)
    finally:
        run(stray, f"DROP TABLE {TABLE} SYNC")
        run(stray, f"RENAME TABLE kept TO {TABLE}")
    assert users(first) == users(stray) == ["u", "v"]


def test_table_that_all_replicas_created_again_is_used(cluster: ClickHouseCluster) -> None:
    with opened(cluster) as shards:
        sink = shards.sink("1")
        sink.insert_block(ROWS, "t", "t")
        for node in cluster.shards[0]:
            run(node, f"DROP TABLE {TABLE} SYNC")
            run(node, CREATE.replace("/tables/", "/again/"))
        sink.close()
        sink.insert_block(ROWS, "t", "t")
    assert users(cluster.shards[0][1]) == ["u", "v"]


def test_batch_survives_outage_of_zookeeper(cluster: ClickHouseCluster) -> None:
    (first, replica), _ = cluster.shards
    with opened(cluster) as shards:
        sink = shards.sink("1")
        cluster.zookeeper.kill()
        with pytest.raises(Unavailable):
            sink.insert_block(ROWS, "t", "t")
        cluster.zookeeper.start()
        until_done(sink)
    assert users(first) == users(replica) == ["u", "v"]


def test_replay_refuses_one_of_several_shards(cluster: ClickHouseCluster) -> None:
    one = setup.pin_to_first_host(cluster.settings([1]), client_name="tests")
    with (
        ClickHouse(one, client_name="tests") as server,
        pytest.raises(ConfigError, match="cluster octane has 2 shards, CLICKHOUSE_HOST lists one"),
    ):
        setup.require_unsharded(server, one)


def journaled(cluster: ClickHouseCluster, node: Node, replay_id: str) -> Iterator[ReplayStaging]:
    """Yield the staging tables of a replay that stands on this server of the first shard."""
    peers = [replace(cluster.settings(), host=n.authority) for n in cluster.shards[0] if n != node]
    with ClickHouseSink(
        ClickHouseSettings(host=node.authority, timeout_seconds=20), client_name="tests"
    ) as sink:
        live = sink.describe()
        assert live is not None
        yield ReplayStaging(sink, replay_id, live, peers=peers)


def fence(*nodes: Node) -> ReplayFence:
    settings = ClickHouseSettings(host=",".join(n.authority for n in nodes), timeout_seconds=20)
    return ReplayFence(ReplayServers(settings, client_name="tests"), TableName("default", TABLE))


@pytest.mark.parametrize(
    ("engine", "is_refused"),
    [
        (f"Distributed('octane', 'default', '{TABLE}')", False),
        (f"Distributed('octane', 'default', '{TABLE}', rand())", False),
        (f"Distributed('octane', 'default', '{TABLE}') SETTINGS skip_unavailable_shards = 1", True),
        (f"Distributed('octane', 'other', '{TABLE}')", True),
        ("MergeTree ORDER BY ()", True),
    ],
)
def test_replay_refuses_table_that_omits_shards(
    cluster: ClickHouseCluster, engine: str, *, is_refused: bool
) -> None:
    pinned = replace(cluster.settings(), host=cluster.nodes[0].authority)
    run(cluster.nodes[0], f"CREATE TABLE {TABLE}_all AS {TABLE} ENGINE = {engine}")
    refusal = pytest.raises(ConfigError, match="rows that it does not read would be inserted again")
    try:
        with (
            ClickHouse(pinned, client_name="tests") as server,
            refusal if is_refused else contextlib.nullcontext(),
        ):
            setup.check_shards(server, cluster.settings(), Mode.FILL)
    finally:
        run(cluster.nodes[0], f"DROP TABLE {TABLE}_all SYNC")


def replay_tables(cluster: ClickHouseCluster) -> list[str]:
    query = "SELECT name FROM system.tables WHERE startsWith(name, 'octane_replay_')"
    return [str(name) for node in cluster.nodes for (name,) in run(node, query)]


def test_journal_on_both_replicas_is_cleaned_up(cluster: ClickHouseCluster) -> None:
    """A replay is killed between any two statements; a new one stands on the other replica."""
    one, other = cluster.shards[0]
    dead = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "ticks": -1})

    # The path of a dropped table stays in ZooKeeper for a while.
    numbers = itertools.count()

    def live() -> None:
        for staging in journaled(cluster, one, f"{next(numbers)}_a"):
            staging.create(dead)
            staging.drop()

    ends = 0
    for ends in kills(live):
        fence(other, one).clean_up()
        assert replay_tables(cluster) == [], ends
    assert ends > 8


@pytest.mark.parametrize("first", [0, 1])
def test_replay_on_another_replica_is_seen(cluster: ClickHouseCluster, first: int) -> None:
    """Its journal is on one server alone if the other was away, or if a right is missing."""
    own, other = cluster.shards[0][first], cluster.shards[0][1 - first]
    alive, replay_id = identity_of(os.getppid()), f"1_{first}"
    for staging in journaled(cluster, own, replay_id):
        staging.create(alive)
        for is_on_both in (True, False):
            for order in ((own, other), (other, own)):
                with pytest.raises(ConfigError, match=f"replay {replay_id} works on"):
                    fence(*order).require_alone("1_b", is_resumed=False)
            if is_on_both:
                run(other, f"DROP TABLE octane_replay_{replay_id}_journal SYNC")
        staging.drop()


@pytest.mark.parametrize("is_replicated", [True, False])
def test_view_counts_repeat_on_another_replica(
    cluster: ClickHouseCluster, is_replicated: bool
) -> None:
    """Once if its target is replicated; the worker refuses any other target."""
    one, other = cluster.shards[0]
    engine = "SummingMergeTree"
    if is_replicated:
        engine = "ReplicatedSummingMergeTree('/tables/{shard}/counts', '{replica}')"
    window = "" if is_replicated else " SETTINGS non_replicated_deduplication_window = 100"
    for node in (one, other):
        run(
            node,
            f"CREATE TABLE counts (user_id String, n UInt64) ENGINE = {engine} "
            f"ORDER BY user_id{window}",
        )
        run(
            node,
            "CREATE MATERIALIZED VIEW counting TO counts "
            f"AS SELECT user_id, count() AS n FROM {TABLE} GROUP BY user_id",
        )
    try:
        shard = replace(cluster.settings([0]), cluster=None, timeout_seconds=20.0)
        for node in (one, other):
            single = replace(shard, host=node.authority)
            with ClickHouseSink(single, client_name="tests") as sink:
                sink.insert_block(ROWS, "t", None)
                insert_repeated(sink, ROWS, "t")
        found = []
        for node in (one, other):
            if is_replicated:
                run(node, "SYSTEM SYNC REPLICA counts")
            found += run(node, "SELECT toUInt32(sum(n)) FROM counts")
        assert found == [(2,), (2,)]  # each the same two, or each two of its own
        assert users(one) == users(other) == ["u", "v"]
        whole = load({}).settings
        with ClickHouse(shard, client_name="tests") as server:
            own = replace(whole, clickhouse=shard)
            if is_replicated:
                preflight.check_table(server, own)
                run(other, "DROP TABLE counting SYNC")
                with pytest.raises(ConfigError, match=f"{other.authority} lacks .*counting"):
                    preflight.check_table(server, own)
            else:
                with pytest.raises(ConfigError, match="use a ReplicatedSummingMergeTree"):
                    preflight.check_table(server, own)
    finally:
        for node in (one, other):
            run(node, "DROP TABLE IF EXISTS counting SYNC")
            run(node, "DROP TABLE counts SYNC")


def test_workers_fill_both_shards_through_kills(cluster: ClickHouseCluster) -> None:
    rig = Rig(size=4)
    nodes = [cluster.shards[0][0], cluster.shards[1][0]]
    with opened(cluster) as shards:
        worker = rig.worker(shards=shards)
        for number in range(6):
            rig.produce(4 * number, 4 * number + 4)
            if number in (1, 4):
                nodes[number // 4].kill()
            rig.settle(worker)
            if number in (2, 5):
                nodes[number // 4].start()
    stored = [users(shard[0]) for shard in cluster.shards]
    assert [users(shard[1]) for shard in cluster.shards] == stored
    assert all(stored)
    assert once(*stored) == once(names(0, 24))
