from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.kafka.client_ids import version_of
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.operations.group_readiness import GroupReadiness, look, wait_until_ready
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.types import Committed, LogIdentity, PartitionRange, TopicPartition

TOPIC = "octane.events"
LOG = LogIdentity("cluster", "topic", "")
NOTHING = Committed(7, completed(TOPIC, LOG))
VERSION_1 = Committed(5, "octane1;5-9;cluster;topic;")
VERSION_2 = Committed(3, Intent(TOPIC, LOG, (PartitionRange(0, 3, 5),)).metadata())
VERSION_3 = Committed(3, "octane3;what;ever")


def where(number: int) -> TopicPartition:
    return TopicPartition(TOPIC, number)


def member(client_id: str) -> Member:
    return Member(client_id, None, client_id, "10.0.0.1", frozenset({where(0)}))


class FakeGroup:
    def __init__(self, clients: Sequence[str], committed: Mapping[int, Committed]) -> None:
        self._clients = clients
        self._committed = committed

    def state(self) -> GroupState:
        return GroupState("stable", tuple(map(member, self._clients)))

    def partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in self._committed]

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return {each: self._committed[each.partition] for each in partitions}

    def identity(self, topic: str) -> LogIdentity:
        return LOG


def found(
    clients: Sequence[str] = (),
    committed: Sequence[Committed] = (NOTHING,),
    protocol: int | None = None,
) -> GroupReadiness:
    return look(FakeGroup(clients, dict(enumerate(committed))), "workers", TOPIC, protocol)


@pytest.mark.parametrize(
    ("committed", "ready_for"),
    [
        (NOTHING, {None, 1, 2}),
        (Committed(None, ""), {None, 1, 2}),
        (VERSION_1, {1, 2}),
        (VERSION_2, {2}),
        (VERSION_3, set()),
        (Committed(4, VERSION_2.metadata), {None, 1, 2}),
    ],
)
def test_batch_blocks_versions_that_cannot_read_it(
    committed: Committed, ready_for: set[int | None]
) -> None:
    assert {p for p in (None, 1, 2) if found((), (committed,), p).is_ready} == ready_for


@given(
    st.lists(
        st.sampled_from(
            ("octane-analytics-0", "octane-analytics-v2", "octane-analytics-v3-1", "others")
        )
    ),
    st.none() | st.integers(1, 3),
)
def test_worker_blocks_unless_of_the_given_protocol(
    clients: Sequence[str], protocol: int | None
) -> None:
    readiness = found(clients, protocol=protocol)
    versions = {version_of(client) for client in clients} - {None}
    assert readiness.is_ready == (versions <= {protocol})
    assert readiness.is_ready == (not readiness.obstacles())
    assert readiness.is_ready == readiness.as_object()["ready"]


def test_obstacle_names_workers_hosts_and_partitions() -> None:
    lines = found(["octane-analytics-0"], (NOTHING, VERSION_1), 2).obstacles()
    assert len(lines) == 1
    assert "a worker of another protocol than 2: octane-analytics-0@10.0.0.1; stop" in lines[0]
    (line,) = found((), (NOTHING, VERSION_1)).obstacles()
    assert "has a pending batch, of partitions 1: start" in line
    many = found([f"octane-analytics-{number}" for number in range(20)]).obstacles()[0]
    assert "has 20 workers: " in many
    assert "and 12 more" in many


class Waiting:
    """Clock, and the results of the looks, in turn; the last one repeats."""

    def __init__(self, *results: GroupReadiness | Unavailable) -> None:
        self._results = list(results)
        self.now = 0.0
        self.lines: list[str] = []

    def _look(self) -> GroupReadiness:
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, Unavailable):
            raise result
        return result

    def _sleep(self, seconds: float) -> bool:
        assert seconds > 0
        self.now += seconds
        return False

    def run(self, seconds: float, sleep: Callable[[float], bool] | None = None) -> GroupReadiness:
        return wait_until_ready(
            self._look,
            seconds,
            on_wait=self.lines.append,
            now=lambda: self.now,
            sleep=sleep or self._sleep,
        )


def test_wait_reports_changes_until_drained() -> None:
    busy, killed = found(["octane-analytics-v2-0"]), found((), (VERSION_2,))
    waiting = Waiting(busy, busy, Unavailable("no broker"), killed, killed, found())
    assert waiting.run(60.0).is_ready
    assert waiting.now == 5.0
    assert waiting.lines == [*busy.obstacles(), "no broker", *killed.obstacles()]


def test_wait_ends_with_the_last_result() -> None:
    waiting = Waiting(found(["octane-analytics-v2-0"]))
    assert not waiting.run(2.5).is_ready
    assert waiting.now == 2.5
    assert not Waiting(found(["octane-analytics-v2-0"])).run(9.0, lambda _: True).is_ready


def test_wait_raises_outage_at_its_end_only() -> None:
    waiting = Waiting(Unavailable("no broker"))
    with pytest.raises(Unavailable, match="no broker"):
        waiting.run(3.0)
    assert waiting.now == 3.0
    with pytest.raises(NeedsOperator):
        Waiting(NeedsOperator("grant")).run(3.0)
