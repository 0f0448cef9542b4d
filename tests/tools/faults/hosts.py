"""Faults of several hosts in one group: one dies whole, comes back, or all restart in turn."""

import random
import time

from tests.tools.faults.audit import wait_until
from tests.tools.faults.stack import Stack
from tests.tools.faults.worker_command import WorkerCommand, stop_cleanly


def host_away(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill all processes of one of three hosts; it comes back under its name, soon or late."""
    hosts, breaks = _start_neighbours(stack), 0
    while breaks == 0 or time.monotonic() < deadline:
        await_progress(stack)
        host = rng.choice(hosts)
        host.kill()
        breaks += 1
        time.sleep(rng.choice([0.2, stack.session_seconds + rng.uniform(1.0, 3.0)]))
        host.start(stack.procs)
    _stop_neighbours(stack)
    return breaks


def rolling_hosts(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Restart three hosts in turn, as an upgrade does."""
    hosts, breaks = _start_neighbours(stack), 0
    while breaks < len(hosts) or time.monotonic() < deadline:
        host = hosts[breaks % len(hosts)]
        stop_cleanly(host)
        time.sleep(rng.uniform(0.1, 1.0))
        host.start(stack.procs)
        breaks += 1
        await_progress(stack)
    _stop_neighbours(stack)
    return breaks


def _start_neighbours(stack: Stack) -> list[WorkerCommand]:
    for neighbour in stack.neighbours:
        if neighbour not in stack.hosts:
            neighbour.start(stack.procs)
    return [stack.command, *stack.neighbours]


def _stop_neighbours(stack: Stack) -> None:
    for neighbour in stack.neighbours:
        if neighbour not in stack.hosts:
            stop_cleanly(neighbour)


def await_progress(stack: Stack) -> None:
    before = stack.audit.rows()
    wait_until(lambda: stack.audit.rows() > before, 60.0, "rows of the hosts that are left")
