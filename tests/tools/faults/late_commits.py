"""Offset commits that time out and reach the coordinator late, or after their sender has died."""

import random
import signal
import time

from tests.tools.faults.audit import wait_until
from tests.tools.faults.stack import Stack
from tests.tools.kafka.proxy import KafkaProxy

_REQUEST_SECONDS = 1.5
"""Time after which the outcome of a commit is unknown to its worker."""
_HELD_SECONDS = 60.0
_REJOINED = "rejoining the group with a new client"


def late_commits(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Hold commits back until they have timed out; deliver them before or after workers join again."""
    port = int(stack.engines.apache.sasl_bootstrap_servers.rpartition(":")[2])
    breaks = 0
    with KafkaProxy(port) as proxy:
        stack.stop()
        stack.command.configure(
            KAFKA_BOOTSTRAP_SERVERS=proxy.bootstrap_servers,
            KAFKA_RDKAFKA_SOCKET_TIMEOUT_MS=f"{_REQUEST_SECONDS * 1000:.0f}",
        )
        stack.command.start(stack.procs)
        try:
            while breaks == 0 or time.monotonic() < deadline:
                _delay_commits(stack, rng, proxy)
                breaks += 1
        finally:
            proxy.pass_commits()
            proxy.release()
            stack.command.configure()
            stack.restart()
    return breaks


def _delay_commits(stack: Stack, rng: random.Random, proxy: KafkaProxy) -> None:
    rejoined = _rejoined(stack)
    time.sleep(rng.uniform(0.5, 2.0))
    proxy.hold_commits()
    wait_until(lambda: proxy.held, _HELD_SECONDS, "a commit to hold back")
    fate = rng.choice(("stored before it is sent again", "unknown", "unknown", "sender killed"))
    if fate == "unknown":
        wait_until(lambda: _rejoined(stack) > rejoined, _HELD_SECONDS, "a worker to join again")
    else:
        time.sleep(rng.uniform(0.0, 2 * _REQUEST_SECONDS))
    if fate == "sender killed":
        for slot in sorted(stack.command.workers()):
            stack.command.signal_worker(slot, signal.SIGKILL)
    if rng.random() < 0.5:
        proxy.pass_commits()
        time.sleep(rng.uniform(0.0, stack.session_seconds + 2.0))
    proxy.release()
    proxy.pass_commits()
    proxy.release()


def _rejoined(stack: Stack) -> int:
    """Return how often a worker has joined again because the outcome of a commit was unknown."""
    return stack.command.log.read_text().count(_REJOINED)
