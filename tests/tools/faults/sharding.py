"""Faults of several shards: their list changes while batches are pending, and any of them is killed."""

import random
import time

from tests.tools.faults.stack import Stack

_START_SECONDS = 180.0


def relist_shards(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill the worker command, and start it with shards left out and in another order, in turn with all.

    Batches of a shard that is left out are pending until it is listed again.
    """
    breaks = 0
    everything = list(stack.shards)
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.3, 2.0))
        stack.command.kill()
        listed = rng.sample(everything, rng.randint(1, len(everything)))
        with stack.command.changed(stack.list_shards(listed)):
            stack.command.start(stack.procs)
            time.sleep(rng.uniform(1.0, 4.0))
            stack.command.kill()
        breaks += 1
        rng.shuffle(everything)
        with stack.command.changed(stack.list_shards(everything)):
            stack.command.start(stack.procs)
    return breaks


def kill_shards(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill one shard or all of them, each with all its replicas, and start them again."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        time.sleep(rng.uniform(0.3, 2.0))
        shards = stack.shards
        numbers = rng.sample(shards, rng.choice([1, 1, len(shards)]))
        killed = [server for number in numbers for server in stack.engines.servers.shards[number]]
        for server in killed:
            server.kill()
            breaks += 1
        time.sleep(rng.uniform(0.0, 3.0))
        rng.shuffle(killed)
        for server in killed:
            server.start(_START_SECONDS)
            time.sleep(rng.choice([0.0, 0.0, 1.0]))
    return breaks
