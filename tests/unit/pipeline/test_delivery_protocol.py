"""Every interleaving that hypothesis thinks of leaves each event in the table exactly once.

The model: a topic's logs with gaps in their offsets, a coordinator that takes commits from a
partition's owner only, a table that remembers deduplication tokens, and processes that use the real
Ledger and Batch. Answers get lost, processes die or fall asleep and wake up as zombies, inserts
arrive long after their sender is dead, partitions move, and the topic is made anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from octane_analytics.errors import DecodeError
from octane_analytics.events.event import Row
from octane_analytics.pipeline.batch import Batch
from octane_analytics.pipeline.delivery_ledger import DeliveryLedger, parse_intent
from octane_analytics.types import Commit, Committed, LogIdentity, Record, TopicPartition
from tests.fakes.decode import each
from tests.fakes.kafka import FakeRecord

PROCESSES = 3
PARTITIONS = [TopicPartition("octane.events", number) for number in range(2)]

processes = st.integers(0, PROCESSES - 1)
partitions = st.sampled_from(PARTITIONS)


@each
def decode(value: bytes | None) -> Row:
    if value is None:
        raise DecodeError("tombstone", "no value")
    return Row(0, "app", "event", value.decode(), b"{}")


class Refused(Exception):
    """The coordinator does not take the commit."""


class Coordinator:
    def __init__(self) -> None:
        self.committed = dict.fromkeys(PARTITIONS, Committed(None, ""))
        self.owners: dict[TopicPartition, Process] = {}

    def commit(self, process: Process, commits: list[Commit]) -> None:
        if any(self.owners.get(commit.partition) is not process for commit in commits):
            raise Refused
        for commit in commits:
            self.committed[commit.partition] = Committed(commit.offset, commit.metadata)


class Table:
    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.tokens: set[str] = set()

    def insert(self, events: list[str], token: str | None) -> None:
        if token in self.tokens:
            return
        if token is not None:
            self.tokens.add(token)
        self.count.update(events)


class Topic:
    def __init__(self) -> None:
        self.made = 0
        self.events = 0
        self.tombstones = 0
        self.logs: dict[TopicPartition, list[FakeRecord | None]] = {}
        self.remake()

    @property
    def identity(self) -> LogIdentity:
        return LogIdentity("cluster", f"topic-{self.made}", "")

    def remake(self) -> None:
        self.made += 1
        self.logs = {partition: [] for partition in PARTITIONS}

    def append(self, partition: TopicPartition, kind: str) -> None:
        log = self.logs[partition]
        value = None
        if kind == "event":
            value = b"e%d" % self.events
            self.events += 1
        log.append(None if kind == "gap" else FakeRecord(partition, len(log), value))

    def read(self, partition: TopicPartition, first: int, count: int) -> Sequence[Record]:
        return [r for r in self.logs[partition][first:] if r is not None][:count]

    def expected(self) -> Counter[str]:
        return Counter(
            record.payload.decode()
            for log in self.logs.values()
            for record in log
            if record is not None and record.payload is not None
        )


@dataclass
class Process:
    """One worker. `batches` is what it reads into, `flights` what it is about to insert."""

    ledger: DeliveryLedger = field(default_factory=DeliveryLedger)
    batches: dict[TopicPartition, Batch] = field(default_factory=dict)
    flights: dict[TopicPartition, Batch] = field(default_factory=dict)

    def forget(self, partition: TopicPartition) -> None:
        self.ledger.forget(partition)
        self.batches.pop(partition, None)
        self.flights.pop(partition, None)


class Delivery(Protocol):
    """How a process gets a batch from memory into the table."""

    def take_off(self, world: World, process: Process, partition: TopicPartition) -> None: ...

    def announce(
        self, world: World, process: Process, partition: TopicPartition, is_lost: bool
    ) -> None: ...

    def token(self, process: Process, partition: TopicPartition) -> str | None: ...


class Announced:
    """The protocol: intent, insert under the token, done."""

    def take_off(self, world: World, process: Process, partition: TopicPartition) -> None:
        batch = process.batches[partition]
        process.flights[partition] = batch
        process.batches[partition] = Batch(partition, batch.end)

    def announce(
        self, world: World, process: Process, partition: TopicPartition, is_lost: bool
    ) -> None:
        spans = {partition: process.flights[partition].span}
        world.coordinator.commit(process, process.ledger.announce(spans))
        if not is_lost:
            process.ledger.accept(spans)

    def token(self, process: Process, partition: TopicPartition) -> str | None:
        return process.ledger.token(partition)


class Unannounced(Announced):
    """What everybody does: insert, then commit."""

    def announce(
        self, world: World, process: Process, partition: TopicPartition, is_lost: bool
    ) -> None:
        pass

    def token(self, process: Process, partition: TopicPartition) -> str | None:
        return None


class Tokenless(Announced):
    """The protocol without ClickHouse's part in it."""

    def token(self, process: Process, partition: TopicPartition) -> str | None:
        return None


class World:
    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.topic = Topic()
        self.coordinator = Coordinator()
        self.table = Table()
        self.processes = [Process() for _ in range(PROCESSES)]
        self.late: list[tuple[list[str], str | None]] = []
        """Inserts that were sent and have not arrived."""
        for partition in PARTITIONS:
            self.assign(self.processes[0], partition)

    def assign(self, process: Process, partition: TopicPartition) -> None:
        self.coordinator.owners[partition] = process
        committed = self.coordinator.committed[partition]
        start = process.ledger.assign(partition, committed, self.topic.identity)
        until = None if start.recovering is None else start.recovering.end
        process.flights.pop(partition, None)
        process.batches[partition] = Batch(partition, start.offset or 0, fixed_end=until)

    def poll(self, process: Process, partition: TopicPartition, count: int) -> None:
        batch = process.batches.get(partition)
        if batch is None or batch.is_complete:
            return
        records = self.topic.read(partition, batch.end, count)
        batch.append(records, decode, now=0.0)
        if len(records) < count:
            batch.advance(len(self.topic.logs[partition]))  # told of the partition's end

    def take_off(self, process: Process, partition: TopicPartition) -> None:
        batch = process.batches.get(partition)
        if batch is None or partition in process.flights:
            return
        if batch.is_complete if batch.fixed_end is not None else batch.end > batch.first:
            self.delivery.take_off(self, process, partition)

    def announce(self, process: Process, partition: TopicPartition, is_lost: bool) -> None:
        flight = process.flights.get(partition)
        if flight is not None and process.ledger.token(partition) is None:
            self.delivery.announce(self, process, partition, is_lost)

    def insert(self, process: Process, partition: TopicPartition, outcome: str) -> None:
        flight = process.flights.get(partition)
        if flight is None:
            return
        if self.delivery.token(process, partition) is None and type(self.delivery) is Announced:
            return  # not announced
        events = [user.decode() for user in flight.columns[3]]
        token = self.delivery.token(process, partition)
        if outcome == "late":
            self.late.append((events, token))
        if outcome in ("done", "answer lost") and flight.rows:
            self.table.insert(events, token)
        if outcome == "done":
            del process.flights[partition]
            process.ledger.inserted(partition, flight.span)

    def complete(self, process: Process, which: list[TopicPartition], is_lost: bool) -> None:
        commits = process.ledger.completions([p for p in which if p in process.ledger])
        if commits:
            self.coordinator.commit(process, commits)
            if not is_lost:
                process.ledger.completed(commits)

    def deliver(self, process: Process, partition: TopicPartition) -> None:
        """One batch all the way, nothing going wrong."""
        self.take_off(process, partition)
        self.announce(process, partition, is_lost=False)
        self.insert(process, partition, "done")

    def arrive(self, number: int) -> None:
        if self.late:
            events, token = self.late.pop(number % len(self.late))
            if events:
                self.table.insert(events, token)

    def revoke(self, partition: TopicPartition, to: Process, *, finishes: bool) -> None:
        owner = self.coordinator.owners[partition]
        if partition in owner.ledger:
            if finishes:
                quietly(lambda: self.announce(owner, partition, is_lost=False))
                self.insert(owner, partition, "done")
            quietly(lambda: self.complete(owner, [partition], is_lost=False))
        owner.forget(partition)
        self.assign(to, partition)

    def crash(self, number: int) -> None:
        """The process is gone, and the one that takes its place finds what it has left."""
        dead, fresh = self.processes[number], Process()
        self.processes[number] = fresh
        for partition, owner in list(self.coordinator.owners.items()):
            if owner is dead:
                self.assign(fresh, partition)

    def remake_topic(self) -> None:
        """No worker runs meanwhile; those that have been asleep since wake up as zombies."""
        self.topic.remake()
        for partition in PARTITIONS:
            owner = self.coordinator.owners[partition]
            flight, token = owner.flights.get(partition), self.delivery.token(owner, partition)
            if flight is not None and token is not None:
                self.late.append((list(flight.columns[3]), token))
            self.assign(owner, partition)

    def drain(self) -> None:
        """One last owner delivers everything; then all that was ever sent arrives."""
        self.processes = [Process()]
        for partition in PARTITIONS:
            self.assign(self.processes[0], partition)
            for _ in range(2):  # what was announced, then the rest
                self.poll(self.processes[0], partition, 10_000)
                self.deliver(self.processes[0], partition)
            self.complete(self.processes[0], [partition], is_lost=False)
        while self.late:
            self.arrive(0)

    def check(self) -> None:
        expected = self.topic.expected()
        for event, count in self.table.count.items():
            assert count == 1, f"{event} is there {count} times"
        missing = expected.keys() - self.table.count.keys()
        assert not missing, f"lost: {sorted(missing)}"
        for partition in PARTITIONS:
            end = len(self.topic.logs[partition])
            if end:  # an empty log that was made anew has nothing to commit yet
                committed = self.coordinator.committed[partition]
                intent = parse_intent(committed.metadata)
                assert committed.offset == end
                assert intent is not None
                assert not intent.is_pending


def quietly(act: Callable[[], None]) -> None:
    try:
        act()
    except Refused:
        return


class Interleavings(RuleBasedStateMachine):
    """Everything that can happen, in any order; at the end every event counts once."""

    delivery: Delivery = Announced()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.delivery)

    @rule(
        partition=partitions, kinds=st.lists(st.sampled_from(["event", "gap", "bad"]), max_size=5)
    )
    def append(self, partition: TopicPartition, kinds: list[str]) -> None:
        for kind in kinds:
            self.world.topic.append(partition, kind)

    @rule(number=processes, partition=partitions, count=st.integers(1, 6))
    def poll(self, number: int, partition: TopicPartition, count: int) -> None:
        self.world.poll(self.world.processes[number], partition, count)

    @rule(number=processes, partition=partitions)
    def take_off(self, number: int, partition: TopicPartition) -> None:
        self.world.take_off(self.world.processes[number], partition)

    @rule(number=processes, partition=partitions, is_lost=st.booleans())
    def announce(self, number: int, partition: TopicPartition, is_lost: bool) -> None:
        process = self.world.processes[number]
        quietly(lambda: self.world.announce(process, partition, is_lost))

    @rule(
        number=processes,
        partition=partitions,
        outcome=st.sampled_from(["done", "answer lost", "not done", "late"]),
    )
    def insert(self, number: int, partition: TopicPartition, outcome: str) -> None:
        self.world.insert(self.world.processes[number], partition, outcome)

    @rule(number=processes, partition=partitions, count=st.integers(1, 6))
    def deliver(self, number: int, partition: TopicPartition, count: int) -> None:
        process = self.world.processes[number]
        self.world.poll(process, partition, count)
        quietly(lambda: self.world.deliver(process, partition))

    @rule(number=processes, is_lost=st.booleans())
    def complete(self, number: int, is_lost: bool) -> None:
        process = self.world.processes[number]
        quietly(lambda: self.world.complete(process, PARTITIONS, is_lost))

    @rule(partition=partitions, to=processes, finishes=st.booleans())
    def revoke(self, partition: TopicPartition, to: int, finishes: bool) -> None:
        self.world.revoke(partition, self.world.processes[to], finishes=finishes)

    @rule(partition=partitions, to=processes)
    def move_behind_its_owners_back(self, partition: TopicPartition, to: int) -> None:
        process = self.world.processes[to]
        if self.world.coordinator.owners[partition] is not process:
            self.world.assign(process, partition)

    @rule(number=processes)
    def notice(self, number: int) -> None:
        process = self.world.processes[number]
        for partition in PARTITIONS:
            if self.world.coordinator.owners[partition] is not process:
                process.forget(partition)

    @rule(number=processes)
    def crash(self, number: int) -> None:
        self.world.crash(number)

    @rule(number=st.integers(0, 20))
    def arrive(self, number: int) -> None:
        self.world.arrive(number)

    @rule()
    def remake_topic(self) -> None:
        self.world.remake_topic()

    @invariant()
    def nothing_is_there_twice(self) -> None:
        assert max(self.world.table.count.values(), default=0) <= 1

    def teardown(self) -> None:
        self.world.drain()
        self.world.check()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class UnannouncedInterleavings(Interleavings):
    delivery = Unannounced()


class TokenlessInterleavings(Interleavings):
    delivery = Tokenless()


@pytest.mark.parametrize("machine", [UnannouncedInterleavings, TokenlessInterleavings])
def test_model_finds_duplicates_of_weaker_protocols(
    machine: type[RuleBasedStateMachine],
) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=300,
                stateful_step_count=60,
                deadline=None,
                database=None,
                derandomize=True,
                report_multiple_bugs=False,
                phases=[Phase.generate],  # that there is one is enough: it need not be the shortest
            ),
        )


@pytest.mark.parametrize("delivery", [Unannounced(), Tokenless()])
def test_crash_after_insert_duplicates_without_token(delivery: Delivery) -> None:
    world = World(delivery)
    (process, partition) = (world.processes[0], PARTITIONS[0])
    world.topic.append(partition, "event")
    world.poll(process, partition, 1)
    world.deliver(process, partition)
    world.crash(0)
    world.drain()
    with pytest.raises(AssertionError, match="e0 is there 2 times"):
        world.check()
