"""Faults and their frequencies. Each scenario leaves everything working when it returns."""

import contextlib
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Consumer

from tests.tools.faults import hosts, kafka_cluster, recovery, replication, sharding
from tests.tools.faults.audit import wait_until
from tests.tools.faults.engines import APACHE, CLUSTER, EMBEDDED, EMBEDDED_BROKERS
from tests.tools.faults.stack import Stack

_BEFORE_DELETION_SECONDS = 60.0
"""Records that did not arrive in this time are deleted with their log and count as missing: on a busy
machine it must exceed the recovery time of the workers."""


@dataclass(frozen=True)
class Scenario:
    """A fault: `run` repeats it until the monotonic deadline, at least once, and returns the count."""

    name: str
    description: str
    run: Callable[[Stack, random.Random, float], int]
    brokers: tuple[str, ...] = (APACHE, EMBEDDED, CLUSTER)
    needs_intents: bool = False
    """True if it waits for announced batches, which at-least-once delivery has none of."""
    needs_shards: bool = False
    """True if it needs several shards."""
    fits_shards: bool = True
    """False if it changes or counts the rows of the only shard."""
    needs_replicas: bool = False
    """True if it needs several replicas in each shard, and the spare shard that these have."""

    def fits(self, broker: str, shards: int, replicas: int = 1) -> bool:
        """Return whether the scenario can run on this broker and number of shards and replicas."""
        is_single = shards * replicas == 1
        fits_shards = not self.needs_shards if is_single else self.fits_shards
        fits_replicas = replicas > 1 or not self.needs_replicas
        return broker in self.brokers and fits_shards and fits_replicas


def kill_worker(stack: Stack, rng: random.Random, deadline: float) -> int:
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.1, 0.9))
        workers = stack.command.workers()
        if workers:
            stack.command.signal_worker(rng.choice(sorted(workers)), signal.SIGKILL)
            breaks += 1
    return breaks


def kill_supervisor(stack: Stack, rng: random.Random, deadline: float) -> int:
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.5, 3.0))
        stack.command.kill()
        stack.command.start(stack.procs)
        breaks += 1
    return breaks


def kill_clickhouse(stack: Stack, rng: random.Random, deadline: float) -> int:
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.3, 2.0))
        stack.engines.clickhouse.kill()
        breaks += 1
        time.sleep(rng.uniform(0.0, 1.5))
        stack.engines.clickhouse.start()
    return breaks


def kill_kafka(stack: Stack, rng: random.Random, deadline: float) -> int:
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.5, 3.0))
        stack.engines.apache.kill()
        breaks += 1
        time.sleep(rng.uniform(0.0, 2.0))
        stack.engines.apache.start()
    return breaks


def expire_authentication(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Remove the password until every connection has expired, then restore it.

    Often for so long that workers lose their partitions, in the middle of an outage that made them
    pause, and get them back after it.
    """
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.5, 1.5))
        stack.engines.apache.expel()
        breaks += 1
        time.sleep(rng.uniform(3.5, stack.session_seconds + 4.0))
        stack.engines.apache.admit()
    return breaks


def move_leaders(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Move partitions and the group's coordinator between brokers."""
    kafka, breaks = stack.engines.embedded, 0
    brokers = range(1, EMBEDDED_BROKERS + 1)
    while breaks == 0 or time.monotonic() < deadline:
        for partition in range(stack.shape.partitions):
            kafka.set_partition_leader(stack.topic, partition, rng.choice(brokers))
        if rng.random() < 0.5:
            kafka.set_group_coordinator(stack.group, rng.choice(brokers))
        breaks += 1
        time.sleep(rng.uniform(0.2, 2.0))
    return breaks


def brokers_down(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Make one broker, or all, cut every connection and refuse new ones for a while."""
    kafka, breaks = stack.engines.embedded, 0
    while breaks == 0 or time.monotonic() < deadline:
        broker = rng.choice([None, *range(1, EMBEDDED_BROKERS + 1)])
        kafka.set_broker_down(broker)
        breaks += 1
        time.sleep(rng.uniform(0.2, 2.0))
        kafka.set_broker_up(broker)
        time.sleep(rng.uniform(0.2, 1.0))
    return breaks


def stop_clickhouse(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Pause longer than CLICKHOUSE_TIMEOUT: an insert is executed late, after its repetition."""
    seconds = max(stack.shape.clickhouse_seconds + 2.0, min(20.0, deadline - time.monotonic()))
    stack.engines.clickhouse.pause()
    time.sleep(seconds)
    stack.engines.clickhouse.resume()
    return 1


def zombie(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Stop a worker until its partitions are reassigned; it resumes in the middle of an insert."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.1, 0.6))
        wait_until(stack.command.workers, 30.0, "a worker to stop")
        slot = rng.choice(sorted(stack.command.workers()))
        if rng.random() < 0.5:
            stack.engines.proxy.delay(0.3)  # more likely to be caught between insert and answer
            time.sleep(0.5)
        stack.command.signal_worker(slot, signal.SIGSTOP)
        stack.engines.proxy.heal()
        breaks += 1
        time.sleep(stack.session_seconds + rng.uniform(1.5, 3.0))
        if slot in stack.command.workers():
            stack.command.signal_worker(slot, signal.SIGCONT)
        time.sleep(1.0)
    return breaks


def cut_answers(stack: Stack, rng: random.Random, deadline: float) -> int:
    return _cut(stack, rng, deadline, stack.engines.proxy.cut_answers)


def cut_inserts(stack: Stack, rng: random.Random, deadline: float) -> int:
    return _cut(stack, rng, deadline, stack.engines.proxy.cut_inserts)


def _cut(stack: Stack, rng: random.Random, deadline: float, arm: Callable[[int], None]) -> int:
    proxy = stack.engines.proxy
    before = proxy.cuts
    has_replicas = stack.engines.servers.cluster is not None
    while proxy.cuts == before or time.monotonic() < deadline:
        seen = proxy.cuts
        arm(rng.randint(1, 4))
        # Workers stay with the other replica for a while, once a connection was cut.
        is_enough = has_replicas and seen > before
        seconds = max(0.1, deadline - time.monotonic()) if is_enough else 90.0
        with contextlib.suppress(*([TimeoutError] if is_enough else [])):
            wait_until(lambda seen=seen: proxy.cuts > seen, seconds, "an insert to cut")  # type: ignore[misc]
        time.sleep(rng.uniform(0.0, 0.8))
    proxy.heal()
    return proxy.cuts - before


def refuse(stack: Stack, rng: random.Random, deadline: float) -> int:
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        stack.engines.proxy.refuse()
        breaks += 1
        time.sleep(rng.uniform(0.1, 2.0))
        stack.engines.proxy.heal()
        time.sleep(rng.uniform(0.1, 1.5))
    return breaks


def delay(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Delay responses, some beyond the timeout of their receiver."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        stack.engines.proxy.delay(rng.choice([0.1, 0.5, stack.shape.clickhouse_seconds + 0.5]))
        breaks += 1
        time.sleep(rng.uniform(0.5, stack.shape.clickhouse_seconds))
        stack.engines.proxy.heal()
        time.sleep(rng.uniform(0.1, 1.0))
    return breaks


def trickle(stack: Stack, rng: random.Random, deadline: float) -> int:
    stack.engines.proxy.trickle(rng.uniform(0.2, 0.6))
    time.sleep(max(2.0, deadline - time.monotonic()))
    stack.engines.proxy.heal()
    return 1


def black_hole(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Deliver requests in flight after their sender has timed out."""
    stack.engines.proxy.black_hole()
    time.sleep(max(stack.shape.clickhouse_seconds + 1.5, deadline - time.monotonic()))
    stack.engines.proxy.heal()
    return 1


def scale(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Scale up to two processes less than partitions, down to two, and back."""
    usual = stack.procs
    breaks = 0
    for procs in (1, 6, 2):
        stack.restart(procs)
        breaks += 1
        time.sleep(max(1.0, (deadline - time.monotonic()) / (4 - breaks)))
    stack.procs = usual
    return breaks


def rebalance_storm(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Let foreign members join, hold partitions idle, and leave."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        foreign = Consumer(
            {
                "bootstrap.servers": stack.bootstrap_servers,
                "group.id": stack.group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": int(stack.session_seconds * 1000),
                "heartbeat.interval.ms": 300,
                "log_level": 0,
            }
        )
        foreign.subscribe([stack.topic])
        breaks += 1
        end = time.monotonic() + rng.uniform(0.2, stack.session_seconds)
        while time.monotonic() < end:
            foreign.consume(1000, 0.1)
        foreign.close()
        time.sleep(rng.uniform(0.0, 0.5))
    return breaks


def recreate_topic(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Delete and recreate the topic under the same name: offsets begin at 0 again.

    What was in the log before counts as far as it had arrived; the new log has to arrive whole, no
    matter whether the workers saw the change, and whether it has outgrown their positions by then.
    Leader epochs begin at 0 too: the broker is restarted before, so that workers know of higher ones.
    """
    load, breaks = stack.load, 0
    while breaks == 0 or time.monotonic() < deadline:
        if stack.engines.broker == APACHE and (breaks == 0 or rng.random() < 0.3):
            stack.engines.apache.kill()
            stack.engines.apache.start()
            time.sleep(rng.uniform(0.5, 2.0))
        load.pause()
        stack.audit.wait(load.is_poison, time.monotonic() + _BEFORE_DELETION_SECONDS)
        stack.audit.keep()
        first = load.sent
        load.burst(rng.randint(0, 3000))
        stack.audit.excuse(range(first, load.sent))
        is_watched = breaks == 0 or rng.random() < 0.7
        if not is_watched:
            stack.stop()
        stack.engines.recreate_topic(stack.topic, stack.shape.partitions, rng.uniform(0.0, 2.0))
        breaks += 1
        load.renew()
        first = load.sent
        load.burst(rng.choice([0, 10, load.sent + 2000]))
        if not is_watched:
            stack.command.start(stack.procs)
        load.resume()
        time.sleep(rng.uniform(1.0, 3.0))
        stack.audit.doubt(range(first, load.sent))
    return breaks


def poison(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Make one record in a hundred invalid, in every way there is."""
    before = sum(stack.load.is_poison)
    stack.load.poison_ratio = 0.01
    while sum(stack.load.is_poison) == before or time.monotonic() < deadline:
        time.sleep(0.1)
    stack.load.poison_ratio = 0.0
    return sum(stack.load.is_poison) - before


def table_away(stack: Stack, rng: random.Random, deadline: float) -> int:
    away = f"{stack.table}_away"
    stack.execute(f"RENAME TABLE {stack.table} TO {away}")
    time.sleep(max(3.0, min(15.0, deadline - time.monotonic())))
    stack.execute(f"RENAME TABLE {away} TO {stack.table}")
    return 1


def rolling_restart(stack: Stack, rng: random.Random, deadline: float) -> int:
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.2, 2.0))
        stack.restart()
        breaks += 1
    return breaks


def twins(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Run two hosts of the same name, whose workers fence each other in turn."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        stack.twin.start(stack.procs)
        breaks += 1
        time.sleep(max(3.0, min(deadline - time.monotonic(), rng.uniform(3.0, 8.0))))
        if rng.random() < 0.5:
            stack.twin.kill()
        else:
            stack.twin.stop()
    return breaks


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("kill-worker", "kill -9 of one worker after the other", kill_worker),
        Scenario("kill-supervisor", "kill -9 of the supervisor, and a new start", kill_supervisor),
        Scenario("kill-clickhouse", "kill -9 of ClickHouse, and a new start", kill_clickhouse),
        Scenario("kill-kafka", "kill -9 of Kafka, and a new start", kill_kafka, (APACHE,)),
        Scenario(
            "expire-authentication",
            "the password is taken away until connections expire",
            expire_authentication,
            (APACHE,),
        ),
        Scenario(
            "brokers-in-turn",
            "kill -9 or stop of one of three brokers after the other",
            kafka_cluster.brokers_in_turn,
            (CLUSTER,),
        ),
        Scenario(
            "controller-away",
            "a worker is killed while the controller is away",
            kafka_cluster.controller_away,
            (CLUSTER,),
        ),
        Scenario(
            "move-leaders",
            "partitions and coordinator change brokers",
            move_leaders,
            (EMBEDDED,),
        ),
        Scenario("brokers-down", "one broker or all refuse", brokers_down, (EMBEDDED,)),
        Scenario("stop-clickhouse", "SIGSTOP of ClickHouse, past the time-out", stop_clickhouse),
        Scenario("zombie", "SIGSTOP of a worker past its session, then SIGCONT", zombie),
        Scenario("cut-answer", "the connection is cut before the answer to an insert", cut_answers),
        Scenario("cut-insert", "the connection is cut in the middle of an insert", cut_inserts),
        Scenario("refuse", "connections to ClickHouse are reset and refused", refuse),
        Scenario("delay", "answers are delayed, some past the time-out", delay),
        Scenario("trickle", "data comes through in drops", trickle),
        Scenario("black-hole", "nothing comes through, then everything at once", black_hole),
        Scenario("scale", "from the usual number of processes to 1, 6, 2", scale),
        Scenario("rebalance-storm", "a foreign member joins and leaves", rebalance_storm),
        Scenario("twins", "a second worker command under the same names", twins, (APACHE, CLUSTER)),
        Scenario(
            "host-away",
            "kill -9 of one of three hosts whole, which comes back under its name",
            hosts.host_away,
            (APACHE, CLUSTER),
        ),
        Scenario(
            "rolling-hosts",
            "SIGTERM and a new start of three hosts in turn",
            hosts.rolling_hosts,
            (APACHE, CLUSTER),
        ),
        Scenario("recreate-topic", "the topic is deleted and made again", recreate_topic),
        Scenario("poison", "one record in a hundred is invalid", poison),
        Scenario("table-away", "the table is renamed away, then back", table_away),
        Scenario(
            "relist-shards",
            "kill -9, and another list of shards, in turn with all of them",
            sharding.relist_shards,
            needs_shards=True,
        ),
        Scenario(
            "kill-shards",
            "kill -9 of one shard whole or of all, and a new start",
            sharding.kill_shards,
            needs_shards=True,
        ),
        Scenario(
            "kill-replica",
            "kill -9 of one replica of any shard, and a new start",
            replication.kill_replica,
            needs_replicas=True,
        ),
        Scenario(
            "zookeeper-away",
            "ZooKeeper is paused or killed",
            replication.zookeeper_away,
            needs_replicas=True,
        ),
        Scenario(
            "cut-replicas",
            "a replica is cut from the others or from ZooKeeper",
            replication.cut_replicas,
            needs_replicas=True,
        ),
        Scenario(
            "one-of-each",
            "kill -9 of a replica, a broker, a worker and a host at once",
            replication.one_of_each,
            needs_replicas=True,
        ),
        Scenario(
            "grow-shards",
            "a shard is added, then the list is reordered, host by host",
            replication.grow_shards,
            needs_replicas=True,
        ),
        Scenario("rolling-restart", "SIGTERM and a new start, several times", rolling_restart),
        Scenario(
            "spread-recovery",
            "a batch of all partitions is left to three new workers",
            recovery.spread_recovery,
            needs_intents=True,
            fits_shards=False,
        ),
        Scenario(
            "torn-recovery",
            "kill -9 of ClickHouse while several workers recover torn batches",
            recovery.torn_recovery,
            needs_intents=True,
            fits_shards=False,
        ),
        Scenario(
            "leader-away",
            "a partition of pending batches has no leader",
            recovery.leader_away,
            (EMBEDDED,),
            needs_intents=True,
            fits_shards=False,
        ),
        Scenario(
            "trimmed-batch",
            "retention removes a part of pending batches",
            recovery.trimmed_batch,
            needs_intents=True,
            fits_shards=False,
        ),
        Scenario(
            "changed-column",
            "the table accepts other rows at the next attempt",
            recovery.changed_column,
            needs_intents=True,
            fits_shards=False,
        ),
        Scenario(
            "lost-and-regained",
            "partitions are lost and regained while ClickHouse is away",
            recovery.lost_and_regained,
            needs_intents=True,
            fits_shards=False,
        ),
        Scenario(
            "late-commits",
            "commits time out, and arrive after that",
            recovery.late_commits,
            (APACHE,),
            needs_intents=True,
            fits_shards=False,
        ),
        Scenario(
            "older-intents",
            "version 1 of the protocol left pending batches",
            recovery.older_intents,
            (APACHE,),  # the mock cluster never takes commits from outside a group that had members
            needs_intents=True,
            fits_shards=False,
        ),
    )
}
