"""Random schedules of failures, rebalances and topic changes."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octane_analytics.errors import Rebalancing
from octane_analytics.pipeline.batch_writer import Delivery
from octane_analytics.types import (
    TopicPartition,
)
from tests.fakes.kafka import TOPIC
from tests.support.ingest_rig import DOWN, Rig, Worker, event, names

_ACTIONS = (
    ("produce", 4),
    ("turn", 10),
    ("spoil", 1),
    ("skip", 1),
    ("refused", 1),
    ("wait", 2),
    ("insert lost", 2),
    ("insert fails", 2),
    ("commit lost", 2),
    ("commit fails", 2),
    ("commit rebalancing", 2),
    ("dead letter lost", 1),
    ("dead letter fails", 1),
    ("poll fails", 1),
    ("assign fails", 1),
    ("move", 2),
    ("expire", 1),
    ("crash", 2),
    ("leave", 1),
)
actions = st.sampled_from([name for name, weight in _ACTIONS for _ in range(weight)])
schedules = st.lists(
    st.tuples(actions, st.integers(0, 7), st.integers(1, 6)), min_size=20, max_size=90
)


class Chaotic:
    """Two or three workers over two partitions, with one schedule of failures."""

    def __init__(self, delivery: Delivery) -> None:
        self.rig = Rig(
            partitions=2, delivery=delivery, size=3, flush_seconds=2.0, max_rows=8, max_bytes=3000
        )
        self.rig.broker.is_balancing = False
        self.rig.table.refuses = lambda row: row.user_id.startswith("refused")
        self.valid: list[str] = []
        self.invalid = 0
        self.refused = 0
        self.workers = [self.rig.worker(fetch_records=4) for _ in range(3)]
        self.zombies: list[Worker] = []
        for partition in (0, 1):
            self.rig.broker.move(partition, self.workers[0].source)

    def run(self, steps: list[tuple[str, int, int]]) -> None:
        for action, which, amount in steps:
            self.act(action, which, amount)

    def act(self, action: str, which: int, amount: int) -> None:
        broker, table = self.rig.broker, self.rig.table
        match action:
            case "produce":
                fresh = names(len(self.valid), len(self.valid) + amount)
                self.valid += fresh
                broker.append(which % 2, *map(event, fresh))
            case "spoil":
                self.invalid += 1
                broker.append(which % 2, b"no event")
            case "refused":
                self.refused += 1
                broker.append(which % 2, event(f"refused{self.refused}"))
            case "skip":
                broker.skip(which % 2, amount)
            case "turn":
                self.turn(which, amount)
            case "wait":
                self.rig.clock.sleep(float(amount))
            case "insert lost":
                table.faults.push("insert", DOWN, is_done=True)
            case "insert fails":
                table.faults.push("insert", *[DOWN] * amount)
            case "commit lost":
                broker.faults.push("commit", DOWN, is_done=True)
            case "commit fails":
                broker.faults.push("commit", *[DOWN] * amount)
            case "commit rebalancing":
                broker.faults.push("commit", *[Rebalancing("settling")] * amount)
            case "dead letter lost":
                broker.faults.push("dead_letters", DOWN, is_done=True)
            case "dead letter fails":
                broker.faults.push("dead_letters", *[DOWN] * amount)
            case "poll fails":
                broker.faults.push("poll", DOWN)
            case "assign fails":
                broker.faults.push("committed", DOWN)
                broker.faults.push("log_identity", DOWN)
            case "move":
                broker.move(amount % 2, self.workers[which % 3].source)
            case "expire":
                self.expire(self.workers[which % 3], self.workers[(which + 1) % 3])
            case "crash":
                self.crash(which % 3)
            case "leave":
                self.leave(which % 3)

    def turn(self, which: int, amount: int) -> None:
        everybody = self.workers + self.zombies
        everybody[which % len(everybody)].turn(amount)

    def expire(self, worker: Worker, heir: Worker) -> None:
        """Expire the worker's session; it may continue for a while before it notices."""
        owned = worker.source.assignment
        self.rig.broker.expire(worker.source)
        for partition in owned:
            self.rig.broker.move(partition.partition, heir.source)

    def crash(self, index: int) -> None:
        dead = self.workers[index]
        self.workers[index] = self.rig.worker(fetch_records=4)
        self.expire(dead, self.workers[index])
        for where, target in list(self.rig.broker.targets.items()):
            if target is dead.source:
                self.rig.broker.move(where.partition, self.workers[index].source)
        # It was only suspended: it runs once more, some time later.
        self.zombies.append(dead)

    def leave(self, index: int) -> None:
        worker = self.workers[index]
        self.workers[index] = self.rig.worker(fetch_records=4)
        worker.ingest.drain(3.0)
        worker.source.close()
        for partition in (0, 1):
            if TopicPartition(TOPIC, partition) not in self.rig.broker.targets:
                self.rig.broker.move(partition, self.workers[index].source)

    def finish(self) -> None:
        self.rig.broker.faults.clear()
        self.rig.table.faults.clear()
        for partition in (0, 1):
            self.rig.broker.move(partition, self.workers[0].source)
        self.rig.settle(*self.workers, *self.zombies, turns=600)
        self.rig.clock.sleep(100.0)
        for worker in self.workers + self.zombies:
            worker.turn(2)

    def check(self) -> None:
        count = self.rig.table.count()
        sent = {(r.record.partition(), r.record.offset()) for r in self.rig.broker.dead_letters}
        assert count.keys() == set(self.valid)
        assert len(sent) == self.invalid + self.refused


@given(schedules)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_schedule_inserts_each_event_once(
    steps: list[tuple[str, int, int]],
) -> None:
    chaos = Chaotic(Delivery.EXACTLY_ONCE)
    chaos.run(steps)
    chaos.finish()
    chaos.check()
    assert set(chaos.rig.table.count().values()) <= {1}


@given(schedules)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_schedule_inserts_each_event_at_least_once(
    steps: list[tuple[str, int, int]],
) -> None:
    chaos = Chaotic(Delivery.AT_LEAST_ONCE)
    chaos.run(steps)
    chaos.finish()
    chaos.check()
