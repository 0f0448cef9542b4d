"""Faults of replicated shards: a replica, ZooKeeper or the network is away; a shard is added."""

import random
import signal
import time
from collections.abc import Callable

from tests.tools.cluster.nodes import ClickHouseCluster, Node
from tests.tools.faults.audit import wait_until
from tests.tools.faults.hosts import await_progress
from tests.tools.faults.stack import Stack
from tests.tools.faults.worker_command import stop_cleanly

_SESSION_SECONDS = 8.0
"""Session timeout of the replicas with ZooKeeper."""
_ROUND_SECONDS = 90.0
_START_SECONDS = 180.0
"""Time for the start of a server or broker on a busy machine."""


def kill_replica(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill any one replica and start it again; the other one of its shard serves meanwhile."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.3, 2.0))
        replica = rng.choice(_replicas(stack))
        replica.kill()
        breaks += 1
        time.sleep(rng.uniform(0.0, 4.0))
        replica.start(_START_SECONDS)
    return breaks


def zookeeper_away(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Pause or kill ZooKeeper, sometimes for longer than the sessions of the replicas."""
    zookeeper = _cluster(stack).zookeeper
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.3, 2.0))
        is_killed = rng.random() < 0.5
        if is_killed:
            zookeeper.kill()
        else:
            zookeeper.pause()
        breaks += 1
        time.sleep(rng.choice([rng.uniform(0.2, 3.0), _SESSION_SECONDS + rng.uniform(0.5, 3.0)]))
        if is_killed:
            zookeeper.start(_START_SECONDS)
        else:
            zookeeper.resume()
    return breaks


def cut_replicas(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Cut a replica from the one that fetches its parts, or from ZooKeeper: by resets, or in silence.

    In some rounds that replica is killed meanwhile, with the parts that only it has.
    """
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.2, 1.0))
        links = [link for link in stack.engines.servers.links if link.node in _replicas(stack)]
        link = rng.choice(links)
        proxy = rng.choice([link.parts, link.parts, link.zookeeper])
        rng.choice([proxy.refuse, proxy.black_hole])()
        breaks += 1
        is_long = rng.random() < 0.3
        time.sleep(_SESSION_SECONDS + 2.0 if is_long else rng.uniform(0.5, 4.0))
        is_killed = rng.random() < 0.4
        if is_killed:
            link.node.kill()
            time.sleep(rng.uniform(0.0, 2.0))
        proxy.heal()
        if is_killed:
            link.node.start(_START_SECONDS)
    return breaks


def one_of_each(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill a replica, a broker, a worker and a whole host at once; start all of them again."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        await_progress(stack)
        replica = rng.choice(_replicas(stack))
        host = rng.choice(stack.hosts)
        restarts: list[Callable[[], None]] = [lambda replica=replica: replica.start(_START_SECONDS)]  # type: ignore[misc]
        replica.kill()
        if len(stack.hosts) > 1:
            host.kill()
            restarts.append(lambda host=host: host.start(stack.procs))  # type: ignore[misc]
        broker = stack.engines.any_broker(rng)
        if broker is not None:
            broker.kill()
            restarts.append(lambda broker=broker: broker.start(_START_SECONDS))  # type: ignore[misc]
        survivors = [command for command in stack.hosts if command.is_running]
        for command in survivors[:1]:
            wait_until(command.workers, 30.0, "a worker to kill")
            command.signal_worker(rng.choice(sorted(command.workers())), signal.SIGKILL)
        breaks += 1
        time.sleep(rng.uniform(0.2, 3.0))
        rng.shuffle(restarts)
        for restart in restarts:
            restart()
            time.sleep(rng.choice([0.0, 1.0]))
        stack.engines.await_brokers_in_sync()
    return breaks


def grow_shards(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Add a shard: create the table there, then restart the hosts in turn with the longer list.

    Some hosts are killed with batches pending, others are stopped with SIGTERM. The order of the shards
    changes too. A table that has all shards gets the list in another order.
    """
    breaks = 0
    added = [n for n in range(len(stack.engines.servers.shards)) if n not in stack.shards]
    if added:
        stack.shards = [*stack.shards, added[0]]
        stack.create_tables()
    while breaks == 0 or time.monotonic() < deadline:
        listed = rng.sample(stack.shards, len(stack.shards))
        for command in stack.hosts:
            if rng.random() < 0.5:
                command.kill()
            else:
                stop_cleanly(command)
            command.change(stack.list_shards(listed))
            command.start(stack.procs)
            breaks += 1
            time.sleep(rng.uniform(0.2, 1.5))
    before = stack.audit.rows_by_shard()
    wait_until(
        lambda: all(
            now > was for now, was in zip(stack.audit.rows_by_shard(), before, strict=True)
        ),
        _ROUND_SECONDS,
        "rows in every shard",
    )
    return breaks


def _replicas(stack: Stack) -> list[Node]:
    cluster = _cluster(stack)
    return [node for number in stack.shards for node in cluster.shards[number]]


def _cluster(stack: Stack) -> ClickHouseCluster:
    cluster = stack.engines.servers.cluster
    assert cluster is not None, "the scenario needs replicas"
    return cluster
