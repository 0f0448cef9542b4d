"""Members of another version or table: which they are, waits for static ones, and repeated reports."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.client_ids import (
    PROTOCOL_VERSION,
    TableMark,
    mark_of,
    version_of,
    worker_client_id,
)
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.kafka.group_conflicts import ConflictWatch, find_conflict
from octane_analytics.settings.connections import KafkaSettings
from tests.fakes.clock import FakeClock

SETTINGS = KafkaSettings(group_id="writers", rdkafka={"session.timeout.ms": "10000"})


def member(client_id: str, instance_id: str | None = None) -> Member:
    return Member(f"{client_id}-id", instance_id, client_id, "10.0.0.1", frozenset())


OWN_MARK = TableMark("0a0a0a", "1b1b1b", "2c2c2c")
OTHER_TABLE = TableMark("0a0a0a", "1b1b1c", "2c2c2c")
OTHER_SERVER = TableMark("0a0a0a", "1b1b1b", "2c2c2d")
OTHER_TOPIC = TableMark("0a0a0b", "1b1b1c", "2c2c2d")
SAME_TABLES = (OWN_MARK, OWN_MARK._replace(server=""), OTHER_TOPIC, None)
OWN, FOREIGN = member(worker_client_id(0, OWN_MARK)), member("kcat")
OLD, OLD_STATIC = member("octane-analytics-0"), member("octane-analytics-1", "host-1")


class Group:
    """Group whose members are those of each look in turn, then of the last one."""

    def __init__(self, *looks: Sequence[Member]) -> None:
        self._looks = list(looks)
        self.error: Unavailable | None = None

    def state(self) -> GroupState:
        if self.error is not None:
            raise self.error
        looks = self._looks
        return GroupState("stable", tuple(looks.pop(0) if len(looks) > 1 else looks[0]))


@pytest.mark.parametrize(
    ("client_id", "version"),
    [
        ("octane-analytics", 1),
        ("octane-analytics-31", 1),
        ("octane-analytics-v2-0", 2),
        ("octane-analytics-v2", 2),
        ("octane-analytics-v30-1", 30),
        ("octane-analytics-v2-t0a0a0a1b1b1b2c2c2c", 2),
        ("octane-analytics-v2-0-t0a0a0a1b1b1b2c2c2c", 2),
        ("octane-analytics-v2-0-t0a0a0a1b1b1b", 2),
        ("octane-analytics-v2-0-t0a0a0a1b1b", None),
        ("octane-analytics-v2-0-t0a0a0a1b1b1b2c2c2c2d", None),
        ("octane-analytics-dlq-1", None),
        ("octane-analytics-v2-0\n", None),
        ("octane-analytics-v²", None),
        ("kcat", None),
        ("", None),
    ],
)
def test_version_is_read_from_client_id(client_id: str, version: int | None) -> None:
    assert version_of(client_id) == version


@given(st.none() | st.integers(0, 4096))
def test_own_client_id_has_own_version(slot: int | None) -> None:
    assert version_of(worker_client_id(slot)) == PROTOCOL_VERSION


_hashes = st.text("0123456789abcdef", min_size=6, max_size=6)


@given(
    st.none() | st.integers(0, 4096), st.builds(TableMark, _hashes, _hashes, st.just("") | _hashes)
)
def test_client_id_holds_version_and_mark(slot: int | None, mark: TableMark) -> None:
    assert version_of(worker_client_id(slot, mark)) == PROTOCOL_VERSION
    assert mark_of(worker_client_id(slot, mark)) == mark
    assert mark_of(worker_client_id(slot)) is None


@given(st.text())
def test_version_of_any_client_id_is_positive(client_id: str) -> None:
    assert version_of(client_id) is None or client_id.startswith("octane-analytics")


def test_own_and_foreign_members_are_no_obstacle() -> None:
    assert find_conflict(Group([OWN, FOREIGN]), SETTINGS, OWN_MARK) is None


def test_dynamic_member_of_other_version_is_not_awaited() -> None:
    clock = FakeClock()
    group = Group([OWN, OLD, OLD_STATIC])
    reason = find_conflict(group, SETTINGS, OWN_MARK, now=clock.now, sleep=clock.sleep)
    assert reason is not None
    assert "octane-analytics-0@10.0.0.1" in reason
    assert "stop `octane-analytics worker`" in reason
    assert "\n" not in reason
    assert clock.now() == FakeClock().now()


def test_static_member_is_awaited_for_session_timeout() -> None:
    waits: list[str] = []
    clock = FakeClock()
    start = clock.now()
    gone = Group(*[[OLD_STATIC]] * 5, [OWN])
    arguments = {"now": clock.now, "sleep": clock.sleep}
    assert find_conflict(gone, SETTINGS, OWN_MARK, on_wait=waits.append, **arguments) is None  # type: ignore[arg-type]
    assert len(waits) == 1
    start = clock.now()
    assert find_conflict(Group([OLD_STATIC]), SETTINGS, OWN_MARK, **arguments) is not None  # type: ignore[arg-type]
    assert 10 <= clock.now() - start <= 15


@pytest.mark.parametrize("mark", SAME_TABLES)
def test_same_table_or_another_topic_is_accepted(mark: TableMark | None) -> None:
    group = Group([OWN, member(worker_client_id(1, mark))])
    assert find_conflict(group, SETTINGS, OWN_MARK) is None


@pytest.mark.parametrize("mark", [OTHER_TABLE, OTHER_SERVER, OTHER_TABLE._replace(server="")])
def test_worker_of_another_table_is_refused(mark: TableMark) -> None:
    group = Group([OWN, member(worker_client_id(1, mark))])
    reason = find_conflict(group, SETTINGS, OWN_MARK)
    assert reason is not None
    assert f"{worker_client_id(1, mark)}@10.0.0.1" in reason
    assert worker_client_id(0, OWN_MARK) not in reason
    assert "another KAFKA_GROUP_ID" in reason
    assert "\n" not in reason
    assert find_conflict(group, SETTINGS, None) is None


def test_other_version_is_reported_before_other_table() -> None:
    group = Group([member(worker_client_id(1, OTHER_TABLE)), OLD])
    reason = find_conflict(group, SETTINGS, OWN_MARK)
    assert reason is not None
    assert "another version of this service (octane-analytics-0@10.0.0.1)" in reason


def test_unreadable_session_timeout_counts_as_default() -> None:
    clock = FakeClock()
    settings = KafkaSettings(rdkafka={"session.timeout.ms": "²"})
    start = clock.now()
    assert find_conflict(Group([OLD_STATIC]), settings, OWN_MARK, now=clock.now, sleep=clock.sleep)
    assert 45 <= clock.now() - start <= 50


def test_unknown_members_raise_unavailable() -> None:
    group = Group([OWN])
    group.error = Unavailable("no coordinator")
    with pytest.raises(Unavailable):
        find_conflict(group, SETTINGS, OWN_MARK)


def test_watch_reports_new_members_and_repeats_itself() -> None:
    reports: list[str] = []
    clock = FakeClock()
    group = Group([OWN], [OWN, OLD], [OWN, OLD], [OLD, OLD_STATIC], [OLD_STATIC], [OWN], [OLD])
    clock.sleep(1000)
    watch = ConflictWatch(
        group, "writers", lambda: OWN_MARK, reports.append, now=clock.now, repeat_seconds=300
    )
    counts = []
    for _ in range(7):
        watch.look()
        clock.sleep(15)
        counts.append(len(reports))
    assert counts == [0, 1, 1, 2, 2, 2, 3]
    clock.sleep(300)
    assert watch.look()
    assert len(reports) == 4
