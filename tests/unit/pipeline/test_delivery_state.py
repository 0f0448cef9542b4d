"""The delivery state, rule by rule; what the rules add up to is in test_delivery_search."""

import pytest

from octane_analytics.pipeline.delivery_state import (
    DeliveryState,
)
from octane_analytics.pipeline.intents import (
    MAX_COMMIT_BYTES,
    Intent,
    completed,
    parse_intent,
)
from octane_analytics.pipeline.start_positions import StartPosition, start_position
from octane_analytics.types import (
    Commit,
    CommitOutcome,
    Committed,
    LogIdentity,
    PartitionRange,
    TopicPartition,
)

TOPIC = "octane.events"
LOG = LogIdentity("cluster", "topic-1", "")
NOTHING = completed(TOPIC, LOG)
UNKNOWN = CommitOutcome(is_unknown=True)
REFUSED = CommitOutcome()


def intent(*items: tuple[int, int, int], log: LogIdentity = LOG) -> Intent:
    return Intent(TOPIC, log, tuple(PartitionRange(*item) for item in items))


def accepted(*numbers: int) -> CommitOutcome:
    return CommitOutcome(frozenset(numbers))


def offsets(commits: list[Commit]) -> dict[int, tuple[int, bool]]:
    """By partition: the offset, and whether something is pending."""
    found = {}
    for commit in commits:
        parsed = parse_intent(TOPIC, commit.partition.partition, commit.metadata)
        assert parsed is not None
        found[commit.partition.partition] = (commit.offset, parsed.is_pending)
    return found


def worker(*starts: int, confirmed: bool = True) -> DeliveryState:
    state = DeliveryState(TOPIC)
    for number, start in enumerate(starts):
        state.assign(number, LOG, start, None)
    if confirmed:
        state.completed(accepted(*range(len(starts))))
    return state


def announced(*ends: int) -> DeliveryState:
    state = worker(*(0 for _ in ends))
    for number, end in enumerate(ends):
        state.extend(number, end)
    state.freeze()
    state.announced(accepted(*range(len(ends))))
    return state


def test_partition_is_readable_after_its_commit() -> None:
    state = worker(5, 7, confirmed=False)
    assert not state.is_readable(0)
    with pytest.raises(ValueError, match="not readable"):
        state.extend(0, 6)
    assert offsets(state.completion()) == {0: (5, False), 1: (7, False)}
    state.completed(accepted(0))
    assert state.is_readable(0)
    assert not state.is_readable(1)
    assert offsets(state.completion()) == {1: (7, False)}


def test_every_partition_announces_all_ranges() -> None:
    state = worker(5, 7, 9)
    state.extend(0, 8)
    state.extend(2, 10)
    assert state.open_ranges == [(0, 5, 8), (2, 9, 10)]
    assert state.freeze() == intent((0, 5, 8), (2, 9, 10))
    metadata = intent((0, 5, 8), (2, 9, 10)).metadata()
    assert state.announcement() == [
        Commit(TopicPartition(TOPIC, 0), 5, metadata),
        Commit(TopicPartition(TOPIC, 2), 9, metadata),
    ]
    state.announced(accepted(0, 2))
    assert state.announcement() == []
    assert state.pending is not None
    assert state.pending.is_announced
    assert not state.pending.is_repeat


def test_next_announcement_completes_other_partitions() -> None:
    state = announced(3, 4)
    state.inserted(intent((0, 0, 3), (1, 0, 4)))
    state.extend(0, 5)
    state.freeze()
    assert offsets(state.announcement()) == {0: (3, True), 1: (4, False)}
    state.announced(accepted(0, 1))
    assert state.completion() == []
    state.inserted(intent((0, 3, 5)))
    assert offsets(state.completion()) == {0: (5, False)}
    assert offsets(state.completion([1])) == {}


def test_refused_announcement_is_made_again_unchanged() -> None:
    state = worker(0, 0)
    state.extend(0, 3)
    state.freeze()
    before = state.announcement()
    state.announced(REFUSED)
    assert state.announcement() == before
    with pytest.raises(ValueError, match="not announced"):
        state.inserted(intent((0, 0, 3)))


@pytest.mark.parametrize("call", ["announced", "completed"])
def test_unknown_outcome_is_a_restart(call: str) -> None:
    state = worker(0)
    state.extend(0, 3)
    state.freeze()
    getattr(state, call)(UNKNOWN)
    assert state.must_restart
    assert state.pending is not None
    assert not state.pending.is_announced


def test_unannounced_batch_is_void_without_its_member() -> None:
    state = worker(0, 0, 0)
    for number in range(2):
        state.extend(number, 3)
    state.freeze()
    state.extend(0, 6)
    state.extend(2, 2)
    assert state.drop([1]) == {0: 0, 2: 0}
    assert state.pending is None
    assert state.open_ranges == []
    assert state.position(0) == 0


def test_open_batch_is_void_without_its_member() -> None:
    state = announced(3, 3)
    state.extend(0, 5)
    state.extend(1, 5)
    assert state.drop([1]) == {0: 3}
    assert state.pending is not None
    assert state.open_ranges == []


def test_drop_leaves_a_batch_without_the_partition_alone() -> None:
    state = worker(0, 0)
    state.extend(0, 3)
    assert state.drop([1, 7]) == {}
    assert state.open_ranges == [(0, 0, 3)]


def test_announced_batch_without_member_is_repeat() -> None:
    state = announced(3, 4)
    assert state.drop([1]) == {}
    assert state.pending is not None
    assert state.pending.is_repeat
    state.assign(1, LOG, 9, None)
    state.inserted(intent((0, 0, 3), (1, 0, 4)))
    # 9 is its first commit of the new assignment, not the end of the batch.
    assert offsets(state.completion()) == {0: (3, False), 1: (9, False)}


def test_regained_partition_needs_no_recovery() -> None:
    state = announced(3, 4)
    state.drop([1])
    state.assign(1, LOG, 0, intent((0, 0, 3), (1, 0, 4)))
    assert state.recoveries() == []
    assert not state.is_readable(1)
    state.inserted(intent((0, 0, 3), (1, 0, 4)))
    assert offsets(state.completion()) == {0: (3, False), 1: (4, False)}
    assert state.position(1) == 4


def test_batch_is_recovered_once_per_worker() -> None:
    left = intent((0, 0, 3), (1, 0, 4), (7, 5, 6))
    state = DeliveryState(TOPIC)
    state.assign(0, LOG, 0, left)
    state.assign(1, LOG, 0, left)
    state.assign(2, LOG, 8, None)
    assert state.recoveries() == [left]
    # Another partition goes on meanwhile.
    state.completed(accepted(2))
    assert state.extend(2, 9)
    state.inserted(left)
    assert state.recoveries() == []
    assert offsets(state.completion()) == {0: (3, False), 1: (4, False)}
    assert state.position(1) == 4


def test_recovery_ends_with_its_last_partition() -> None:
    state = DeliveryState(TOPIC)
    state.assign(0, LOG, 0, intent((0, 0, 3), (1, 0, 4)))
    state.drop([0])
    assert state.recoveries() == []
    assert state.completion() == []


def test_partly_accepted_announcement_is_withdrawn() -> None:
    state = worker(0, 0, 0)
    for number in range(3):
        state.extend(number, 3)
    state.freeze()
    state.announced(accepted(0, 2))
    assert state.announcement() == []
    assert offsets(state.withdrawal()) == {0: (0, False), 2: (0, False)}
    assert state.withdrawn(accepted(0, 2)) == {0: 0, 1: 0, 2: 0}
    assert state.pending is None
    assert [state.is_readable(number) for number in range(3)] == [True, False, True]


@pytest.mark.parametrize("outcome", [REFUSED, UNKNOWN, CommitOutcome(frozenset({0}))])
def test_withdrawal_that_fails_stops_the_worker(outcome: CommitOutcome) -> None:
    state = worker(0, 0, 0)
    for number in range(3):
        state.extend(number, 3)
    state.freeze()
    state.announced(accepted(0, 2))
    assert state.withdrawn(outcome) == {}
    assert state.stop_reason is not None


def test_withdrawal_of_lost_partition_stops_worker() -> None:
    state = worker(0, 0, 0)
    for number in range(3):
        state.extend(number, 3)
    state.freeze()
    state.announced(accepted(0, 2))
    state.drop([1])
    assert state.stop_reason is None
    assert offsets(state.withdrawal()) == {0: (0, False), 2: (0, False)}
    state.drop([2])
    assert state.stop_reason is not None


def test_batch_of_recreated_topic_is_inserted_first() -> None:
    state = announced(3, 4)
    state.extend(0, 6)
    state.replace_log()
    before = state.must_restart
    assert state.pending is not None
    state.inserted(state.pending.intent)
    assert (before, state.must_restart) == (False, True)
    assert state.completion() == []


def test_partition_of_another_log_means_a_restart() -> None:
    state = worker(0)
    state.assign(1, LOG._replace(topic_id="topic-2"), 0, None)
    assert state.must_restart
    assert state.partitions == []


def test_newly_known_topic_id_is_same_log() -> None:
    state = DeliveryState(TOPIC)
    state.assign(0, LOG._replace(topic_id=""), 0, None)
    state.assign(1, LOG, 0, None)
    assert not state.must_restart
    assert state.log == LOG._replace(topic_id="")


def test_batch_without_room_is_frozen_first() -> None:
    count = 250
    state = worker(*(5_000_000_000 for _ in range(count)))
    taken = 0
    while state.extend(taken, 5_000_000_001):
        taken += 1
    assert 100 < taken < count
    assert state.position(taken) == 5_000_000_000
    state.freeze()
    commits = state.announcement()
    assert (
        sum(len(c.metadata) for c in commits if parse_intent(TOPIC, 0, c.metadata))
        <= MAX_COMMIT_BYTES
    )
    state.announced(accepted(*range(taken)))
    assert state.extend(taken, 5_000_000_001)


def test_completions_beyond_one_commit_follow_in_the_next() -> None:
    count = 20_000
    state = worker(*(7 for _ in range(count)), confirmed=False)
    done: set[int] = set()
    while commits := state.completion():
        assert sum(len(c.metadata) for c in commits) < 500_000
        numbers = {c.partition.partition for c in commits}
        assert done.isdisjoint(numbers)
        done |= numbers
        state.completed(CommitOutcome(frozenset(numbers)))
    assert len(done) == count


def test_at_least_once_inserts_without_an_announcement() -> None:
    state = DeliveryState(TOPIC, has_intents=False)
    state.assign(0, LOG, 0, None)
    state.completed(accepted(0))
    state.extend(0, 3)
    frozen = state.freeze()
    assert frozen is not None
    assert state.announcement() == []
    state.inserted(frozen)
    state.extend(0, 5)
    assert offsets(state.completion()) == {0: (3, False)}


def test_assign_refuses_a_partition_twice() -> None:
    with pytest.raises(ValueError, match="assigned already"):
        worker(0).assign(0, LOG, 0, None)


OTHER_TOPIC = LOG._replace(topic_id="topic-0")


@pytest.mark.parametrize(
    ("committed", "expected"),
    [
        (Committed(None, ""), StartPosition(None)),
        (Committed(7, ""), StartPosition(7)),
        (Committed(7, "by another program"), StartPosition(7)),
        (Committed(7, NOTHING), StartPosition(7)),
        (Committed(0, intent((0, 0, 3)).metadata()), StartPosition(0, intent((0, 0, 3)))),
        (Committed(1, intent((0, 0, 3)).metadata()), StartPosition(1)),
        (Committed(0, intent((1, 0, 3)).metadata()), StartPosition(0)),
        (Committed(0, intent((0, 0, 3), log=OTHER_TOPIC).metadata()), StartPosition(None)),
        (Committed(7, completed(TOPIC, OTHER_TOPIC)), StartPosition(None)),
        (
            Committed(0, intent((0, 0, 3), log=OTHER_TOPIC._replace(cluster_id="x")).metadata()),
            StartPosition(0),
        ),
        (
            Committed(0, intent((0, 0, 3), log=LOG._replace(epoch="before")).metadata()),
            StartPosition(0, intent((0, 0, 3), log=LOG._replace(epoch="before"))),
        ),
        (
            Committed(0, intent((0, 0, 3), log=OTHER_TOPIC._replace(epoch="before")).metadata()),
            StartPosition(None),
        ),
        (
            Committed(0, intent((0, 0, 3), log=LOG._replace(topic_id="")).metadata()),
            StartPosition(0, intent((0, 0, 3), log=LOG._replace(topic_id=""))),
        ),
    ],
)
def test_start_position_is_what_the_last_owner_committed(
    committed: Committed, expected: StartPosition
) -> None:
    assert start_position(TOPIC, 0, committed, LOG) == expected
