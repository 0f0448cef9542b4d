from collections.abc import Mapping, Sequence

from octane_analytics.cli.lag import lines
from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka.group import GroupState, Member
from octane_analytics.operations.lag import measure
from octane_analytics.types import Committed, Span, TopicPartition

TOPIC = "octane.events"
NOW = 1_770_000_100.0


def where(number: int) -> TopicPartition:
    return TopicPartition(TOPIC, number)


OWNER = Member("id", "host-0", "octane-analytics-0", "10.0.0.1", frozenset({where(0)}))


STABLE = GroupState("stable", (OWNER,))


class FakeGroup:
    def __init__(self, state: GroupState | OctaneError = STABLE) -> None:
        self._state = state
        self.asked: dict[TopicPartition, int] = {}

    def partitions(self, topic: str) -> list[TopicPartition]:
        return [where(number) for number in range(4)]

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return {
            where(0): Committed(5, "octane1;5-9;c;t;"),
            where(1): Committed(None, ""),
            where(2): Committed(20, "octane1;20-20;c;t;"),
            where(3): Committed(2, "octane1;1-9;c;t;"),
        }

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        return (7, 20) if partition == where(3) else (0, 20)

    def state(self) -> GroupState:
        if isinstance(self._state, OctaneError):
            raise self._state
        return self._state

    def timestamps(
        self, positions: Mapping[TopicPartition, int], seconds: float
    ) -> dict[TopicPartition, int]:
        self.asked = dict(positions)
        return {where(0): int((NOW - 30) * 1000), where(1): int((NOW + 30) * 1000)}


def test_lag_is_counted_from_what_the_log_still_holds() -> None:
    group = FakeGroup()
    found = measure(group, "workers", TOPIC, NOW)
    assert [p.messages for p in found.partitions] == [15, 20, 0, 13]
    assert [p.seconds for p in found.partitions] == [30.0, 0.0, 0.0, None]
    assert [p.pending for p in found.partitions] == [Span(5, 9), None, None, None]
    assert [p.owner for p in found.partitions] == [OWNER, None, None, None]
    assert [p.gone for p in found.partitions] == [0, 0, 0, 5]
    assert (found.messages, found.seconds) == (48, 30.0)
    assert group.asked == {where(0): 5, where(1): 0, where(3): 7}


def test_lag_is_a_table_with_totals() -> None:
    told = lines(measure(FakeGroup(), "workers", TOPIC, NOW))
    assert told[0] == "group workers (stable) of topic octane.events"
    assert told[2].split() == ["0", "5", "20", "15", "30.0", "5-9", "host-0@10.0.0.1"]
    assert told[3].split() == ["1", "-", "20", "20", "0.0", "-", "-"]
    assert told[6] == "48 messages behind, the oldest 30.0 s old"
    assert "5 offsets were removed by retention" in told[7]


def test_lag_does_without_what_the_broker_does_not_tell() -> None:
    found = measure(FakeGroup(Unavailable("no controller")), "workers", TOPIC, NOW)
    assert found.state == "unknown"
    assert lines(found)[2].endswith("unknown")


def test_lag_of_a_group_that_does_not_exist_says_so() -> None:
    assert measure(FakeGroup(GroupState("dead", ())), "w", TOPIC, NOW).state == "no such group"
