from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.cli.commands.lag import lag_lines as lines
from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.operations.lag import GroupLagReport, measure
from octane_analytics.types import Committed, OffsetRange, TopicPartition, UncommittedLag

TOPIC = "octane.events"
NOW = 1_770_000_100.0


def where(number: int) -> TopicPartition:
    return TopicPartition(TOPIC, number)


OWNER = Member("id", "host-0", "octane-analytics-0", "10.0.0.1", frozenset({where(0)}))


STABLE = GroupState("stable", (OWNER,))


class FakeGroup:
    def __init__(self, state: GroupState | OctaneError = STABLE) -> None:
        self._state = state

    def state(self) -> GroupState:
        if isinstance(self._state, OctaneError):
            raise self._state
        return self._state


class FakeProbe:
    def measure(self) -> Mapping[int, UncommittedLag]:
        return {
            0: UncommittedLag(Committed(5, "octane1;5-9;c;t;"), 0, 20, 20, NOW - 30),
            1: UncommittedLag(Committed(None, ""), 0, 20, 20, NOW + 30),
            2: UncommittedLag(Committed(20, "octane1;20-20;c;t;"), 0, 20, 20),
            3: UncommittedLag(Committed(2, "octane1;1-9;c;t;"), 7, 20, 20),
            4: UncommittedLag(Committed(12, ""), 0, 20, 14, NOW - 1),
        }


def found(state: GroupState | OctaneError = STABLE) -> GroupLagReport:
    return measure(FakeProbe(), FakeGroup(state), "workers", TOPIC, NOW)


def test_lag_counts_only_retained_offsets() -> None:
    lag = found()
    assert [p.lag.messages for p in lag.partitions] == [15, 20, 0, 13, 8]
    assert [p.lag.held_back for p in lag.partitions] == [0, 0, 0, 0, 6]
    assert [p.seconds for p in lag.partitions] == [30.0, 0.0, 0.0, None, 1.0]
    assert [p.pending_range for p in lag.partitions] == [OffsetRange(5, 9), None, None, None, None]
    assert [p.owner for p in lag.partitions] == [OWNER, None, None, None, None]
    assert [p.lag.removed for p in lag.partitions] == [0, 0, 0, 5, 0]
    assert (lag.messages, lag.held_back, lag.seconds) == (56, 6, 30.0)


@given(
    st.none() | st.integers(0, 50),
    st.lists(st.integers(0, 50), min_size=3, max_size=3).map(sorted),
)
def test_lag_never_leaves_the_log(committed: int | None, bounds: list[int]) -> None:
    first, stable_end, end = bounds
    lag = UncommittedLag(Committed(committed, ""), first, end, stable_end)
    assert 0 <= lag.held_back <= lag.messages <= end - first
    assert lag.held_back <= end - stable_end
    unread = range(max(first, committed or 0), end)
    assert lag.messages == len(unread)


def test_lag_is_a_table_with_totals() -> None:
    output = lines(found())
    assert output[0] == "group workers (stable) of topic octane.events"
    assert output[2].split() == ["0", "5", "20", "15", "30.0", "5-9", "host-0@10.0.0.1"]
    assert output[3].split() == ["1", "-", "20", "20", "0.0", "-", "-"]
    assert output[7] == "56 messages behind, the oldest 30.0 s old"
    assert output[8].startswith("6 of them are held back by an open transaction in partitions 4")
    assert "5 offsets were removed by retention" in output[9]


def test_lag_without_members_has_unknown_state() -> None:
    lag = found(Unavailable("no controller"))
    assert lag.state == "unknown"
    assert lines(lag)[2].endswith("unknown")


def test_lag_of_missing_group_reports_no_group() -> None:
    assert found(GroupState("dead", ())).state == "no such group"
