"""Faults around a pending batch: who recovers it, how often, and what has changed meanwhile.

Each holds ClickHouse back until batches are announced and not inserted, and breaks something then.
"""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from octane_analytics.pipeline.intents import Intent, pending_intent
from octane_analytics.types import Commit, OffsetRange, PartitionRange
from tests.support import version_1
from tests.tools.faults.audit import NUMBER, wait_until
from tests.tools.faults.engines import EMBEDDED_BROKERS
from tests.tools.faults.group import (
    await_pending,
    commit,
    committed,
    group_of,
    insert_under,
    pending,
)
from tests.tools.faults.stack import Stack
from tests.tools.kafka.proxy import KafkaProxy

_HOLD_SECONDS = 5.0
_HOLD_ATTEMPTS = 8
_REFUSED_EVERY = 20
_ARRIVAL_SECONDS = 60.0
_COMMIT_TIMEOUT_MS = 1_500
_SASL = tuple(f"KAFKA_RDKAFKA_SASL_{name}" for name in ("MECHANISM", "USERNAME", "PASSWORD"))


def spread_recovery(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill the one worker that announced a batch of all partitions; three new ones recover it."""
    usual, breaks = stack.procs, 0
    while breaks == 0 or time.monotonic() < deadline:
        stack.restart(1)
        with _held_batches(stack, rng) as held:
            (intent,) = held
            assert len(intent.ranges) == stack.shape.partitions
            stack.command.kill()
        stack.command.start(3)
        breaks += 1
        time.sleep(stack.session_seconds + rng.uniform(1.0, 2.0))
    stack.restart(usual)
    return breaks


def torn_recovery(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Kill ClickHouse while all workers recover batches, of which it has the token and some rows."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        with _held_batches(stack, rng):
            _kill_workers(stack)
            with group_of(stack) as group:
                left = pending(stack, group)  # a worker may have gone on until it was killed
            for intent in left:
                if rng.random() < 0.7:
                    insert_under(stack, intent.token(), intent.ranges, is_torn=True)
        for _ in range(rng.randint(1, 4)):
            time.sleep(rng.uniform(0.1, 1.0))
            stack.engines.clickhouse.kill()
            stack.engines.clickhouse.start()
        breaks += 1
        time.sleep(rng.uniform(1.0, 2.0))
    return breaks


def leader_away(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Take the leader of one partition away during recovery: only batches that name it may wait."""
    kafka, breaks = stack.engines.embedded, 0
    away = EMBEDDED_BROKERS
    kafka.set_group_coordinator(stack.group, 1)
    while breaks == 0 or time.monotonic() < deadline:
        chosen = rng.randrange(stack.shape.partitions)
        for number in range(stack.shape.partitions):
            leader = away if number == chosen else rng.randint(1, away - 1)
            kafka.set_partition_leader(stack.topic, number, leader)
        time.sleep(1.0)
        with _held_batches(stack, rng) as held:
            _kill_workers(stack)
            kafka.set_broker_down(away)
        try:
            _await_recovery(stack, {i for i in held if i.range_of(chosen) is None})
            with group_of(stack) as group:
                waiting = pending(stack, group)
            missing = {i for i in held if i.range_of(chosen)} - waiting
            assert not missing, f"inserted without partition {chosen}: {missing}"
        finally:
            kafka.set_broker_up(away)
        breaks += 1
        time.sleep(rng.uniform(1.0, 2.0))
    return breaks


def trimmed_batch(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Remove the first records of pending batches, as retention does: the rest is inserted."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        with _held_batches(stack, rng) as held:
            stack.command.kill()
            ranges = [rng.choice(intent.ranges) for intent in held]
            before = {item.partition: rng.randint(item.first + 1, item.end) for item in ranges}
            first = {item.partition: item.first for item in ranges}
            removed = stack.audit.keep_before(before)
            stack.audit.excuse(p.number for p in removed if p.offset >= first[p.partition])
            for partition, offset in before.items():
                stack.engines.delete_records(stack.topic, partition, offset)
        stack.command.start(stack.procs)
        breaks += 1
        time.sleep(rng.uniform(1.0, 3.0))
    wait_until(
        lambda: "offsets were removed before they were read" in stack.command.log.read_text(),
        _ARRIVAL_SECONDS,
        "an error with the missing offsets",
    )
    return breaks


def changed_column(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Change what the table accepts between two attempts, with a new owner in between.

    Rows that were refused may be in the table, in the dead-letter topic, or in both.
    """
    breaks = 0
    constraint = f"ADD CONSTRAINT refused CHECK {NUMBER} % {_REFUSED_EVERY} != 3"
    while breaks == 0 or time.monotonic() < deadline:
        stack.load.pause()
        stack.audit.wait(stack.load.is_poison, time.monotonic() + _ARRIVAL_SECONDS)
        first = stack.load.sent
        stack.engines.execute(f"ALTER TABLE {stack.table} {constraint}")
        stack.load.resume()
        for _ in range(rng.randint(1, 3)):
            time.sleep(rng.uniform(0.2, 1.5))
            _kill_workers(stack)
        time.sleep(rng.uniform(0.0, 1.0))
        stack.engines.execute(f"ALTER TABLE {stack.table} DROP CONSTRAINT refused")
        refused = range(first, stack.load.sent)
        stack.audit.allow_refused(n for n in refused if n % _REFUSED_EVERY == 3)
        with _held_batches(stack, rng):
            _kill_workers(stack)
            _set_type(stack, "LowCardinality(String)")
        time.sleep(rng.uniform(0.5, 2.0))
        _set_type(stack, "String")
        breaks += 1
        time.sleep(rng.uniform(0.5, 1.5))
    return breaks


def lost_and_regained(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Let a worker lose its partitions and get them back while ClickHouse is away."""
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        with _held_batches(stack, rng):
            slot = rng.choice(sorted(stack.command.workers()))
            stack.command.signal_worker(slot, signal.SIGSTOP)
            time.sleep(stack.session_seconds + rng.uniform(1.0, 2.0))
            stack.command.signal_worker(slot, signal.SIGCONT)
            time.sleep(rng.uniform(0.5, 3.0))
        breaks += 1
        time.sleep(rng.uniform(1.0, 2.0))
    return breaks


def late_commits(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Hold commits back until they time out, and send them on once the worker may have joined again."""
    breaks = 0
    stack.stop()
    with KafkaProxy(stack.engines.apache.port) as proxy:
        direct = {
            "KAFKA_BOOTSTRAP_SERVERS": proxy.bootstrap_servers,
            "KAFKA_RDKAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "KAFKA_RDKAFKA_SOCKET_TIMEOUT_MS": str(_COMMIT_TIMEOUT_MS),
            **dict.fromkeys(_SASL, ""),
        }
        with stack.command.changed(direct):
            stack.command.start(stack.procs)
            while breaks == 0 or time.monotonic() < deadline:
                time.sleep(rng.uniform(0.5, 2.0))
                proxy.hold_commits()
                wait_until(lambda: proxy.held, _ARRIVAL_SECONDS, "a commit to hold back")
                # librdkafka repeats a commit by itself before it gives up.
                time.sleep(_COMMIT_TIMEOUT_MS / 1000 * rng.uniform(1.0, 6.0))
                if rng.random() < 0.3:
                    _kill_workers(stack)
                proxy.pass_commits()
                time.sleep(rng.uniform(0.0, stack.session_seconds + 2.0))
                breaks += proxy.release()
            stack.stop()
    stack.command.start(stack.procs)
    return breaks


def older_intents(stack: Stack, rng: random.Random, deadline: float) -> int:
    """Upgrade after a drain that version 1 did not finish: its intents are inserted under its tokens.

    Some of their rows are in the table, wholly or in part. A drain by this version leaves nothing to an
    older one: it reads from the committed offsets.
    """
    breaks = 0
    while breaks == 0 or time.monotonic() < deadline:
        stack.load.pause()
        stack.stop()
        stack.load.burst(rng.randint(500, 3000))
        with group_of(stack) as group:
            log, commits = group.identity(stack.topic), []
            for where, offset in committed(stack, group).items():
                assert pending_intent(stack.topic, where.partition, offset) is None
                assert version_1.parse_intent(offset.metadata) is None
                first, end = offset.offset or 0, group.bounds(where)[1]
                if first == end:
                    continue
                intent = version_1.Intent(OffsetRange(first, rng.randint(first + 1, end)), log)
                commits.append(Commit(where, first, intent.metadata()))
                fate = rng.choice(("announced", "inserted", "torn"))
                if fate != "announced":
                    part = PartitionRange(where.partition, intent.span.first, intent.span.end)
                    token = version_1.token(where, intent)
                    insert_under(stack, token, [part], is_torn=fate == "torn")
            commit(group, commits)
        stack.command.start(stack.procs)
        stack.load.resume()
        breaks += 1
        time.sleep(rng.uniform(1.0, 2.0))
    return breaks


@contextmanager
def _held_batches(stack: Stack, rng: random.Random) -> Iterator[set[Intent]]:
    """Hold ClickHouse back during the block, and until batches of all partitions are pending before."""
    proxy = stack.engines.proxy
    for attempt in range(_HOLD_ATTEMPTS):
        rng.choice((proxy.refuse, proxy.black_hole))()
        try:
            held = await_pending(stack, stack.shape.partitions, _HOLD_SECONDS)
            deadline = time.monotonic() + _HOLD_SECONDS
            while held != (held := _pending_later(stack)):
                # What is in the table already is completed by the next announcement.
                if time.monotonic() > deadline:
                    raise TimeoutError("the same batches twice")
            if sum(len(intent.ranges) for intent in held) < stack.shape.partitions:
                raise TimeoutError("batches of all partitions")
            break
        except TimeoutError:  # while partitions move, not all of them are in a batch
            if attempt == _HOLD_ATTEMPTS - 1:
                raise
            proxy.heal()
            # Workers start only while ClickHouse answers; on a busy machine that takes them seconds.
            time.sleep(1.0 + attempt)
    try:
        yield held
    finally:
        proxy.heal()


def _pending_later(stack: Stack) -> set[Intent]:
    time.sleep(2 * stack.shape.flush_seconds)
    with group_of(stack) as group:
        return pending(stack, group)


def _kill_workers(stack: Stack) -> None:
    """Kill every worker; the supervisor starts new ones, which become members as ever."""
    for slot in sorted(stack.command.workers()):
        stack.command.signal_worker(slot, signal.SIGKILL)


def _await_recovery(stack: Stack, batches: set[Intent]) -> None:
    with group_of(stack) as group:
        wait_until(
            lambda: not batches & pending(stack, group),
            _ARRIVAL_SECONDS,
            "the recovery of batches whose partitions can be read",
        )


def _set_type(stack: Stack, name: str) -> None:
    stack.engines.execute(
        f"ALTER TABLE {stack.table} MODIFY COLUMN user_id {name} SETTINGS mutations_sync = 2"
    )
