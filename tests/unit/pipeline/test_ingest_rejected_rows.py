"""Rows that ClickHouse refuses."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import Rebalancing, TooManyRejected
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.pipeline.dlq_limit import DlqLimitConfig
from octane_analytics.types import PartitionRange, RepeatRules
from tests.support.ingest_rig import DOWN, P0, Rig, batch, both_deliveries, event, names, once
from tests.unit.pipeline.test_ingest_recovery import crashed_after_announcing


def refuse(rig: Rig, *bad: str) -> None:
    rig.table.refuses = lambda row: row.user_id in bad


@both_deliveries
def test_only_refused_rows_are_dead_lettered(delivery: Delivery) -> None:
    rig = Rig(size=8, delivery=delivery)
    refuse(rig, "e2", "e5")
    rig.produce(0, 8)
    worker = rig.worker()
    rig.settle(worker)
    assert rig.table.count() == once(["e0", "e1", "e3", "e4", "e6", "e7"])
    dead_letters = rig.broker.dead_letters
    assert [(r.record.offset(), r.reason) for r in dead_letters] == [
        (2, "refused_by_clickhouse"),
        (5, "refused_by_clickhouse"),
    ]
    assert worker.observer.details("bisecting_rejected_rows") == ["0:0-8"]
    assert worker.observer.rows == 6


def test_parts_of_refused_batch_are_numbered() -> None:
    rig = Rig(size=8)
    refuse(rig, "e2")
    rig.produce(0, 8)
    rig.settle(rig.worker())
    whole = batch((0, 0, 8)).token()
    assert rig.table.tokens == [whole, f"{whole}/again1", f"{whole}/again2"]


def test_parts_have_own_tokens_beside_views() -> None:
    rig = Rig(size=8)
    rig.table.rules = RepeatRules(inserts_whole=True, repair_refusal="a view")
    refuse(rig, "e2")
    rig.produce(0, 8)
    rig.settle(rig.worker())
    whole = batch((0, 0, 8))
    assert rig.table.tokens == [
        whole.token(),  # claimed by the first part
        whole.part_token(PartitionRange(0, 3, 4)),
        whole.part_token(PartitionRange(0, 4, 8)),
    ]


def test_refused_batch_is_bisected_by_offsets() -> None:
    rig = Rig(size=4)
    refuse(rig, "e1")
    rig.produce(0, 1)
    rig.broker.skip(0, 6)
    rig.produce(1, 4)
    rig.settle(rig.worker())
    whole = batch((0, 0, 10)).token()
    assert rig.table.tokens == [whole, f"{whole}/again1"]
    assert rig.table.count() == once(["e0", "e2", "e3"])


def test_records_after_refused_batch_are_kept() -> None:
    rig = Rig(size=4, flush_seconds=5.0)
    refuse(rig, "e1")
    worker = rig.worker(fetch_records=2)
    rig.table.faults.push("insert", DOWN)
    rig.produce(0, 20)
    rig.settle(worker)
    assert rig.table.count() == once(["e0"], names(2, 20))


def test_invalid_records_of_refused_batch_are_sent_once() -> None:
    rig = Rig(size=4)
    refuse(rig, "e1")
    rig.broker.append(0, event("e0"), b"no event", event("e1"), event("e2"))
    worker = rig.worker()
    rig.settle(worker)
    assert sorted(r.record.offset() or 0 for r in rig.broker.dead_letters) == [1, 2]
    assert worker.observer.rejections == {"not_json": 1, "refused_by_clickhouse": 1}


@pytest.mark.parametrize("crash_at", range(1, 10))
def test_refused_batch_survives_crash_at_any_insert(crash_at: int) -> None:
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


def test_stored_batch_refused_later_is_not_split() -> None:
    rig = Rig(size=8)
    rig.produce(0, 8)
    rig.table.faults.push("insert", DOWN, is_done=True)
    worker = rig.worker()
    worker.turn(3)
    assert rig.table.count() == once(names(0, 8)), "the answer was lost"
    refuse(rig, "e2")
    rig.clock.sleep(20)
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 8))
    assert rig.broker.dead_letters == []


def test_stored_recovered_batch_is_not_split() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=True)
    refuse(rig, "e3")
    rig.settle(rig.worker())
    assert rig.table.count() == once(names(0, 9))
    assert rig.broker.dead_letters == []


def test_stored_parts_are_not_inserted_again() -> None:
    rig = Rig(size=8)
    refuse(rig, "e6")
    rig.produce(0, 8)
    worker = rig.worker()
    while not rig.table.rows:
        # The whole batch is refused before, twice.
        rig.table.faults.push("insert", DOWN, DOWN, DOWN, is_done=True)
        worker.turn()
        rig.table.faults.clear()
    rig.clock.sleep(20)
    assert rig.table.count() == once(names(0, 4)), "the first part"
    refuse(rig)
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 8))
    assert rig.broker.dead_letters == []


@given(
    refused=st.lists(st.sets(st.sampled_from(names(0, 8)), max_size=2), min_size=1, max_size=8),
    faults=st.lists(st.sampled_from(["none", "done", "not done"]), max_size=40),
)
def test_events_are_stored_or_dead_lettered_once(
    refused: list[set[str]], faults: list[str]
) -> None:
    rig = Rig(size=8)
    rig.produce(0, 8)
    worker = rig.worker()
    for turn, fault in enumerate(faults):
        refuse(rig, *refused[turn % len(refused)])
        if fault != "none":
            rig.table.faults.push("insert", DOWN, is_done=fault == "done")
        worker.turn()
        rig.table.faults.clear()
        rig.clock.sleep(20)
    rig.settle(worker)
    dead = Counter(f"e{r.record.offset()}" for r in rig.broker.dead_letters)
    assert rig.table.count() + dead == once(names(0, 8))


def test_refused_rows_of_recovered_range_are_isolated() -> None:
    rig = Rig(size=4)
    crashed_after_announcing(rig, is_inserted=False)
    refuse(rig, "e3")
    worker = rig.worker()
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3), names(4, 9))
    assert [r.record.offset() for r in rig.broker.dead_letters] == [3]


def test_refused_rows_hold_back_no_other_partition() -> None:
    rig = Rig(size=6, partitions=2, delivery=Delivery.AT_LEAST_ONCE)
    refuse(rig, "e1")
    rig.produce(0, 3, 0)
    rig.produce(0, 3, 1, "f")
    rig.settle(rig.worker())
    assert rig.table.count() == once(["e0", "e2"], names(0, 3, "f"))


def test_dead_letter_outage_is_reported_for_refused_rows() -> None:
    rig = Rig(size=2)
    refuse(rig, "e0")
    rig.produce(0, 2)
    worker = rig.worker()
    rig.broker.faults.push("dead_letters", DOWN)
    rig.settle(worker)
    assert worker.observer.details("failed") == ["dead_letters"]
    assert rig.table.count() == once(["e1"])


def limited(rig: Rig, **limits: Any) -> None:
    rig.options = dataclasses.replace(rig.options, dlq_limit=DlqLimitConfig(**limits))


@both_deliveries
def test_consecutive_refused_rows_stop_worker_at_limit(delivery: Delivery) -> None:
    rig = Rig(size=64, delivery=delivery)
    limited(rig, max_consecutive=10)
    refuse(rig, *names(8, 64))
    rig.produce(0, 64)
    worker = rig.worker()
    with pytest.raises(TooManyRejected, match="10 rows in a row were refused by ClickHouse"):
        rig.settle(worker)
    assert rig.broker.dead_letters == []
    committed = rig.broker.committed.get(P0)
    assert committed is None or committed.offset in (None, 0)


def test_refused_rows_count_across_batches_and_partitions() -> None:
    rig = Rig(size=4, partitions=2)
    limited(rig, max_consecutive=7)
    rig.table.refuses = lambda row: row.user_id.startswith("bad")
    for number in range(4):
        rig.produce(4 * number, 4 * number + 4, number % 2, "bad")
    with pytest.raises(TooManyRejected, match="7 rows in a row"):
        rig.settle(rig.worker())
    assert rig.broker.dead_letters == []


def test_interrupted_refused_rows_do_not_stop_worker() -> None:
    rig = Rig(size=8)
    limited(rig, max_consecutive=3)
    refuse(rig, *(f"e{n}" for n in range(0, 400, 2)))
    rig.produce(0, 400)
    rig.settle(rig.worker(), turns=2000)
    assert len(rig.broker.dead_letters) == 200


def test_refused_rows_count_in_share_limit() -> None:
    rig = Rig(size=200)
    limited(rig, max_ratio=0.3)
    rig.table.refuses = lambda row: int(row.user_id[1:]) % 2 == 0
    worker = rig.worker()
    rig.produce(0, 800)
    rig.settle(worker)  # too few records for the share limit
    rig.produce(800, 1200)
    with pytest.raises(TooManyRejected, match=r"% of the last .* refused by ClickHouse"):
        rig.settle(worker)


@pytest.mark.parametrize("limit", [56, 57])
def test_refused_rows_count_once_despite_outages(limit: int) -> None:
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
    assert len(rig.broker.dead_letters) == (0 if limit == 56 else 56)


def test_restart_reaches_limit_of_refused_rows_again() -> None:
    rig = Rig(size=2000, max_bytes=1 << 30)
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


class Killed(Exception):
    """The worker is killed at this point."""


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("crash_at", range(1, 14))
def test_dropped_constraint_duplicates_nothing(crash_at: int, is_done: bool) -> None:
    """Kill a worker that isolates rows; the next one finds a table that accepts them."""
    rig = Rig(size=8, partitions=2)
    refuse(rig, "e2", "f1")
    rig.produce(0, 4, 0)
    rig.produce(0, 4, 1, "f")
    insert, inserts = rig.table.insert, 0

    def insert_until_killed(columns: Sequence[Sequence[object]], token: str | None) -> None:
        nonlocal inserts
        inserts += 1
        if inserts >= crash_at and not is_done:
            raise Killed
        insert(columns, token)
        if inserts >= crash_at:
            raise Killed

    rig.table.insert = insert_until_killed  # type: ignore[method-assign]
    dead = rig.worker()
    with suppress(Killed):
        rig.settle(dead)
    rig.table.insert = insert  # type: ignore[method-assign]
    rig.broker.expire(dead.source)
    refuse(rig)
    rig.settle(*[rig.worker() for _ in range(2)])
    dead_letters = {
        f"{'ef'[r.record.partition() or 0]}{r.record.offset()}" for r in rig.broker.dead_letters
    }
    assert set(rig.table.count().values()) == {1}
    assert rig.table.count().keys() | dead_letters == {*names(0, 4), *names(0, 4, "f")}


def test_records_of_voided_batch_count_once_in_limit() -> None:
    rig = Rig(size=100, partitions=2)
    limited(rig, max_consecutive=10)
    rig.broker.is_balancing = False
    first, second = rig.worker(), rig.worker()
    for partition in (0, 1):
        rig.broker.move(partition, first.source)
    first.turn(2)
    rig.broker.append(0, *[b"not an event"] * 6)
    rig.produce(0, 1, 1, "f")
    first.turn(2)
    rig.broker.faults.push("commit", *[Rebalancing("settling")] * 3)
    rig.broker.move(1, second.source)
    first.turn(10)
    rig.broker.append(0, *[b"not an event"] * 3)
    rig.produce(1, 100, 1, "f")
    rig.produce(0, 100, 0)
    rig.settle(first, second)
    assert len(rig.broker.dead_letters) == 9


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("suspended_at", range(2, 11))
def test_suspended_worker_inserts_no_row_twice(suspended_at: int, is_before: bool) -> None:
    """Suspend a worker that isolates rows, between its count and an insert or after it; the next one
    finds a table that accepts them."""
    rig = Rig(size=8, partitions=2)
    rig.broker.is_balancing = False
    refuse(rig, "e2", "f1")
    first, second = rig.worker(), rig.worker()
    for partition in (0, 1):
        rig.broker.move(partition, first.source)
    first.turn(2)
    rig.produce(0, 4, 0)
    rig.produce(0, 4, 1, "f")
    insert, inserts = rig.table.insert, 0

    def insert_and_suspend(columns: Sequence[Sequence[object]], token: str | None) -> bool | None:
        nonlocal inserts
        inserts += 1
        if inserts != suspended_at:
            return insert(columns, token)
        rig.table.insert = insert  # type: ignore[method-assign]
        if is_before:
            suspend()
            return insert(columns, token)
        try:
            return insert(columns, token)
        finally:
            suspend()

    def suspend() -> None:
        rig.broker.expire(first.source)
        refuse(rig)
        for partition in (0, 1):
            rig.broker.move(partition, second.source)
        rig.clock.sleep(60)
        rig.settle(second)

    rig.table.insert = insert_and_suspend  # type: ignore[method-assign]
    for _ in range(60):
        first.turn()
        rig.clock.sleep(0.5)
    assert inserts >= suspended_at
    rig.settle(first, second)
    assert rig.table.count() == once(names(0, 4), names(0, 4, "f"))
