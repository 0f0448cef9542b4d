"""Faults of a Kafka cluster: brokers killed in turn, and the controller away during a rebalance."""

import random
import signal
import time

from tests.tools.faults.audit import wait_until
from tests.tools.faults.stack import Stack
from tests.tools.kafka.apache import KafkaError

_SYNC_SECONDS = 60.0


def brokers_in_turn(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill the group's coordinator, the leader of a partition, or any broker; start it again.

    The next follows once every replica is in sync: a write needs two of three.
    """
    cluster, breaks = stack.engines.cluster, 0
    while breaks < 2 or time.monotonic() < deadline:
        try:
            broker = [
                lambda: cluster.coordinator(stack.group),
                lambda: cluster.leader(stack.topic, rng.randrange(stack.shape.partitions)),
                lambda: rng.choice(cluster.brokers),
            ][breaks % 3]()
        except KafkaError:
            broker = rng.choice(cluster.brokers)
        if rng.random() < 0.7:
            broker.kill()
        else:
            broker.stop()
        breaks += 1
        time.sleep(rng.uniform(0.5, 3.0))
        broker.start()
        stack.engines.await_brokers_in_sync()
        time.sleep(rng.uniform(0.2, 1.0))
    return breaks


def controller_away(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill or pause the controller; kill a worker meanwhile: others take its partitions over."""
    cluster, breaks = stack.engines.cluster, 0
    while breaks == 0 or time.monotonic() < deadline:
        is_killed = rng.random() < 0.5
        if is_killed:
            cluster.controller.kill()
        else:
            cluster.controller.pause()
        try:
            time.sleep(rng.uniform(0.2, 1.0))
            wait_until(stack.command.workers, 30.0, "a worker to kill")
            stack.command.signal_worker(rng.choice(sorted(stack.command.workers())), signal.SIGKILL)
            before = stack.audit.rows()
            wait_until(
                lambda before=before: stack.audit.rows() > before,  # type: ignore[misc]
                _SYNC_SECONDS,
                "rows while the controller is away",
            )
            time.sleep(stack.session_seconds)
        finally:
            if is_killed:
                cluster.controller.start()
            else:
                cluster.controller.resume()
        breaks += 1
        stack.engines.await_brokers_in_sync()
    return breaks
