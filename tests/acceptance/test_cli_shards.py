"""Installed commands over two shards of two replicas: workers, lost rows, `replay`."""

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.errors import StatementRejected
from octane_analytics.events.decode import decode
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.pipeline.repeated_insert import insert_repeated
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.types import PartitionRange
from tests.acceptance.test_cli_replay import random_events
from tests.support.command import call, run, wait_until
from tests.support.replay_runs import Multiset, Scene, kill, pool
from tests.tools.cluster.fixtures import running
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster, Node
from tests.tools.kafka.apache import ApacheKafka

EVENTS = 6_000


class ShardedScene(Scene):
    """One topic, and its table in all shards of a cluster."""

    def __init__(self, kafka: ApacheKafka, cluster: ClickHouseCluster, directory: Path) -> None:
        super().__init__(kafka, cluster.nodes[0], directory)
        self.cluster = cluster
        self.shards = cluster.shards
        del self.settings["CLICKHOUSE_PORT"]
        self.settings |= {"CLICKHOUSE_HOST": cluster.hosts(), "CLICKHOUSE_CLUSTER": CLUSTER}
        # Several batches, also where all records are there at once: each shard gets its turn.
        self.settings |= {"INSERTS_PER_SECOND": "0", "BATCH_SIZE": "500"}
        self.everything = f"{self.name}.ai_analytics_events_all"

    def __enter__(self) -> Self:
        self.kafka.create_topic(self.topic, self.partitions)
        self.kafka.create_topic(f"{self.topic}.dlq", 1)
        for node in self.nodes:
            self.execute(node, f"CREATE DATABASE IF NOT EXISTS {self.name}")
        applied = call("schema", "apply", "--replicated", settings=self.settings)
        assert applied.returncode == 0, applied
        return self

    def __exit__(self, *_: object) -> None:
        self.clickhouse.close()
        self._root.close()
        for node in self.nodes:
            if node.pid is None:
                node.start()
            self.execute(node, f"DROP DATABASE {self.name} SYNC")

    @property
    def nodes(self) -> list[Node]:
        return [node for shard in self.shards for node in shard]

    @property
    def shard_settings(self) -> ClickHouseSettings:
        return replace(self.cluster.settings(), database=self.name)

    def left_behind(self) -> list[str]:
        """Return the tables of replays on all servers."""
        query = (
            f"SELECT name FROM system.tables WHERE database = '{self.name}' "
            "AND startsWith(name, 'octane_replay_')"
        )
        found = (row for node in self.nodes for row in self.execute(node, query))
        return sorted({str(name) for (name,) in found})

    def has_table(self, name: str) -> bool:
        return any(found.endswith(f"_{name}") for found in self.left_behind())

    def execute(self, node: Node, statement: str) -> list[tuple[object, ...]]:
        settings = ClickHouseSettings(host=node.authority, timeout_seconds=20)
        with ClickHouse(settings, client_name="tests") as server:
            return list(server.select(statement).rows)

    def sync(self) -> None:
        for node in self.nodes:
            self.execute(node, f"SYSTEM SYNC REPLICA {self.clickhouse.table}")

    def rows(self) -> int:
        return sum(self.rows_by_shard())

    def rows_by_shard(self, replica: int = 0) -> list[int]:
        self.sync()
        count = f"SELECT count() FROM {self.clickhouse.table}"
        return [int(str(self.execute(shard[replica], count)[0][0])) for shard in self.shards]

    def table(self, name: str | None = None) -> Multiset:
        self.sync()
        return super().table(name or self.everything)

    def tables_by_shard(self) -> list[Multiset]:
        self.sync()
        return [self.rows_of(first) for first, _ in self.shards]

    def rows_of(self, node: Node) -> Multiset:
        query = (
            "SELECT toUInt32(timestamp), app_id, event_name, user_id, properties, count() "
            f"FROM {self.clickhouse.table} GROUP BY ALL"
        )
        return Counter({row[:5]: int(str(row[5])) for row in self.execute(node, query)})

    def lose(self, share: float = 1 / 3) -> int:
        before = self.rows()
        for first, _ in self.shards:
            self.execute(
                first,
                f"ALTER TABLE {self.clickhouse.table} DELETE "
                f"WHERE cityHash64(user_id, properties, timestamp) % 1000 < {int(share * 1000)} "
                "SETTINGS mutations_sync = 2",
            )
        return before - self.rows()


class ReplicatedScene(ShardedScene):
    """One topic, and its table in one shard with two replicas."""

    def __init__(self, kafka: ApacheKafka, cluster: ClickHouseCluster, directory: Path) -> None:
        super().__init__(kafka, cluster, directory)
        self.shards = cluster.shards[:1]
        del self.settings["CLICKHOUSE_CLUSTER"]
        self.settings |= {"CLICKHOUSE_HOST": cluster.hosts([0])}
        self.everything = f"{self.name}.ai_analytics_events"

    def journal(self, node: Node, kind: str) -> list[str]:
        """Return the entries of the kind in the journal that this server has, if it has one."""
        names = [name for name in self.left_behind() if name.endswith("_journal")]
        if not names:
            return []
        query = f"SELECT body FROM {self.name}.{names[0]} WHERE kind = '{kind}'"
        try:
            return [str(body) for (body,) in self.execute(node, query)]
        except StatementRejected:
            return []  # only the other server has it so far


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseCluster]:
    with running(ClickHouseCluster(tmp_path_factory.mktemp("cluster"))) as started:
        yield started


@pytest.fixture
def scene(kafka: ApacheKafka, cluster: ClickHouseCluster, tmp_path: Path) -> Iterator[ShardedScene]:
    with ShardedScene(kafka, cluster, tmp_path) as scene:
        yield scene


def test_fill_restores_lost_rows_of_shards(scene: ShardedScene) -> None:
    scene.produce(random_events(EVENTS))
    scene.ingest()
    assert scene.table() == scene.log()
    assert min(scene.rows_by_shard()) > 0
    assert scene.rows_by_shard(replica=1) == scene.rows_by_shard()
    lost = scene.lose()
    assert lost > 0
    assert scene.replay("--from-offset", "0", "--dry-run")["inserted"] == lost
    report = scene.replay("--from-offset", "0", "--procs", "2")
    assert report["inserted"] == lost
    assert scene.table() == scene.log()
    assert scene.replay("--from-offset", "beginning")["inserted"] == 0
    assert scene.left_behind() == []


def test_fill_during_live_inserts_is_exact(scene: ShardedScene) -> None:
    events = random_events(EVENTS)
    scene.produce(events)
    scene.ingest()
    scene.lose()
    with scene.working(), scene.producing(events, rate=1500):
        wait_until(lambda: scene.rows() > EVENTS)
        scene.replay("--from-offset", "0")
        wait_until(lambda: scene.lag() == 0 and sum(scene.log().values()) == 2 * EVENTS, 60)
    assert scene.table() == scene.log()


def test_killed_fill_is_completed_by_the_next(scene: ShardedScene) -> None:
    scene.produce(random_events(EVENTS))
    scene.ingest()
    for seconds in (0.5, 1.5, 2.0, 2.5):
        scene.lose()
        killed = scene.start("--from-offset", "0", "--rate", "3000")
        wait_until(lambda killed=killed: scene.has_begun(killed))  # type: ignore[misc]
        time.sleep(seconds)
        kill(killed)
    scene.replay("--from-offset", "0")
    assert scene.table() == scene.log()


def test_replay_with_another_list_of_shards_is_refused(scene: ShardedScene) -> None:
    """Its tables would stand on another shard, which does not have the journal of the first."""
    scene.produce(random_events(EVENTS))
    scene.ingest()
    first = scene.start("--from-offset", "0", "--rate", "100")
    wait_until(lambda: scene.has_begun(first))
    reversed_hosts = ";".join(scene.settings["CLICKHOUSE_HOST"].split(";")[::-1])
    refused = run(
        *("replay", "--from-offset", "0", "--yes"),
        settings=scene.settings | {"CLICKHOUSE_HOST": reversed_hosts},
    )
    kill(first)
    assert refused.returncode == Exit.CONFIG
    assert f"process {first.pid}" in refused.stderr
    # A killed one is cleaned up from there, too.
    scene.settings["CLICKHOUSE_HOST"] = reversed_hosts
    assert scene.replay("--from-offset", "0")["inserted"] == 0
    assert scene.left_behind() == []


@pytest.mark.parametrize("compare", ["log", "range"])
def test_batch_completed_in_part_is_left_alone(scene: ShardedScene, compare: str) -> None:
    """The offset of one partition has passed it. The owner of another one still repeats all of it, and
    looks for its rows in its own shard, not where a replay would insert them."""
    events = pool(400, seed=5)
    scene.produce(events)
    scene.store()
    log = scene.identity()
    ranges = (PartitionRange(0, 50, 100), PartitionRange(1, 60, 100))
    scene.commit(metadata=completed(scene.topic, log))
    scene.commit({1: 60}, Intent(scene.topic, log, ranges).on_shard("1").metadata())
    of_batch = list(scene.log({0: (55, 65)}))
    others = list(scene.log({0: (10, 20), 2: (90, 100)}))
    delete(scene, [*of_batch, *others])
    scene.settings["CLICKHOUSE_SHARD_WEIGHTS"] = "0,1"  # not where the batch is

    report = scene.replay("--from-offset", "0", "--compare", compare)
    assert report["inserted"] == len(others) == scene.rows_by_shard()[1]
    with scene.working():
        wait_until(lambda: scene.lag() == 0, 60)
    assert scene.table() == scene.log()
    assert scene.replay("--from-offset", "0")["inserted"] == 0


def repeat_everything(scene: ShardedScene, stored: Sequence[Multiset]) -> None:
    """Repeat the rows that each shard had, as a worker does that wakes up late."""
    with ClickHouseShards(scene.shard_settings, client_name="tests") as shards:
        shards.require_identities()
        for number, rows in enumerate(stored, 1):
            columns = list(zip(*rows.elements(), strict=True))
            insert_repeated(shards.sink(str(number)), columns, f"late/{number}")


def delete(scene: ShardedScene, rows: Iterable[tuple[object, ...]]) -> None:
    numbers = ", ".join(str(json.loads(str(row[4]))["n"]) for row in rows)
    for first, _ in scene.cluster.shards:
        scene.execute(
            first,
            f"ALTER TABLE {scene.clickhouse.table} DELETE WHERE JSONExtractInt(properties, 'n') IN "
            f"({numbers}) SETTINGS mutations_sync = 2",
        )


def inner_rows(scene: ShardedScene, events: Sequence[bytes]) -> list[tuple[object, ...]]:
    """Return the rows of some records whose neighbours in their partition are in the same shard."""
    stored = scene.tables_by_shard()
    rows: list[tuple[object, ...]] = [
        (*row[:4], row.properties.decode()) for row in map(decode, events)
    ]
    shards = [int(row in stored[1]) for row in rows]
    found = []
    for number in range(40, len(rows) - 40, 40):
        around = shards[number % 4 :: 4][number // 4 - 5 : number // 4 + 6]
        if len(set(around)) == 1:
            found.append(rows[number])
    return found


def test_rebuild_of_shards_survives_late_repeats(scene: ShardedScene) -> None:
    events = pool(EVENTS, seed=3)
    scene.produce(events)
    scene.ingest()
    stored = scene.tables_by_shard()
    lost = inner_rows(scene, events)
    assert lost
    delete(scene, lost)
    # Rows that Kafka does not hold twice, in the second shard.
    surplus = list(itertools.islice(stored[0] - Counter(lost), 30))
    with ClickHouseShards(scene.shard_settings, client_name="tests") as shards:
        shards.require_identities()
        shards.sink("2").insert_block(list(zip(*surplus, strict=True)), None, None)
    report = scene.replay("--from-offset", "0", "--mode", "rebuild")
    assert report["inserted"] == EVENTS
    assert scene.tables_by_shard() == stored
    assert scene.table() == scene.log()
    assert scene.rows_by_shard(replica=1) == scene.rows_by_shard()
    assert scene.left_behind() == []
    repeat_everything(scene, stored)
    assert scene.tables_by_shard() == stored


def test_killed_rebuild_of_shards_is_resumed(scene: ShardedScene) -> None:
    scene.produce(random_events(EVENTS))
    scene.ingest()
    before = scene.tables_by_shard()
    scene.lose()
    killed = scene.start("--from-offset", "0", "--mode", "rebuild")
    wait_until(lambda: scene.has_table("build"))
    kill(killed)
    replay_id = scene.unfinished()
    assert replay_id is not None
    scene.replay("--resume", replay_id)
    assert scene.table() == scene.log()
    assert scene.left_behind() == []
    assert sum(map(Counter.total, before)) == EVENTS == sum(scene.rows_by_shard())


def test_replay_is_resumed_on_another_replica(
    kafka: ApacheKafka, cluster: ClickHouseCluster, tmp_path: Path
) -> None:
    """The server of the staging tables is killed while it reads; it comes back after the end."""
    with ReplicatedScene(kafka, cluster, tmp_path) as scene:
        first, replica = scene.nodes
        scene.produce(random_events(EVENTS))
        scene.ingest()
        scene.lose()
        started = scene.start("--from-offset", "0", "--rate", "1000")
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
        wait_until(lambda: bool(children.read_text() and scene.journal(replica, "plan")))
        first.kill()
        started.terminate()
        _, err = started.communicate(timeout=60)
        assert b"replay not finished; to resume it: " in err
        replay_id = err.decode().rpartition("--resume ")[2].split()[0]
        # For so long it waits for inserts of the lost server.
        scene.settings["CLICKHOUSE_TIMEOUT"] = "6"
        scene.replay("--resume", replay_id)
        assert scene.rows_of(replica) == scene.log()
        first.start()
        assert scene.replay("--from-offset", "0")["inserted"] == 0
        assert scene.table() == scene.log()
        assert scene.left_behind() == []


def test_fill_waits_for_every_replica(scene: ShardedScene) -> None:
    """A replica that is away may come back without rows, and be read."""
    scene.produce(random_events(100))
    scene.ingest()
    one = scene.settings["CLICKHOUSE_HOST"].rpartition(",")[0]
    refused = call(
        "replay", "--from-offset", "0", settings=scene.settings | {"CLICKHOUSE_HOST": one}
    )
    assert refused.returncode == Exit.CONFIG
    assert "cluster octane has 4 servers, and CLICKHOUSE_HOST lists 3" in refused.stderr
