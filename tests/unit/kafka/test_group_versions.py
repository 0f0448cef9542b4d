"""Members of another protocol version: which they are, waits for static ones, and repeated reports."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.client_ids import PROTOCOL_VERSION, version_of, worker_client_id
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.kafka.group_versions import VersionWatch, find_other_versions
from octane_analytics.settings.connections import KafkaSettings
from tests.fakes.clock import FakeClock

SETTINGS = KafkaSettings(group_id="writers", rdkafka={"session.timeout.ms": "10000"})


def member(client_id: str, instance_id: str | None = None) -> Member:
    return Member(f"{client_id}-id", instance_id, client_id, "10.0.0.1", frozenset())


OWN, FOREIGN = member(worker_client_id(0)), member("kcat")
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


@given(st.text())
def test_version_of_any_client_id_is_positive(client_id: str) -> None:
    assert version_of(client_id) is None or client_id.startswith("octane-analytics")


def test_own_and_foreign_members_are_no_obstacle() -> None:
    assert find_other_versions(Group([OWN, FOREIGN]), SETTINGS) is None


def test_dynamic_member_of_other_version_is_not_awaited() -> None:
    clock = FakeClock()
    group = Group([OWN, OLD, OLD_STATIC])
    reason = find_other_versions(group, SETTINGS, now=clock.now, sleep=clock.sleep)
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
    assert find_other_versions(gone, SETTINGS, on_wait=waits.append, **arguments) is None  # type: ignore[arg-type]
    assert len(waits) == 1
    start = clock.now()
    assert find_other_versions(Group([OLD_STATIC]), SETTINGS, **arguments) is not None  # type: ignore[arg-type]
    assert 10 <= clock.now() - start <= 15


def test_unreadable_session_timeout_counts_as_default() -> None:
    clock = FakeClock()
    settings = KafkaSettings(rdkafka={"session.timeout.ms": "²"})
    start = clock.now()
    assert find_other_versions(Group([OLD_STATIC]), settings, now=clock.now, sleep=clock.sleep)
    assert 45 <= clock.now() - start <= 50


def test_unknown_members_raise_unavailable() -> None:
    group = Group([OWN])
    group.error = Unavailable("no coordinator")
    with pytest.raises(Unavailable):
        find_other_versions(group, SETTINGS)


def test_watch_reports_new_members_and_repeats_itself() -> None:
    reports: list[str] = []
    clock = FakeClock()
    group = Group([OWN], [OWN, OLD], [OWN, OLD], [OLD, OLD_STATIC], [OLD_STATIC], [OWN], [OLD])
    clock.sleep(1000)
    watch = VersionWatch(group, "writers", reports.append, now=clock.now, repeat_seconds=300)
    counts = []
    for _ in range(7):
        watch.look()
        clock.sleep(15)
        counts.append(len(reports))
    assert counts == [0, 1, 1, 2, 2, 2, 3]
    clock.sleep(300)
    assert watch.look()
    assert len(reports) == 4
