"""The cluster that tests run on: real replicas that fetch parts from one another, and real shards."""

import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import wait_until
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster, Node

UUID = "6f1c1a1e-5d3f-5b0c-9a39-00000000000a"
CREATE = (
    f"CREATE TABLE engine.events UUID '{UUID}' "
    "(n UInt64, text String, PROJECTION sums (SELECT n % 7 AS rest, sum(n) GROUP BY rest)) "
    "ENGINE = ReplicatedMergeTree ORDER BY n"
)

READ_ONLY = "SELECT is_readonly FROM system.replicas WHERE database = 'engine'"


def run(node: Node, sql: str) -> list[tuple[object, ...]]:
    settings = ClickHouseSettings(host=node.authority, timeout_seconds=20)
    with ClickHouse(settings, client_name="tests") as clickhouse:
        return list(clickhouse.select(sql).rows)


def synchronise(node: Node) -> None:
    # A node that has just started, or lost ZooKeeper, is read-only for a moment.
    wait_until(lambda: run(node, READ_ONLY) == [(0,)], timeout_seconds=150)
    run(node, "SYSTEM SYNC REPLICA engine.events")


@pytest.fixture(scope="module")
def events(clickhouse_cluster: ClickHouseCluster) -> ClickHouseCluster:
    for node in clickhouse_cluster.nodes:
        run(node, "CREATE DATABASE engine")
        run(node, CREATE)
        run(
            node,
            f"CREATE TABLE engine.all AS engine.events ENGINE = Distributed({CLUSTER}, engine, events)",
        )
    return clickhouse_cluster


def test_cluster_replicates_parts_and_reads_all_shards(events: ClickHouseCluster) -> None:
    (first, replica), (other, _) = events.shards
    numbers = "INSERT INTO engine.events SELECT number, toString(number) FROM numbers"
    run(first, f"{numbers}(1000)")
    # A part beyond ten megabytes is wide, and has several blocks of each file to hash.
    run(first, "INSERT INTO engine.events SELECT number, randomString(1000) FROM numbers(20000)")
    run(other, f"{numbers}(500)")
    replica.kill()
    run(first, f"{numbers}(30)")
    replica.start()
    synchronise(replica)
    kinds = run(
        replica,
        "SELECT DISTINCT part_type FROM system.parts WHERE active AND database = 'engine' ORDER BY 1",
    )
    assert kinds == [("Compact",), ("Wide",)]
    assert run(replica, "SELECT count(), sum(n) FROM engine.events") == run(
        first, "SELECT count(), sum(n) FROM engine.events"
    )
    assert run(replica, "SELECT count() FROM engine.all") == [(1000 + 20000 + 500 + 30,)]
    assert run(
        replica, "CHECK TABLE engine.events SETTINGS check_query_single_value_result = 1"
    ) == [(1,)]


def test_cluster_survives_a_kill_of_zookeeper(events: ClickHouseCluster) -> None:
    (first, replica), _ = events.shards
    events.zookeeper.kill()
    events.zookeeper.start()
    synchronise(first)
    run(first, "INSERT INTO engine.events SELECT number, 'again' FROM numbers(7)")
    synchronise(replica)
    assert run(replica, "SELECT count() FROM engine.events WHERE text = 'again'") == [(7,)]
