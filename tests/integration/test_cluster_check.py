"""`check` over two shards of two replicas, healthy and faulty."""

import dataclasses
import json
from collections.abc import Iterator

import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.operations.checks.cluster import CheckedReplica, check_cluster
from octane_analytics.operations.checks.finding import Finding, Level
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import call, run, wait_until
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster

DATABASE = "checked"


@pytest.fixture(scope="module")
def ledger(clickhouse_cluster: ClickHouseCluster) -> ClickHouseSettings:
    settings = dataclasses.replace(clickhouse_cluster.settings(), database=DATABASE)
    applied = call("schema", "apply", "--replicated", settings=environ(settings))
    assert applied.returncode == 0, applied
    return settings


def environ(settings: ClickHouseSettings) -> dict[str, str]:
    return {
        "CLICKHOUSE_HOST": settings.host,
        "CLICKHOUSE_CLUSTER": CLUSTER,
        "CLICKHOUSE_DATABASE": DATABASE,
    }


def findings(settings: ClickHouseSettings) -> list[Finding]:
    def servers() -> Iterator[CheckedReplica]:
        for shard in settings.topology().shards:
            for where in shard.authorities:
                single = dataclasses.replace(settings, host=where, timeout_seconds=20)
                yield CheckedReplica(where, shard.number, ClickHouse(single, client_name="tests"))

    found = list(servers())
    try:
        return list(check_cluster(found, settings))
    finally:
        for server in found:
            server.connection.close()


def test_servers_of_a_cluster_agree(ledger: ClickHouseSettings) -> None:
    (finding,) = findings(ledger)
    assert finding.level is Level.OK, finding
    assert "4 servers of 2 shards" in finding.message


def test_check_judges_each_server_and_the_cluster(
    ledger: ClickHouseSettings, clickhouse_cluster: ClickHouseCluster
) -> None:
    lost, (away, left) = clickhouse_cluster.shards
    for node in (*lost, away):
        node.kill()
    try:
        with EmbeddedKafka(topics={"octane.events": 1}) as kafka:
            shown = run(
                "check",
                "--json",
                settings=environ(ledger) | {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
            )
    finally:
        for node in (*lost, away):
            node.start()
    assert shown.returncode == 69
    found = {item["subject"]: item for item in json.loads(shown.stdout)["checks"]}
    for node in lost:
        assert found[f"clickhouse {node.authority}"]["level"] == "FAIL"
    unreachable = found[f"clickhouse {away.authority}"]
    assert unreachable["level"] == "WARN"
    assert "another one serves" in unreachable["message"]
    assert found[f"table at {left.authority}"]["level"] == "OK"
    assert found["cluster"]["level"] == "OK"
    assert "1 servers of 1 shards" in found["cluster"]["message"]


def test_lagging_and_read_only_replicas_are_reported(
    ledger: ClickHouseSettings, clickhouse_cluster: ClickHouseCluster
) -> None:
    clickhouse_cluster.zookeeper.kill()
    try:
        # The session expires first.
        wait_until(lambda: any("read-only" in found.message for found in findings(ledger)))
        wait_until(
            lambda: sum(found.level is Level.FAIL for found in findings(ledger)) == 4,
        )
    finally:
        clickhouse_cluster.zookeeper.start()
    wait_until(lambda: [found.level for found in findings(ledger)] == [Level.OK])


def test_missing_rights_are_not_taken_for_agreement(ledger: ClickHouseSettings) -> None:
    found = findings(dataclasses.replace(ledger, user="limited"))
    assert [finding.level for finding in found] == [Level.WARN] * 4
    assert "GRANT SELECT ON system.replicas" in found[0].message


def test_quorum_beyond_the_replicas_is_a_failure(ledger: ClickHouseSettings) -> None:
    two = dataclasses.replace(ledger, insert_quorum=2)
    assert [found.level for found in findings(two)] == [Level.OK]
    three = findings(dataclasses.replace(ledger, insert_quorum=3))
    assert {found.level for found in three} == {Level.FAIL}
    assert "CLICKHOUSE_INSERT_QUORUM" in three[0].message


def test_one_listed_shard_of_two_is_a_failure(
    ledger: ClickHouseSettings, clickhouse_cluster: ClickHouseCluster
) -> None:
    (first, _), _ = clickhouse_cluster.shards
    with EmbeddedKafka(topics={"octane.events": 1}) as kafka:
        addresses = {
            "CLICKHOUSE_HOST": first.authority,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        }
        checked = call("check", settings=environ(ledger) | addresses)
    assert checked.returncode == 78
    assert "cluster octane has 2 shards in remote_servers" in checked.stdout, checked
    one = dataclasses.replace(ledger, host=first.authority)
    assert "CLICKHOUSE_HOST lists one of them" in findings(one)[0].message


def test_distributed_table_that_omits_shards_is_a_failure(ledger: ClickHouseSettings) -> None:
    name = f"{DATABASE}.ai_analytics_events_all"
    single = dataclasses.replace(ledger, host=ledger.topology().shards[0].authorities[0])
    with ClickHouse(single, client_name="tests") as server:
        server.execute(f"RENAME TABLE {name} TO {name}_kept")
        server.execute(
            f"CREATE TABLE {name} AS {name}_kept ENGINE = Distributed('{CLUSTER}', '{DATABASE}', "
            "'ai_analytics_events') SETTINGS skip_unavailable_shards = 1"
        )
        found = findings(ledger)
        server.execute(f"DROP TABLE {name} SYNC")
        server.execute(f"RENAME TABLE {name}_kept TO {name}")
    (finding,) = found
    assert finding.level is Level.FAIL
    assert "would omit the rows of a shard that is away" in finding.message


def test_replicas_listed_as_shards_are_a_failure(
    ledger: ClickHouseSettings, clickhouse_cluster: ClickHouseCluster
) -> None:
    crossed = dataclasses.replace(
        ledger, host=";".join(node.authority for node in clickhouse_cluster.shards[0])
    )
    found = findings(crossed)
    assert {finding.level for finding in found} == {Level.FAIL}
    texts = " ".join(finding.message for finding in found)
    assert "are replicas of one table" in texts
    assert "its cluster reads /clickhouse/tables/" in texts
