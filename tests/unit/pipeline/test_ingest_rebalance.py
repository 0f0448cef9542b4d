"""Assignment, revocation and loss of partitions."""

from collections.abc import Sequence

import pytest

from octane_analytics.errors import Rebalancing
from octane_analytics.types import Commit, Committed
from tests.fakes.group_member import Resent
from tests.fakes.journal import InsertEntry
from tests.support.ingest_rig import DOWN, P0, P1, Rig, event, intent, names, once, token_of


def test_announcement_is_repeated_during_rebalance() -> None:
    rig = Rig(size=3)
    rig.produce(0, 3)
    worker = rig.worker()
    rig.broker.faults.push("commit", *[Rebalancing("settling")] * 4)
    worker.turn(2)
    assert rig.inserts() == []
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3))
    assert worker.observer.details("failed") == []


def test_announcement_with_lost_answer_is_recovered() -> None:
    rig = Rig(size=3)
    worker = rig.worker()
    worker.turn(2)
    rig.produce(0, 3)
    rig.broker.faults.push("commit", DOWN, is_done=True)
    rig.settle(worker)
    assert worker.observer.details("restarting") == ["outcome of a commit is unknown"]
    assert worker.observer.details("recovered") == ["0:0-3"]
    assert rig.table.count() == once(names(0, 3))


@pytest.mark.parametrize("suspended_seconds", [6.0, 600.0])
def test_late_insert_finds_rows_without_token(
    suspended_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspended after its announcement, while another worker inserts the batch and a rebuilt month
    forgets the token."""
    rig = Rig(size=3)
    rig.broker.is_balancing = False
    first, second = rig.worker(), rig.worker()
    rig.broker.move(0, first.source)
    first.turn(2)
    rig.produce(0, 3)
    commit = first.source.commit

    def suspend_after(commits: Sequence[Commit]) -> None:
        commit(commits)
        if commits[0].metadata == intent(0, 3):
            rig.broker.expire(first.source)
            rig.broker.move(0, second.source)
            rig.settle(second)
            assert rig.table.count() == once(names(0, 3))
            rig.table.tokens.clear()
            rig.clock.sleep(suspended_seconds)

    monkeypatch.setattr(first.source, "commit", suspend_after)
    first.turn(2)
    assert rig.table.tokens == []
    assert rig.table.count() == once(names(0, 3))


@pytest.mark.parametrize("commit_seconds", [[6.0], [6.0, 11.0, 21.0], [600.0]])
def test_late_insert_of_a_member_counts_nothing(
    commit_seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other worker can have inserted the batch: equal rows of earlier ones do not stand in for it."""
    rig = Rig(size=3)
    worker = rig.worker()
    rig.produce(0, 3)
    rig.settle(worker)
    commit = worker.source.commit

    def commit_slowly(commits: Sequence[Commit]) -> None:
        commit(commits)
        if commit_seconds:
            rig.clock.sleep(commit_seconds.pop(0))

    monkeypatch.setattr(worker.source, "commit", commit_slowly)
    rig.produce(0, 3)
    rig.settle(worker)
    assert commit_seconds == []
    assert rig.table.count() == once(names(0, 3), names(0, 3))
    assert worker.observer.details("restarting") == []


def test_revoked_partition_is_finished_and_committed() -> None:
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


def test_pending_batch_is_inserted_before_revocation() -> None:
    rig = Rig(size=3)
    rig.broker.is_balancing = False
    first, second = rig.worker(), rig.worker()
    rig.broker.move(0, first.source)
    first.turn(2)
    rig.produce(0, 3)
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


def test_partition_revoked_during_outage_is_recovered() -> None:
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
    assert second.observer.details("recovered") == ["0:0-3"]
    assert rig.table.count() == once(names(0, 3))


def test_unannounced_records_are_inserted_at_revocation() -> None:
    rig = Rig(size=3)
    rig.broker.is_balancing = False
    rig.produce(0, 2)
    first, second = rig.worker(), rig.worker()
    rig.broker.move(0, first.source)
    first.turn(3)
    rig.broker.move(0, second.source)
    first.turn()
    assert rig.broker.committed[P0] == Committed(2, intent(2, 2))
    rig.produce(2, 5)
    rig.settle(second)
    assert rig.table.count() == once(names(0, 5))


def test_unannounced_records_are_left_during_outage() -> None:
    rig = Rig(size=3)
    rig.broker.is_balancing = False
    first, second = rig.worker(), rig.worker()
    rig.broker.move(0, first.source)
    first.turn(2)
    rig.produce(0, 3)
    rig.table.faults.push("insert", *[DOWN] * 5)
    first.turn(3)
    rig.produce(3, 5)
    first.turn(1)
    rig.broker.move(0, second.source)
    first.turn()
    rig.table.faults.clear()
    rig.produce(5, 6)
    rig.settle(second)
    assert rig.table.count() == once(names(0, 6))


def test_lost_partition_is_forgotten_without_commit() -> None:
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


def test_insert_of_zombie_changes_nothing() -> None:
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
    assert first.observer.calls["insert"] == 2
    assert len(rig.inserts()) == inserts  # looked first
    assert rig.table.count() == once(names(0, 3))


@pytest.mark.parametrize("is_stored", [True, False])
def test_resent_announcement_is_repeated_unchanged(is_stored: bool) -> None:
    rig = Rig(size=3)
    worker = rig.worker()
    worker.turn(2)
    rig.produce(0, 3)
    rig.broker.faults.push("commit", Resent("settling"), is_done=is_stored)
    worker.turn(1)
    rig.produce(3, 6)
    rig.settle(worker)
    assert "restarting" not in worker.observer.names()
    assert rig.inserts()[0] == InsertEntry(token_of(0, 3), 3)
    assert rig.table.count() == once(names(0, 6))


@pytest.mark.parametrize("is_stored", [True, False])
def test_resent_announcement_without_member_is_recovered(is_stored: bool) -> None:
    rig = Rig(size=4, partitions=2, flush_seconds=20.0)
    rig.broker.is_balancing = False
    first, second = rig.worker(), rig.worker()
    for partition in (0, 1):
        rig.broker.move(partition, first.source)
    first.turn(2)
    rig.produce(0, 2, 0)
    rig.produce(2, 4, 1)
    rig.broker.faults.push("commit", Resent("settling"), is_done=is_stored)
    first.turn(1)
    rig.broker.faults.push("commit", *[Rebalancing("settling")] * 2)
    rig.broker.move(1, second.source)
    for _ in range(3):
        first.turn(1)
        second.turn(1)
    rig.broker.move(0, first.source)
    rig.settle(first, second)
    assert first.observer.names().count("restarting") == 1
    assert rig.table.count() == once(names(0, 4))


def test_zombie_cannot_announce() -> None:
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


def test_partition_lost_and_regained_keeps_its_dead_letters() -> None:
    rig = Rig(size=4, partitions=2)
    rig.broker.is_balancing = False
    worker = rig.worker()
    for partition in (0, 1):
        rig.broker.move(partition, worker.source)
    worker.turn(2)
    rig.produce(0, 2, 0)
    rig.broker.append(1, event("e2"), b"not an event")
    rig.table.faults.push("insert", *[DOWN] * 3)
    rig.broker.faults.push("dead_letters", *[DOWN] * 3)
    worker.turn(2)
    rig.broker.targets.pop(P1)
    worker.turn(1)
    rig.broker.move(1, worker.source)
    rig.settle(worker)
    assert rig.table.count() == once(names(0, 3))
    assert [r.record.partition() for r in rig.broker.dead_letters] == [1]
    assert worker.observer.rows == 3
