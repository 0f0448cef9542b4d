"""The loop over a fake broker and a fake ClickHouse: what is delivered, in which order, through what."""

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octane_analytics.errors import AssignmentLost, Rebalancing, TooManyRejected, Unavailable
from octane_analytics.events.decode import decode_all
from octane_analytics.pipeline.batch import BatchLimits
from octane_analytics.pipeline.batch_writer import Delivery
from octane_analytics.pipeline.delivery_ledger import Intent, part_token, token
from octane_analytics.pipeline.dlq_limit import DlqLimitConfig
from octane_analytics.pipeline.ingest_loop import IngestLoop, IngestOptions
from octane_analytics.runtime.timing import Backoff
from octane_analytics.types import (
    Commit,
    Committed,
    LogIdentity,
    OffsetGone,
    OffsetRange,
    Polled,
    TopicPartition,
)
from tests.fakes.pipeline import (
    TOPIC,
    Entry,
    FakeBroker,
    FakeClickHouse,
    FakeClock,
    FakeDeadLetters,
    FakeObserver,
    FakeSink,
    FakeSource,
    InsertEntry,
)

P0 = TopicPartition(TOPIC, 0)
P1 = TopicPartition(TOPIC, 1)
LOG = LogIdentity("cluster", "topic-1", "")
DOWN = Unavailable("down")
NEVER = 1e9

both_deliveries = pytest.mark.parametrize("delivery", list(Delivery))


def event(name: str, **fields: object) -> bytes:
    return json.dumps(
        {
            "app_id": "openstream",
            "event_name": "play",
            "user_id": name,
            "timestamp": "2026-02-02T12:00:00Z",
        }
        | fields
    ).encode()


def names(first: int, end: int, prefix: str = "e") -> list[str]:
    return [f"{prefix}{number}" for number in range(first, end)]


def intent(first: int, end: int, log: LogIdentity = LOG) -> str:
    return Intent(OffsetRange(first, end), log).metadata()


def token_of(first: int, end: int, partition: TopicPartition = P0, log: LogIdentity = LOG) -> str:
    return token(partition, Intent(OffsetRange(first, end), log))


@dataclass
class Worker:
    source: FakeSource
    observer: FakeObserver
    ingest: IngestLoop

    def turn(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.ingest.run_once()


class Rig:
    """A broker, a table and the workers between them. By default nothing is due by itself."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        delivery: Delivery = Delivery.EXACTLY_ONCE,
        size: int = 10_000,
        flush_seconds: float = NEVER,
        max_rows: int = 100_000,
        batch_bytes: int = 1 << 30,
        max_bytes: int = 1 << 30,
        idle_seconds: float = 1.0,
    ) -> None:
        self.clock = FakeClock()
        self.broker = FakeBroker(self.clock, partitions)
        self.table = FakeClickHouse(self.clock, self.broker.journal)
        self.options = IngestOptions(
            TOPIC,
            BatchLimits(size, flush_seconds, max_rows, batch_bytes),
            delivery,
            idle_seconds=idle_seconds,
            max_bytes=max_bytes,
        )

    def worker(self, *, fetch_records: int = 100_000) -> Worker:
        source = FakeSource(self.broker, fetch_records=fetch_records)
        observer = FakeObserver()
        ingest = IngestLoop(
            source,
            FakeSink(self.table),
            FakeDeadLetters(self.broker),
            decode_all,
            self.clock,
            observer,
            self.options,
            Backoff(0.2, 10.0, random.Random(0)),
        )
        source.subscribe(ingest)
        return Worker(source, observer, ingest)

    def produce(self, first: int, end: int, partition: int = 0, prefix: str = "e") -> None:
        self.broker.append(partition, *(event(name) for name in names(first, end, prefix)))

    def journal(self, *kinds: str) -> list[object]:
        return [entry.detail for entry in self.broker.journal if entry.what in kinds]

    def commits(self) -> list[object]:
        return self.journal("commit")

    def inserts(self) -> list[object]:
        return self.journal("insert")

    def settle(self, *workers: Worker, turns: int = 400) -> None:
        """Turns the loops until everything is delivered and committed."""
        for _ in range(turns):
            if self.broker.is_settled():
                return
            for worker in workers:
                worker.turn()
        raise AssertionError(f"not settled: lag {self.broker.lag()}, {self.broker.committed}")


def once(*lists: Sequence[str]) -> Counter[str]:
    return Counter(name for names in lists for name in names)


# What is due, and when


def test_batch_is_inserted_once_it_has_its_size() -> None:
    rig = Rig(size=3)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(20)
    assert rig.inserts() == []
    rig.produce(2, 3)
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(token_of(0, 3), 3)]


def test_batch_is_inserted_once_its_first_record_is_old_enough() -> None:
    rig = Rig(flush_seconds=5.0)
    worker = rig.worker()
    worker.turn(100)
    rig.produce(0, 1)
    began = rig.clock.now()
    while not rig.inserts():
        worker.turn()
    assert 5.0 <= rig.clock.now() - began <= 5.3


def test_batch_is_inserted_once_its_payloads_have_their_bytes() -> None:
    rig = Rig(batch_bytes=1000)
    worker = rig.worker()
    rig.broker.append(0, event("e0", properties={"blob": "x" * 400}))
    worker.turn(20)
    assert rig.inserts() == []
    rig.broker.append(0, event("e1", properties={"blob": "x" * 400}))
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(token_of(0, 2), 2)]


def test_invalid_records_count_towards_the_size() -> None:
    rig = Rig(size=3)
    worker = rig.worker()
    rig.broker.append(0, b"no", b"event", b"at all")
    worker.turn(3)
    assert [r.record.offset() for r in rig.broker.dead_letters] == [0, 1, 2]
    assert rig.inserts() == []
    assert rig.broker.committed[P0] == Committed(0, intent(0, 3))


def test_backlog_is_inserted_in_large_batches() -> None:
    rig = Rig(size=10)
    rig.produce(0, 25_000)
    worker = rig.worker(fetch_records=10_000)
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(token_of(0, 25_000), 25_000)]


def test_one_partition_that_is_due_does_not_take_the_others_along() -> None:
    rig = Rig(size=3, partitions=2)
    worker = rig.worker()
    rig.produce(0, 3, 0)
    rig.produce(0, 1, 1, "f")
    worker.turn(3)
    assert rig.inserts() == [InsertEntry(token_of(0, 3), 3)]


def test_at_least_once_inserts_all_partitions_together() -> None:
    rig = Rig(size=4, partitions=2, delivery=Delivery.AT_LEAST_ONCE)
    worker = rig.worker()
    rig.produce(0, 3, 0)
    rig.produce(0, 1, 1, "f")
    worker.turn(2)
    assert rig.inserts() == [InsertEntry(None, 4)]
    assert set(rig.commits()) == {Commit(P0, 3, intent(3, 3)), Commit(P1, 1, intent(1, 1))}


# The order of things


def test_exactly_once_announces_before_the_insert_and_completes_with_the_next() -> None:
    rig = Rig(size=2, idle_seconds=NEVER)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(2)
    rig.produce(2, 4)
    worker.turn(2)
    assert rig.broker.journal == [
        Entry("commit", Commit(P0, 0, intent(0, 2))),
        Entry("insert", InsertEntry(token_of(0, 2), 2)),
        Entry("commit", Commit(P0, 2, intent(2, 4))),
        Entry("insert", InsertEntry(token_of(2, 4), 2)),
    ]


def test_exactly_once_announces_all_partitions_that_are_due_in_one_commit() -> None:
    rig = Rig(size=2, partitions=3, idle_seconds=NEVER)
    rig.produce(0, 2, 0)
    rig.produce(0, 2, 2, "f")
    rig.worker().turn(2)
    assert [entry.what for entry in rig.broker.journal] == ["commit", "commit", "insert", "insert"]


def test_at_least_once_commits_after_the_insert() -> None:
    rig = Rig(size=2, delivery=Delivery.AT_LEAST_ONCE)
    rig.produce(0, 2)
    rig.worker().turn(2)
    assert rig.broker.journal == [
        Entry("insert", InsertEntry(None, 2)),
        Entry("commit", Commit(P0, 2, intent(2, 2))),
    ]


@both_deliveries
def test_dead_letters_are_acknowledged_before_the_offset_moves(delivery: Delivery) -> None:
    rig = Rig(size=3, delivery=delivery)
    rig.broker.append(0, event("e0"), b"no event", None)
    worker = rig.worker()
    rig.settle(worker)
    kinds = [entry.what for entry in rig.broker.journal]
    passing = [
        index
        for index, entry in enumerate(rig.broker.journal)
        if isinstance(entry.detail, Commit) and entry.detail.offset > 1
    ]
    assert kinds.count("dead_letters") == 1
    assert kinds.index("dead_letters") < min(passing)
    assert worker.observer.rejections == {"not_json": 1, "tombstone": 1}
    assert worker.observer.dead_letters == 2


def test_idle_partition_is_completed_with_nothing_pending() -> None:
    rig = Rig(size=2, idle_seconds=1.0)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(2)
    assert rig.broker.committed[P0] == Committed(0, intent(0, 2))
    worker.turn(20)
    assert rig.broker.committed[P0] == Committed(2, intent(2, 2))
    worker.turn(100)
    assert len(rig.commits()) == 2


def test_idle_completion_that_fails_is_tried_again() -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(2)
    rig.broker.faults.push("commit", Rebalancing("settling"), DOWN)
    rig.settle(worker)
    assert rig.broker.committed[P0] == Committed(2, intent(2, 2))


def test_offsets_without_records_are_committed_over() -> None:
    rig = Rig(flush_seconds=1.0)
    rig.produce(0, 3)
    rig.broker.skip(0, 4)
    worker = rig.worker()
    rig.settle(worker)
    rig.broker.skip(0, 2)
    rig.settle(worker)
    assert rig.broker.committed[P0] == Committed(9, intent(9, 9))
    assert rig.table.count() == once(names(0, 3))


# Outages


@both_deliveries
def test_outage_of_clickhouse_is_waited_out_with_the_same_insert(delivery: Delivery) -> None:
    rig = Rig(size=3, delivery=delivery)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.table.faults.push("insert", *[DOWN] * 6)
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3))
    assert len(rig.inserts()) == 7
    assert len(set(rig.inserts())) == 1
    assert worker.observer.names().count("resumed") == 1
    assert worker.observer.failing == set()


def test_outage_of_clickhouse_stops_the_reading_until_it_is_over() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.table.faults.push("insert", *[DOWN] * 100)
    worker.turn(20)
    assert worker.source.is_paused
    rig.produce(3, 3000)
    consumed = worker.observer.records
    worker.turn(50)
    assert worker.observer.records == consumed
    assert worker.source in rig.broker.members
    rig.table.faults.clear()
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3000))


def test_short_outage_does_not_throw_the_prefetched_away() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.table.faults.push("insert", DOWN)
    worker.turn(2)
    assert worker.observer.failing == {"clickhouse"}
    assert not worker.source.is_paused


def test_insert_whose_answer_was_lost_is_repeated_under_its_token() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.table.faults.push("insert", DOWN, DOWN, is_done=True)
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3))


def test_repeated_insert_says_before_when_it_cannot_have_been_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[object] = []

    def insert(self: FakeSink, *arguments: object, **options: object) -> None:
        calls.append((options["is_repeat"], options["not_before"]))
        if len(calls) == 1:
            raise DOWN

    monkeypatch.setattr(FakeSink, "insert", insert)
    rig = Rig(size=3)
    rig.produce(0, 3)
    rig.settle(rig.worker())
    assert calls == [(False, 1_770_000_000.0), (True, 1_770_000_000.0)]


def test_waiting_between_attempts_grows_and_is_capped() -> None:
    rig = Rig(size=1)
    rig.produce(0, 1)
    worker = rig.worker()
    rig.table.faults.push("insert", *[DOWN] * 1000)
    times: list[float] = []
    while len(times) < 12:
        before = len(rig.inserts())
        worker.turn()
        times += [rig.clock.now()] * (len(rig.inserts()) - before)
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses[0] < 0.5
    assert all(5.0 <= pause <= 10.3 for pause in pauses[-3:])


def test_outage_of_the_dead_letter_topic_holds_offsets_and_inserts_back() -> None:
    rig = Rig(size=2)
    rig.broker.append(0, event("e0"), b"no event")
    worker = rig.worker()
    rig.broker.faults.push("dead_letters", *[DOWN] * 5)
    worker.turn(10)
    assert rig.inserts() == []
    assert worker.observer.failing == {"dead_letters"}
    rig.settle(worker)
    assert rig.table.count() == once(["e0"])
    assert [r.record.offset() for r in rig.broker.dead_letters] == [1]
    assert worker.observer.failing == set()


def test_outages_of_one_dependency_after_the_other_all_end() -> None:
    rig = Rig(size=2)
    rig.broker.append(0, event("e0"), b"no event")
    worker = rig.worker()
    rig.broker.faults.push("commit", DOWN)
    rig.broker.faults.push("dead_letters", DOWN)
    rig.table.faults.push("insert", DOWN)
    rig.settle(worker)
    worker.turn(20)
    assert set(worker.observer.details("failed")) == {"kafka", "dead_letters", "clickhouse"}
    assert worker.observer.failing == set()


@pytest.mark.parametrize("operation", ["poll", "committed", "log_identity", "earliest"])
def test_outage_of_kafka_is_over_once_kafka_answers(operation: str) -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    rig.broker.faults.push(operation, DOWN, DOWN)
    rig.produce(0, 2)
    rig.settle(worker)
    assert set(worker.observer.details("failed")) == {"kafka"}
    assert worker.observer.failing == set()


def test_outage_of_kafka_at_an_idle_completion_is_over_once_kafka_answers() -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    rig.produce(0, 2)
    worker.turn(2)
    rig.broker.faults.push("commit", DOWN)
    rig.settle(worker)
    assert worker.observer.failing == set()


def test_outage_of_clickhouse_is_not_over_because_the_partitions_are_lost() -> None:
    rig = Rig(size=2)
    worker = rig.worker()
    rig.produce(0, 2)
    rig.table.faults.push("insert", *[DOWN] * 100)
    worker.turn(5)
    rig.broker.expire(worker.source)
    worker.turn(3)
    while rig.table.faults.take("insert"):
        pass
    rig.settle(worker)
    assert worker.observer.details("resumed") == ["clickhouse"]


def test_member_that_was_replaced_gives_up() -> None:
    rig = Rig()
    worker = rig.worker()
    worker.turn()
    rig.broker.fence(worker.source)
    with pytest.raises(AssignmentLost):
        worker.ingest.run(lambda: False, 10.0)


# Moving partitions


def test_announcement_is_repeated_while_the_group_rebalances() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.broker.faults.push("commit", *[Rebalancing("settling")] * 4)
    worker.turn(2)
    assert rig.inserts() == []
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3))
    assert worker.observer.details("failed") == []


def test_announcement_whose_answer_was_lost_is_repeated() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.broker.faults.push("commit", DOWN, is_done=True)
    rig.settle(worker)
    assert rig.commits()[:2] == [Commit(P0, 0, intent(0, 3))] * 2
    assert rig.table.count() == once(names(0, 3))


def test_revoked_partition_is_finished_committed_and_forgotten() -> None:
    rig = Rig(size=3, partitions=2)
    rig.produce(0, 3, 0)
    first = rig.worker()
    rig.table.faults.push("insert", DOWN)
    first.turn(2)  # announced, in flight
    rig.table.faults.clear()
    rig.clock.sleep(30)
    first.turn(1)
    second = rig.worker()
    first.turn(1)
    second.turn(1)
    owned = {tuple(first.source.assignment), tuple(second.source.assignment)}
    assert owned == {(P0,), (P1,)}
    assert first.observer.details("revoked") == [([1], 1)]
    rig.settle(first, second)
    assert rig.table.count() == once(names(0, 3))


def test_revoked_partition_in_flight_is_inserted_before_it_is_let_go() -> None:
    rig = Rig(size=3)
    rig.broker.is_balancing = False
    rig.produce(0, 3)
    first, second = rig.worker(), rig.worker()
    rig.broker.move(0, first.source)
    rig.broker.faults.push("commit", Rebalancing("settling"))
    first.turn(2)  # in flight, not announced
    rig.broker.move(0, second.source)
    rig.produce(3, 4)
    first.turn()
    assert rig.broker.committed[P0] == Committed(3, intent(3, 3))
    assert first.source.assignment == []
    second.turn(3)
    assert second.observer.details("recovered") == []
    assert rig.table.count() == once(names(0, 3))


def test_revoked_partition_during_an_outage_is_let_go_at_once_and_recovered() -> None:
    rig = Rig(size=3)
    rig.broker.is_balancing = False
    rig.produce(0, 3)
    first, second = rig.worker(), rig.worker()
    rig.broker.move(0, first.source)
    rig.table.faults.push("insert", DOWN, DOWN, is_done=True)
    first.turn(2)
    attempts = len(rig.inserts())
    rig.broker.move(0, second.source)
    first.turn()
    assert len(rig.inserts()) == attempts
    rig.table.faults.clear()
    rig.settle(second)
    assert second.observer.details("recovered") == [(0, "0-3")]
    assert rig.table.count() == once(names(0, 3))


def test_records_read_but_not_announced_are_left_to_the_next_owner() -> None:
    rig = Rig(size=3)
    rig.broker.is_balancing = False
    rig.produce(0, 2)
    first, second = rig.worker(), rig.worker()
    rig.broker.move(0, first.source)
    first.turn(3)
    rig.broker.move(0, second.source)
    first.turn()
    rig.produce(2, 3)
    rig.settle(second)
    assert rig.table.count() == once(names(0, 3))


def test_lost_partition_is_forgotten_without_a_commit() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    first = rig.worker()
    rig.table.faults.push("insert", DOWN)
    first.turn(2)
    rig.broker.expire(first.source)
    commits = len(rig.commits())
    second = rig.worker()
    first.turn()
    assert first.observer.details("lost") == [([0], 0)]
    assert len(rig.commits()) == commits
    rig.settle(first, second)
    assert rig.table.count() == once(names(0, 3))


def test_zombie_that_inserts_what_it_had_announced_changes_nothing() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    first = rig.worker()
    rig.table.faults.push("insert", DOWN)
    first.turn(2)
    rig.broker.expire(first.source)
    second = rig.worker()
    rig.settle(second)
    rig.clock.sleep(60)
    inserts = len(rig.inserts())
    first.turn()
    assert len(rig.inserts()) == inserts + 1
    assert rig.table.count() == once(names(0, 3))


def test_zombie_cannot_announce_anything() -> None:
    rig = Rig(size=3)
    first = rig.worker()
    rig.produce(0, 3)
    first.source.faults.push("commit", DOWN)
    first.turn(2)
    rig.broker.expire(first.source)
    second = rig.worker()
    rig.settle(second)
    commits, inserts = rig.commits(), rig.inserts()
    rig.clock.sleep(60)
    first.turn()
    assert (rig.commits(), rig.inserts()) == (commits, inserts)


# Recovery


def crashed_after_announcing(rig: Rig, *, is_inserted: bool) -> None:
    """A worker that has read and announced [0, 4) of five records is gone."""
    rig.produce(0, 4)
    dead = rig.worker()
    rig.table.faults.push("insert", DOWN, is_done=is_inserted)
    dead.turn(2)
    assert rig.broker.committed[P0] == Committed(0, intent(0, 4))
    rig.broker.expire(dead.source)
    rig.produce(4, 9)
    rig.broker.journal.clear()


@pytest.mark.parametrize("is_inserted", [True, False])
def test_announced_range_is_inserted_again_exactly_and_then_the_rest(is_inserted: bool) -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=is_inserted)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.inserts() == [
        InsertEntry(token_of(0, 4), 4),
        InsertEntry(token_of(4, 9), 5),
    ]
    assert rig.table.count() == once(names(0, 9))
    assert worker.observer.details("recovered") == [(0, "0-4")]


def test_announced_range_is_not_inserted_before_it_is_read_to_its_end() -> None:
    rig = Rig(size=1, flush_seconds=0.5)
    rig.options = IngestOptions(TOPIC, BatchLimits(4, 0.5, 100, 1 << 20))
    crashed_after_announcing(rig, is_inserted=False)
    rig.clock.sleep(10)
    worker = rig.worker(fetch_records=1)
    worker.turn(2)
    assert rig.inserts() == []
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 9))


def test_announced_range_that_ends_in_a_gap_is_complete_at_the_records_behind_it() -> None:
    rig = Rig(size=4)
    rig.produce(0, 2)
    rig.broker.skip(0, 2)
    rig.broker.committed[P0] = Committed(0, intent(0, 4))
    rig.produce(2, 6)
    rig.settle(rig.worker())
    assert rig.inserts() == [InsertEntry(token_of(0, 4), 2), InsertEntry(token_of(4, 8), 4)]


def test_announced_range_that_ends_in_a_gap_is_complete_at_the_partitions_end() -> None:
    rig = Rig(size=4)
    rig.produce(0, 2)
    rig.broker.skip(0, 2)
    rig.broker.committed[P0] = Committed(0, intent(0, 4))
    rig.settle(rig.worker())
    assert rig.inserts() == [InsertEntry(token_of(0, 4), 2)]


def test_announced_range_without_any_record_is_completed() -> None:
    rig = Rig(size=4)
    rig.broker.skip(0, 4)
    rig.broker.committed[P0] = Committed(0, intent(0, 4))
    rig.settle(rig.worker())
    assert rig.inserts() == []
    assert rig.broker.committed[P0] == Committed(4, intent(4, 4))


def test_announced_range_is_recovered_by_a_worker_that_delivers_at_least_once() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    rig.options = IngestOptions(TOPIC, BatchLimits(5, NEVER, 100, 1 << 20), Delivery.AT_LEAST_ONCE)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.inserts()[0] == InsertEntry(token_of(0, 4), 4)
    assert rig.table.count() == once(names(0, 9))


def test_worker_that_dies_during_recovery_leaves_the_range_to_the_next() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    second = rig.worker(fetch_records=1)
    second.turn(2)
    assert second.ingest.drain(5.0) in (True, False)
    second.source.close()
    assert rig.broker.committed[P0] == Committed(0, intent(0, 4))
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(0, 9))


def test_announced_range_is_inserted_whole_though_memory_is_short() -> None:
    # The bytes of all that is being recovered may well exceed what a worker holds otherwise.
    rig = Rig(size=1, partitions=2, max_bytes=1000)
    for partition in (0, 1):
        rig.produce(0, 20, partition, f"p{partition}-")
        where = TopicPartition(TOPIC, partition)
        rig.broker.committed[where] = Committed(0, intent(0, 20))
    worker = rig.worker(fetch_records=3)
    rig.settle(worker)
    assert set(rig.inserts()[:2]) == {
        InsertEntry(token_of(0, 20, P0), 20),
        InsertEntry(token_of(0, 20, P1), 20),
    }
    assert rig.table.count() == once(names(0, 20, "p0-"), names(0, 20, "p1-"))


# Rows that the server refuses


def refuse(rig: Rig, *bad: str) -> None:
    rig.table.refuses = lambda row: row.user_id in bad


@both_deliveries
def test_refused_rows_alone_go_to_the_dead_letter_topic(delivery: Delivery) -> None:
    rig = Rig(size=8, delivery=delivery)
    refuse(rig, "e2", "e5")
    rig.produce(0, 8)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.table.count() == once(["e0", "e1", "e3", "e4", "e6", "e7"])
    letters = rig.broker.dead_letters
    assert [(r.record.offset(), r.reason) for r in letters] == [
        (2, "refused_by_clickhouse"),
        (5, "refused_by_clickhouse"),
    ]
    assert worker.observer.details("isolating") == [(0, "0-8")]
    assert worker.observer.rows == 6


def test_parts_of_a_refused_batch_go_in_under_tokens_of_their_own_ranges() -> None:
    rig = Rig(size=8)
    refuse(rig, "e2")
    rig.produce(0, 8)
    rig.settle(rig.worker())
    whole = token_of(0, 8)
    assert rig.table.tokens == [
        part_token(whole, OffsetRange(0, 2)),
        part_token(whole, OffsetRange(3, 4)),
        part_token(whole, OffsetRange(4, 8)),
    ]


def test_refused_batch_is_cut_by_offsets_not_by_rows() -> None:
    rig = Rig(size=4)
    refuse(rig, "e1")
    rig.produce(0, 1)
    rig.broker.skip(0, 6)
    rig.produce(1, 4)
    rig.settle(rig.worker())
    whole = token_of(0, 10)
    assert rig.table.tokens == [
        part_token(whole, OffsetRange(0, 5)),
        part_token(whole, OffsetRange(8, 10)),
    ]
    assert rig.table.count() == once(["e0", "e2", "e3"])


def test_records_behind_a_refused_batch_are_not_lost() -> None:
    rig = Rig(size=4)
    refuse(rig, "e1")
    worker = rig.worker(fetch_records=2)
    rig.table.faults.push("insert", DOWN)
    rig.produce(0, 20)
    rig.settle(worker)
    assert rig.table.count() == once(["e0"], names(2, 20))


def test_invalid_records_of_a_refused_batch_are_dead_lettered_once() -> None:
    rig = Rig(size=4)
    refuse(rig, "e1")
    rig.broker.append(0, event("e0"), b"no event", event("e1"), event("e2"))
    worker = rig.worker()
    rig.settle(worker)
    assert sorted(r.record.offset() or 0 for r in rig.broker.dead_letters) == [1, 2]
    assert worker.observer.rejections == {"not_json": 1, "refused_by_clickhouse": 1}


@pytest.mark.parametrize("crash_at", range(1, 10))
def test_refused_batch_survives_a_crash_at_any_insert(crash_at: int) -> None:
    rig = Rig(size=8)
    refuse(rig, "e2", "e5")
    rig.produce(0, 8)
    dead = rig.worker()
    for _ in range(100):
        if len(rig.inserts()) >= crash_at:
            break
        rig.table.faults.push("insert", DOWN, is_done=True)
        dead.turn()
        rig.table.faults.clear()
        rig.clock.sleep(20)
    rig.broker.expire(dead.source)
    rig.settle(rig.worker())
    assert rig.table.count() == once(["e0", "e1", "e3", "e4", "e6", "e7"])
    assert {r.record.offset() for r in rig.broker.dead_letters} == {2, 5}


def test_refused_rows_are_found_in_a_range_that_is_being_recovered() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=False)
    refuse(rig, "e3")
    worker = rig.worker()
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3), names(4, 9))
    assert [r.record.offset() for r in rig.broker.dead_letters] == [3]


def test_refused_rows_hold_back_no_other_partition_that_is_delivered_at_least_once() -> None:
    rig = Rig(size=6, partitions=2, delivery=Delivery.AT_LEAST_ONCE)
    refuse(rig, "e1")
    rig.produce(0, 3, 0)
    rig.produce(0, 3, 1, "f")
    rig.settle(rig.worker())
    assert rig.table.count() == once(["e0", "e2"], names(0, 3, "f"))


def test_outage_of_the_dead_letter_topic_is_named_also_for_refused_rows() -> None:
    rig = Rig(size=2)
    refuse(rig, "e0")
    rig.produce(0, 2)
    worker = rig.worker()
    rig.broker.faults.push("dead_letters", DOWN)
    rig.settle(worker)
    assert worker.observer.details("failed") == ["dead_letters"]
    assert rig.table.count() == once(["e1"])


def limited(rig: Rig, **limits: Any) -> None:
    rig.options = dataclasses.replace(rig.options, breaker=DlqLimitConfig(**limits))


@both_deliveries
def test_refused_rows_in_a_row_stop_the_worker_at_the_limit(delivery: Delivery) -> None:
    rig = Rig(size=64, delivery=delivery)
    limited(rig, max_consecutive=10)
    refuse(rig, *names(8, 64))
    rig.produce(0, 64)
    worker = rig.worker()
    with pytest.raises(TooManyRejected, match="10 rows in a row were refused by ClickHouse"):
        rig.settle(worker)
    assert [r.record.offset() for r in rig.broker.dead_letters] == list(range(8, 17))
    committed = rig.broker.committed.get(P0)
    assert committed is None or committed.offset in (None, 0)


def test_refused_rows_in_a_row_are_counted_over_batches_and_partitions() -> None:
    rig = Rig(size=4, partitions=2)
    limited(rig, max_consecutive=7)
    rig.table.refuses = lambda row: row.user_id.startswith("bad")
    for number in range(4):
        rig.produce(4 * number, 4 * number + 4, number % 2, "bad")
    with pytest.raises(TooManyRejected, match="7 rows in a row"):
        rig.settle(rig.worker())
    assert len(rig.broker.dead_letters) == 6


def test_refused_rows_that_others_stand_between_do_not_stop_the_worker() -> None:
    rig = Rig(size=8)
    limited(rig, max_consecutive=3)
    refuse(rig, *(f"e{n}" for n in range(0, 400, 2)))
    rig.produce(0, 400)
    rig.settle(rig.worker(), turns=2000)
    assert len(rig.broker.dead_letters) == 200


def test_refused_rows_count_in_the_share_of_bad_records() -> None:
    rig = Rig(size=200)
    limited(rig, max_ratio=0.3)
    rig.table.refuses = lambda row: int(row.user_id[1:]) % 2 == 0
    worker = rig.worker()
    rig.produce(0, 800)
    rig.settle(worker)  # no share of a few records
    rig.produce(800, 1200)
    with pytest.raises(TooManyRejected, match=r"% of the last .* refused by ClickHouse"):
        rig.settle(worker)


@pytest.mark.parametrize("limit", [56, 57])
def test_refused_rows_count_once_however_often_an_outage_interrupts(limit: int) -> None:
    rig = Rig(size=64)
    limited(rig, max_consecutive=limit)
    refuse(rig, *names(8, 64))
    rig.produce(0, 64)
    worker = rig.worker()
    for _ in range(5):
        rig.broker.faults.push("dead_letters", DOWN)
    if limit == 56:
        with pytest.raises(TooManyRejected):
            rig.settle(worker)
    else:
        rig.settle(worker)
    assert len(rig.broker.dead_letters) == limit - 1


def test_restart_meets_the_limit_of_refused_rows_again() -> None:
    rig = Rig(size=2000, batch_bytes=1 << 30)
    limited(rig, max_ratio=0.5)
    rig.table.refuses = lambda row: True
    rig.produce(0, 2000)
    for _ in range(2):
        worker = rig.worker()
        with pytest.raises(TooManyRejected):
            rig.settle(worker)
        rig.broker.expire(worker.source)
    rig.table.refuses = lambda row: int(row.user_id[1:]) % 4 == 0
    rig.settle(rig.worker())
    assert rig.table.count() == once([f"e{n}" for n in range(2000) if n % 4])


# Logs that are not what they were


def test_offsets_that_retention_removed_are_told_and_passed_over() -> None:
    rig = Rig(size=2)
    rig.broker.committed[P0] = Committed(3, "")
    rig.produce(0, 10)
    rig.broker.delete_before(0, 6)
    worker = rig.worker()
    rig.settle(worker)
    assert worker.observer.details("offsets_gone") == [(0, 3, 6)]
    assert rig.table.count() == once(names(6, 10))


def test_offsets_that_retention_removed_out_of_an_announced_range_are_told_once() -> None:
    rig = Rig(size=2)
    rig.broker.committed[P0] = Committed(3, intent(3, 8))
    rig.produce(0, 12)
    rig.broker.delete_before(0, 5)
    worker = rig.worker()
    rig.settle(worker)
    assert worker.observer.details("offsets_gone") == [(0, 3, 5)]
    assert rig.inserts()[0] == InsertEntry(token_of(3, 8), 3)
    assert rig.table.count() == once(names(5, 12))


def test_announced_range_that_retention_removed_altogether_is_told_once() -> None:
    rig = Rig(size=2)
    rig.broker.committed[P0] = Committed(3, intent(3, 8))
    rig.produce(0, 12)
    rig.broker.delete_before(0, 10)
    worker = rig.worker()
    rig.settle(worker)
    told = cast(list[tuple[int, int, int]], worker.observer.details("offsets_gone"))
    missing = [at for _, first, end in told for at in range(first, end)]
    assert missing == [3, 4, 5, 6, 7, 8, 9]
    assert rig.table.count() == once(names(10, 12))


def test_offsets_gone_while_kafka_is_away_are_asked_for_again() -> None:
    rig = Rig(size=2)
    rig.broker.committed[P0] = Committed(3, "")
    rig.produce(0, 10)
    rig.broker.delete_before(0, 6)
    worker = rig.worker()
    rig.broker.faults.push("earliest", DOWN, DOWN)
    rig.settle(worker)
    assert worker.observer.details("offsets_gone") == [(0, 3, 6)]
    assert rig.table.count() == once(names(6, 10))


def test_topic_made_anew_while_nobody_ran_is_read_from_its_start() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    rig.broker.recreate("topic-2", keeps_commits=True)
    rig.produce(0, 4, prefix="new")
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(0, 4), names(0, 4, "new"))


MIRRORED = LogIdentity("elsewhere", LOG.topic_id, LOG.epoch)
FOREIGN_METADATA = st.sampled_from(
    [
        "",
        "another consumer's",
        "octane1;9",
        Intent(OffsetRange(3, 3), LOG).metadata(),  # moved away from its intent
        "mirrored",
        "another epoch",
    ]
)


@given(offset=st.integers(5, 2**40), metadata=FOREIGN_METADATA, low=st.integers(0, 4))
def test_foreign_offset_after_the_end_reads_the_log_from_its_beginning(
    offset: int, metadata: str, low: int
) -> None:
    logs = {"mirrored": MIRRORED, "another epoch": LOG._replace(epoch="before")}
    if metadata in logs:
        metadata = Intent(OffsetRange(offset, offset), logs[metadata]).metadata()
    rig = Rig(size=4)
    rig.produce(0, 4)
    rig.broker.delete_before(0, low)
    rig.broker.committed[P0] = Committed(offset, metadata)
    worker = rig.worker()
    worker.turn(3)
    rig.produce(4, 8)
    rig.settle(worker)
    assert rig.table.count() == once(names(low, 8))
    assert worker.observer.details("foreign_offset") == [(0, offset, low, 4)]
    assert "log_replaced" not in worker.observer.names()


def test_foreign_offset_within_the_log_is_where_reading_begins() -> None:
    rig = Rig(size=2)
    rig.produce(0, 6)
    rig.broker.committed[P0] = Committed(4, "")
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(4, 6))


def test_own_log_that_lost_its_tail_is_read_on_from_its_end() -> None:
    rig = Rig(size=2)
    rig.produce(0, 4)
    rig.broker.committed[P0] = Committed(9, intent(9, 9))
    worker = rig.worker()
    worker.turn(4)
    rig.produce(4, 6)
    rig.settle(worker)
    assert worker.observer.details("log_truncated") == [(0, 9, 4)]
    assert rig.table.count() == once(names(4, 6))


def test_foreign_offset_at_a_log_that_loses_its_tail_before_a_record_came() -> None:
    rig = Rig(size=2)
    rig.produce(0, 6)
    rig.broker.committed[P0] = Committed(6, "")
    worker = rig.worker()
    worker.turn(2)
    rig.broker.logs[P0].end = 2
    for offset in range(2, 6):
        del rig.broker.logs[P0].records[offset]
    worker.source.seek(P0, 6)
    rig.settle(worker)
    assert worker.observer.details("foreign_offset") == [(0, 6, 0, 2)]
    assert rig.table.count() == once(names(0, 2))


@pytest.mark.parametrize("is_outdated", [False, True])
def test_topic_made_anew_under_a_running_worker_is_read_from_its_start(is_outdated: bool) -> None:
    rig = Rig(size=4)
    worker = rig.worker()
    rig.produce(0, 6)
    worker.turn(3)
    rig.broker.recreate("topic-2")
    worker.source.is_outdated = is_outdated
    worker.source.seek(P0, 6)  # the broker answers that this offset is out of range
    rig.produce(0, 4, prefix="new")
    rig.settle(worker)
    assert worker.observer.names().count("log_replaced") == 1
    assert rig.table.count() == once(names(0, 6), names(0, 4, "new"))
    assert token_of(0, 4, log=LOG._replace(topic_id="topic-2")) in rig.table.tokens


def test_start_of_a_new_log_that_cannot_be_taken_up_yet_is_told_and_tried_again() -> None:
    rig = Rig(size=4)
    worker = rig.worker()
    rig.produce(0, 6)
    worker.turn(3)
    rig.broker.recreate("topic-2")
    worker.source.seek(P0, 6)
    worker.turn(1)  # by now the log is known to be another one
    worker.source.faults.push("log_identity", DOWN, DOWN)
    rig.produce(0, 4, prefix="new")
    rig.settle(worker)
    assert worker.observer.details("failed") == ["kafka"] * 2
    assert rig.table.count() == once(names(0, 6), names(0, 4, "new"))


def test_log_that_lost_its_tail_is_not_read_from_its_start_again() -> None:
    # A broker that fell over before it had written everything out: same topic, shorter log.
    rig = Rig(size=4)
    worker = rig.worker()
    rig.produce(0, 8)
    rig.settle(worker)
    log = rig.broker.logs[P0]
    del log.records[7]
    log.end = 7
    worker.source.seek(P0, 8)
    worker.turn(30)
    rig.produce(20, 24)
    worker.turn(30)
    assert max(rig.table.count().values()) == 1


def test_complaint_about_a_position_of_before_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(size=4)
    worker = rig.worker()
    rig.produce(0, 4)
    worker.turn(3)
    rig.produce(4, 20)
    poll = worker.source.poll
    late = [OffsetGone(P0, 4711)]

    def poll_with_a_late_complaint(max_records: int, timeout_seconds: float) -> Polled:
        polled = poll(max_records, timeout_seconds)
        return Polled(polled.records, polled.ends, [late.pop()] if late else [])

    monkeypatch.setattr(worker.source, "poll", poll_with_a_late_complaint)
    rig.settle(worker)
    assert not late
    assert rig.table.count() == once(names(0, 20))


# Shutting down


@both_deliveries
def test_drain_inserts_and_commits_everything_that_was_read(delivery: Delivery) -> None:
    rig = Rig(partitions=2, delivery=delivery)
    rig.produce(0, 3, 0)
    rig.produce(0, 2, 1, "f")
    worker = rig.worker()
    turns = iter(range(3))
    assert worker.ingest.run(lambda: next(turns, None) is None, 10.0)
    assert rig.table.count() == once(names(0, 3), names(0, 2, "f"))
    assert rig.broker.is_settled()
    assert worker.source.is_closed


def test_drain_gives_up_at_its_deadline_during_an_outage() -> None:
    rig = Rig()
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.table.faults.push("insert", *[DOWN] * 1000)
    began = rig.clock.now()
    assert not worker.ingest.drain(10.0)
    assert 10.0 <= rig.clock.now() - began < 11.0
    rig.table.faults.clear()
    worker.source.close()
    rig.options = IngestOptions(TOPIC, BatchLimits(1, 1.0, 10, 1 << 20))
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(0, 3))


def test_drain_waits_an_outage_out_that_ends_in_time() -> None:
    rig = Rig()
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.table.faults.push("insert", DOWN, DOWN, DOWN)
    assert worker.ingest.drain(30.0)
    assert rig.broker.is_settled()


def test_drain_waits_for_the_group_to_settle() -> None:
    rig = Rig()
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.broker.faults.push("commit", Rebalancing("settling"), Rebalancing("settling"))
    assert worker.ingest.drain(30.0)
    assert rig.broker.is_settled()


def test_drain_waits_for_the_group_to_settle_for_the_completions_too() -> None:
    rig = Rig(size=3, idle_seconds=NEVER)
    rig.produce(0, 3)
    worker = rig.worker()
    worker.turn(3)
    rig.broker.faults.push("commit", Rebalancing("settling"), Rebalancing("settling"))
    assert worker.ingest.drain(30.0)
    assert rig.broker.is_settled()


def test_drain_reads_nothing_more() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker(fetch_records=1)
    rig.table.faults.push("insert", DOWN)
    worker.turn(4)
    rig.produce(3, 1000)
    rig.table.faults.push("insert", *[DOWN] * 2)
    read = worker.observer.records
    worker.ingest.drain(30.0)
    assert worker.observer.records == read


def test_drain_says_so_when_an_announced_range_is_left() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=False)
    worker = rig.worker(fetch_records=1)
    worker.turn(2)
    assert not worker.ingest.drain(5.0)


# Bounds


def test_memory_is_bounded_during_an_outage() -> None:
    rig = Rig(size=10, partitions=4, batch_bytes=20_000, max_bytes=50_000)
    for partition in range(4):
        rig.produce(0, 5000, partition, f"p{partition}-")
    worker = rig.worker(fetch_records=20)
    rig.table.faults.push("insert", *[DOWN] * 1000)
    worker.turn(200)
    assert worker.source.is_paused
    held = worker.observer.records * len(event("p0-1000"))
    # What is in flight, what is open, and one poll each on top.
    assert held <= 2 * (50_000 + 4 * 20 * len(event("p0-1000")))
    rig.table.faults.clear()
    rig.settle(worker)
    assert set(rig.table.count().values()) == {1}


@both_deliveries
def test_memory_is_bounded_over_many_partitions(delivery: Delivery) -> None:
    rig = Rig(partitions=20, max_bytes=20_000, delivery=delivery)
    worker = rig.worker(fetch_records=5)
    for partition in range(20):
        rig.produce(0, 50, partition, f"p{partition}-")
    worker.turn(15)
    held = (worker.observer.records - worker.observer.rows) * len(event("p0-00"))
    assert held <= 20_000 + 20 * 5 * len(event("p0-00"))


def test_loop_turns_between_slow_inserts() -> None:
    # The supervisor and the group take a loop that does not turn for a hung process.
    rig = Rig(partitions=16, size=2)
    for partition in range(16):
        rig.produce(0, 2, partition, f"p{partition}-")
    worker = rig.worker()
    rig.table.insert_seconds = 30.0
    longest = 0.0
    for _ in range(20):
        began = rig.clock.now()
        worker.turn()
        longest = max(longest, rig.clock.now() - began)
    assert longest < 120.0


def test_reading_goes_on_when_what_filled_the_outbox_is_taken_away() -> None:
    rig = Rig(partitions=4, size=2, max_rows=2)
    first, second = rig.worker(), rig.worker()
    for partition in range(4):
        rig.produce(0, 2, partition, f"p{partition}-")
        rig.broker.move(partition, first.source)
    first.turn(2)
    rig.table.insert_seconds = 30.0
    for begin in (2, 4):
        for partition in range(4):
            rig.produce(begin, begin + 2, partition, f"p{partition}-")
        first.turn()
    assert first.source.is_paused
    for partition in range(4):
        rig.broker.move(partition, second.source)
    first.turn(2)
    rig.settle(second)
    for partition in range(4):
        rig.broker.move(partition, first.source)
        rig.produce(6, 8, partition, f"p{partition}-")
    rig.table.insert_seconds = 0.0
    rig.settle(second, first)
    assert set(rig.table.count().values()) == {1}


# Anything, in any order


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
    ("letters lost", 1),
    ("letters fail", 1),
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
    """Two or three workers over two partitions, and one schedule of mishaps."""

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
            case "letters lost":
                broker.faults.push("dead_letters", DOWN, is_done=True)
            case "letters fail":
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
        """Its session ends; it may go on for a while before it hears of that."""
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
        # It was only asleep: it acts once more, some time later.
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
        letters = {(r.record.partition(), r.record.offset()) for r in self.rig.broker.dead_letters}
        assert count.keys() == set(self.valid)
        assert len(letters) == self.invalid + self.refused


@given(schedules)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_valid_event_is_there_once_whatever_happens(
    steps: list[tuple[str, int, int]],
) -> None:
    chaos = Chaotic(Delivery.EXACTLY_ONCE)
    chaos.run(steps)
    chaos.finish()
    chaos.check()
    assert set(chaos.rig.table.count().values()) <= {1}


@given(schedules)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_valid_event_is_there_at_least_once_whatever_happens(
    steps: list[tuple[str, int, int]],
) -> None:
    chaos = Chaotic(Delivery.AT_LEAST_ONCE)
    chaos.run(steps)
    chaos.finish()
    chaos.check()
