"""Random schedules of failures, rebalances and topic changes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octane_analytics.errors import Rebalancing
from octane_analytics.pipeline import intents
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.types import TopicPartition
from tests.fakes.group_member import Resent
from tests.fakes.kafka import TOPIC
from tests.support.ingest_rig import DOWN, Rig, Worker, event, names

_ACTIONS = (
    ("produce", 4),
    ("turn", 12),
    ("spoil", 1),
    ("skip", 1),
    ("refused", 1),
    ("wait", 2),
    ("insert lost", 2),
    ("insert fails", 2),
    ("commit lost", 1),
    ("commit fails", 1),
    ("commit rebalancing", 2),
    ("commit resent", 1),
    ("insert halved", 1),
    ("table changes", 1),
    ("dead letter lost", 1),
    ("dead letter fails", 1),
    ("poll fails", 1),
    ("assign fails", 1),
    ("leader", 1),
    ("offset refused", 2),
    ("move", 3),
    ("expire", 1),
    ("crash", 2),
    ("leave", 1),
)
actions = st.sampled_from([name for name, weight in _ACTIONS for _ in range(weight)])
schedules = st.lists(
    st.tuples(actions, st.integers(0, 7), st.integers(1, 6)), min_size=20, max_size=90
)
PARTITIONS = 4


class Chaotic:
    """Three workers over a few partitions, and one schedule of mishaps."""

    def __init__(
        self, delivery: Delivery, partitions: int = PARTITIONS, fetch_records: int = 4
    ) -> None:
        self.partitions = partitions
        self.fetch_records = fetch_records
        self.rig = Rig(
            partitions=partitions, delivery=delivery, size=3, flush_seconds=2.0, max_rows=8
        )
        self.rig.broker.is_balancing = False
        self.rig.table.refuses = lambda row: row.user_id.startswith("refused")
        self.valid: list[str] = []
        self.invalid = 0
        self.refused = 0
        self.workers = [self.rig.worker(fetch_records=self.fetch_records) for _ in range(3)]
        self.zombies: list[Worker] = []
        for partition in range(self.partitions):
            self.rig.broker.move(partition, self.workers[partition % 2].source)

    def act(self, action: str, which: int, amount: int) -> None:
        broker, table = self.rig.broker, self.rig.table
        match action:
            case "produce":
                fresh = names(len(self.valid), len(self.valid) + amount)
                self.valid += fresh
                for at, name in enumerate(fresh):
                    broker.append((which + at % 2) % self.partitions, event(name))
            case "spoil":
                self.invalid += 1
                broker.append(which % self.partitions, b"not an event")
            case "refused":
                self.refused += 1
                broker.append(which % self.partitions, event(f"refused{self.refused}"))
            case "skip":
                broker.skip(which % self.partitions, amount)
            case "turn":
                everybody = self.workers + self.zombies
                everybody[which % len(everybody)].turn(amount)
            case "wait":
                self.rig.clock.sleep(float(amount))
            case "insert lost":
                table.faults.push("insert", DOWN, is_done=True)
            case "insert fails":
                table.faults.push("insert", *[DOWN] * amount)
            case "commit lost":
                broker.faults.push("commit", DOWN, is_done=True)
            case "commit fails":
                broker.faults.push("commit", DOWN)
            case "commit rebalancing":
                broker.faults.push("commit", *[Rebalancing("settling")] * amount)
            case "commit resent":
                broker.faults.push("commit", Resent("settling"), is_done=amount % 2 == 0)
            case "insert halved":
                table.faults.push("half insert", DOWN)
            case "table changes":
                prefix = ("refused", "never")[amount % 2]
                table.refuses = lambda row: row.user_id.startswith(prefix)
            case "dead letter lost":
                broker.faults.push("dead_letters", DOWN, is_done=True)
            case "dead letter fails":
                broker.faults.push("dead_letters", *[DOWN] * amount)
            case "poll fails":
                broker.faults.push("poll", DOWN)
            case "assign fails":
                broker.faults.push("committed", DOWN)
                broker.faults.push("log_identity", DOWN)
            case "leader":
                self.workers[which % 3].reader.leaderless ^= {amount % self.partitions}
            case "offset refused":
                partition = which % self.partitions
                end = broker.logs[TopicPartition(TOPIC, partition)].end
                broker.refused ^= {(partition, max(0, end - amount % 3))}
            case "move":
                broker.move(amount % self.partitions, self.workers[which % 3].source)
            case "expire":
                self.expire(self.workers[which % 3], self.workers[(which + 1) % 3])
            case "crash":
                self.crash(which % 3)
            case "leave":
                self.leave(which % 3)

    def expire(self, worker: Worker, heir: Worker) -> None:
        """Its session ends; it may go on for a while before it notices."""
        owned = worker.source.assignment
        self.rig.broker.expire(worker.source)
        for partition in owned:
            self.rig.broker.move(partition.partition, heir.source)

    def crash(self, index: int) -> None:
        dead = self.workers[index]
        self.workers[index] = self.rig.worker(fetch_records=self.fetch_records)
        self.expire(dead, self.workers[index])
        self.inherit(dead, index)
        self.zombies.append(dead)  # it was only asleep, and acts some time later

    def inherit(self, dead: Worker, index: int) -> None:
        for where, target in list(self.rig.broker.targets.items()):
            if target is dead.source:
                self.rig.broker.move(where.partition, self.workers[index].source)

    def leave(self, index: int) -> None:
        worker = self.workers[index]
        self.workers[index] = self.rig.worker(fetch_records=self.fetch_records)
        worker.ingest.drain(3.0)
        worker.source.close()
        self.inherit(worker, index)
        for partition in range(self.partitions):
            if TopicPartition(TOPIC, partition) not in self.rig.broker.targets:
                self.rig.broker.move(partition, self.workers[index].source)

    def finish(self) -> None:
        self.rig.broker.faults.clear()
        self.rig.table.faults.clear()
        self.rig.broker.refused.clear()
        for worker in self.workers + self.zombies:
            worker.reader.leaderless = set()
        for _ in range(600):
            for worker in self.workers + self.zombies:
                worker.turn()
            # A member that joins again has lost its partitions, which go to the first one here.
            for partition in range(self.partitions):
                self.rig.broker.move(partition, self.workers[0].source)
            self.rig.clock.sleep(1.0)
            if self.rig.broker.is_settled():
                break
        assert self.rig.broker.is_settled(), self.rig.broker.committed
        self.rig.clock.sleep(100.0)
        for worker in self.workers + self.zombies:
            worker.turn(2)

    def check(self) -> None:
        refused = {f"refused{number + 1}" for number in range(self.refused)}
        dead = {
            (r.record.partition(), r.record.offset()): (r.record.value() or b"").decode()
            for r in self.rig.broker.dead_letters
        }
        invalid = [value for value in dead.values() if "refused" not in value]
        dead_refused = {name for name in refused if any(f'"{name}"' in v for v in dead.values())}
        assert len(invalid) == self.invalid
        # A table that changed its mind may hold a row that a killed worker had dead-lettered.
        assert self.rig.table.count().keys() | dead_refused == {*self.valid, *refused}


@given(schedules)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_schedule_inserts_each_event_once(
    steps: list[tuple[str, int, int]],
) -> None:
    _run_exactly_once(Chaotic(Delivery.EXACTLY_ONCE), steps)


def _run_exactly_once(chaos: Chaotic, steps: list[tuple[str, int, int]]) -> None:
    for step in steps:
        chaos.act(*step)
    chaos.finish()
    chaos.check()
    assert set(chaos.rig.table.count().values()) <= {1}


@given(schedules, st.integers(1, 3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_schedule_of_narrow_batches_inserts_once(
    steps: list[tuple[str, int, int]], members: int
) -> None:
    """A batch has room for fewer partitions than the worker owns: the others wait for the next one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intents, "MAX_MEMBERS", members)
        _run_exactly_once(Chaotic(Delivery.EXACTLY_ONCE, 8, fetch_records=16), steps)


@given(schedules)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_schedule_inserts_each_event_at_least_once(
    steps: list[tuple[str, int, int]],
) -> None:
    chaos = Chaotic(Delivery.AT_LEAST_ONCE)
    for step in steps:
        chaos.act(*step)
    chaos.finish()
    chaos.check()
