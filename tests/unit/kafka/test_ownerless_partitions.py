"""When a group is asked to assign partitions without an owner."""

from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.kafka.ownerless_partitions import OwnerlessPartitionsWatch
from octane_analytics.types import TopicPartition


class HalfOwnedGroup:
    """Group of one member that owns some of four partitions."""

    def __init__(self) -> None:
        self.name = "stable"
        self.member_id = "first"
        self.owned = {0, 1}

    def state(self) -> GroupState:
        owned = frozenset(TopicPartition("t", number) for number in self.owned)
        return GroupState(self.name, (Member(self.member_id, None, "client", "host", owned),))

    def partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(4)]


class Rig:
    def __init__(self) -> None:
        self.group = HalfOwnedGroup()
        self.time = 0.0
        self.rebalances: list[float] = []
        self.watch = OwnerlessPartitionsWatch(
            self.group,
            "t",
            lambda: self.rebalances.append(self.time),
            lambda report: None,
            now=lambda: self.time,
        )

    def look(self, seconds: float = 15.0) -> bool:
        self.time += seconds
        return self.watch.look()


def test_second_look_alike_makes_group_rebalance() -> None:
    rig = Rig()
    assert rig.look()
    assert rig.rebalances == []
    assert rig.look()
    assert rig.rebalances == [30.0]


def test_changes_between_looks_are_waited_for() -> None:
    rig = Rig()
    rig.look()
    rig.group.member_id = "second"
    rig.look()
    rig.group.owned = {0, 1, 2}
    rig.look()
    rig.group.name = "preparing_rebalance"
    assert not rig.look()
    rig.group.name = "stable"
    rig.look()
    assert rig.rebalances == []


def test_owned_partitions_make_no_rebalance() -> None:
    rig = Rig()
    rig.group.owned = {0, 1, 2, 3}
    assert not any(rig.look() for _ in range(10))
    assert rig.rebalances == []


def test_rebalances_without_effect_become_rare() -> None:
    rig = Rig()
    for _ in range(400):
        rig.look()
    pauses = [b - a for a, b in zip(rig.rebalances, rig.rebalances[1:], strict=False)]
    assert pauses[:3] == [30.0, 60.0, 120.0]
    assert set(pauses[5:]) == {600.0}
