"""Every interleaving of a small world leaves each event in the table once; each rule is needed for that.

The world is `world.py`: two workers, two partitions, one or two records each. More takes minutes,
and is done with the number of worlds to hold in memory in DELIVERY_SEARCH_STATES (a million takes 2 GB).
"""

import os
from collections.abc import Iterable, Mapping

import pytest

from octane_analytics.operations.pending_batches import pending_batches
from octane_analytics.pipeline.delivery_state import DeliveryState
from octane_analytics.pipeline.intents import (
    Intent,
    completed,
    parse_intent,
)
from octane_analytics.types import (
    CommitOutcome,
    Committed,
    LogIdentity,
    OffsetRange,
    PartitionRange,
    TopicPartition,
)
from tests.model.world import TOPIC, Setup, Violation, search
from tests.support import version_1

MAX_STATES = int(os.environ.get("DELIVERY_SEARCH_STATES", "40000"))
LOG = LogIdentity("c", "t0", "")
BATCH = Intent(TOPIC, LOG, (PartitionRange(0, 0, 1), PartitionRange(1, 0, 1)))
VERSION_1 = version_1.Intent(OffsetRange(0, 2), LOG).metadata()


@pytest.mark.parametrize(
    "setup",
    [
        Setup(moves=2),
        Setup(crashes=1),
        Setup(half_inserts=1, moves=1),
        Setup(partial_commits=1, moves=1),
        Setup(records=1, crashes=2),
        Setup(records=1, crashes=1, moves=1),
        Setup(records=1, crashes=1, moves=1, half_inserts=1),
        Setup(records=1, crashes=1, delayed_commits=1),
        Setup(records=1, moves=2, delayed_commits=1),
        Setup(records=1, moves=2, lost_commits=1),
        Setup(records=1, moves=2, resent_commits=1),
        Setup(records=1, crashes=1, resent_commits=1),
        Setup(records=1, moves=2, failed_inserts=1, refused_commits=1),
        Setup(records=1, moves=1, partial_commits=1, refused_commits=1),
        Setup(records=1, expiries=1),
        Setup(records=1, crashes=1, removals=1),
        Setup(records=1, recreations=1, moves=1),
        Setup(records=1, crashes=1, refused_partition=1),
        Setup(records=1, crashes=1, workers=3),
        Setup(records=1, moves=1, partitions=3),
        Setup(records=1, moves=1, renewals=1, lost_commits=1),
        Setup(records=1, moves=1, renewals=1, partial_commits=1),
        Setup(records=1, expiries=1, renewals=1, partitions=1),
        Setup(records=1, crashes=1, renewals=1),
        Setup(records=1, crashes=1, shards=2, relistings=1, partitions=1),
        Setup(records=1, moves=1, shards=2, relistings=1),
    ],
    ids=lambda setup: ",".join(
        f"{name}={value}" for name, value in vars(setup).items() if value and isinstance(value, int)
    ),
)
def test_every_interleaving_inserts_each_event_once(setup: Setup) -> None:
    assert search(setup, MAX_STATES) > 50


@pytest.mark.skipif("DELIVERY_SEARCH_STATES" not in os.environ, reason="takes minutes")
@pytest.mark.parametrize(
    "setup",
    [
        Setup(moves=1, crashes=1),
        Setup(crashes=2),
        Setup(expiries=1),
        Setup(crashes=1, removals=1),
        Setup(moves=2, half_inserts=1, failed_inserts=1),
        Setup(moves=1, delayed_commits=1, lost_commits=1),
        Setup(recreations=1),
        Setup(records=1, crashes=1, recreations=1),
        Setup(records=1, crashes=1, expiries=1, moves=1),
        Setup(records=1, crashes=2, moves=2, half_inserts=1),
        Setup(records=1, crashes=1, moves=1, delayed_commits=1, lost_commits=1),
        Setup(records=1, crashes=1, partitions=3),
        Setup(records=1, crashes=1, moves=1, workers=3),
        Setup(records=1, crashes=1, shards=2, relistings=1),
        Setup(crashes=1, moves=1, shards=2, relistings=2, half_inserts=1, partitions=1),
    ],
)
def test_interleavings_of_larger_worlds_insert_once(setup: Setup) -> None:
    assert search(setup, MAX_STATES) > 1_000


class ForgetsAnnouncedBatch(DeliveryState):
    """Without rule 1: a batch that lost a partition is cut and read again."""

    def drop(self, partitions: Iterable[int]) -> dict[int, int]:
        gone = list(partitions)
        if self.pending is not None and not self.pending.members.isdisjoint(gone):
            self.pending.is_announced = False
        return super().drop(gone)


class CompletesWhatItOwns(DeliveryState):
    """Without rule 2: a partition that was lost and came back is completed."""

    def drop(self, partitions: Iterable[int]) -> dict[int, int]:
        members = set() if self.pending is None else set(self.pending.members)
        rewound = super().drop(partitions)
        if self.pending is not None:
            self.pending.members = members
        return rewound

    def inserted(self, intent: Intent) -> None:
        if self.pending is not None:
            self.pending.members &= set(self.partitions)
        super().inserted(intent)


class TakesUnknownForRefused(DeliveryState):
    """Without rule 3."""

    def announced(self, outcome: CommitOutcome) -> None:
        super().announced(CommitOutcome(outcome.accepted))

    def completed(self, outcome: CommitOutcome) -> None:
        super().completed(CommitOutcome(outcome.accepted))


class TakesUnknownForAccepted(DeliveryState):
    """Without rule 3."""

    def announced(self, outcome: CommitOutcome) -> None:
        super().announced(self._all(outcome))

    def completed(self, outcome: CommitOutcome) -> None:
        super().completed(self._all(outcome))

    def _all(self, outcome: CommitOutcome) -> CommitOutcome:
        if outcome.is_unknown:
            return CommitOutcome(
                frozenset(n for n in self.partitions if self._partitions[n].waits_for is None)
            )
        return outcome


class ForgetsLostMembers(DeliveryState):
    """Without rule 4: only a failed attempt makes a repeat."""

    def drop(self, partitions: Iterable[int]) -> dict[int, int]:
        was_repeat = self.pending is not None and self.pending.is_repeat
        rewound = super().drop(partitions)
        if self.pending is not None:
            self.pending.is_repeat = was_repeat
        return rewound


class TakesPartForAll(DeliveryState):
    """Without rule 8: one accepted intent announces the batch."""

    def announced(self, outcome: CommitOutcome) -> None:
        if self.pending is not None and self.pending.members & outcome.accepted:
            outcome = CommitOutcome(outcome.accepted | self.pending.members)
        super().announced(outcome)


class KeepsPartOfAnAnnouncement(DeliveryState):
    """Without rule 8: accepted intents are not withdrawn."""

    def announced(self, outcome: CommitOutcome) -> None:
        super().announced(outcome)
        if self.pending is not None:
            self.pending.withdrawing = frozenset()


class JoinsUnconfirmedPartitions(DeliveryState):
    """Without rule 8: a partition joins a batch before a commit of its own was accepted."""

    def is_readable(self, partition: int) -> bool:
        found = self._partitions.get(partition)
        return found is not None and found.waits_for is None


class RecoversUnderNewTokens(DeliveryState):
    """Without rule 10."""

    def assign(self, partition: int, log: LogIdentity, start: int, pending: Intent | None) -> None:
        if pending is not None:
            pending = Intent(pending.topic, pending.log, pending.ranges)
        super().assign(partition, log, start, pending)


def version_1_token() -> str:
    intent = parse_intent(TOPIC, 0, VERSION_1)
    assert intent is not None
    return intent.token()


UPGRADE = Setup(
    committed={0: Committed(0, VERSION_1)},
    late_inserts=(("", version_1_token(), frozenset({(0, 0), (0, 1)})),),
)


TWICE, MISSING = "there twice", "moved past"


@pytest.mark.parametrize(
    ("setup", "hole"),
    [
        (Setup(moves=1, state=ForgetsAnnouncedBatch), TWICE),
        (Setup(moves=2, state=CompletesWhatItOwns), "goes back"),
        (Setup(lost_commits=1, moves=1, state=TakesUnknownForRefused), TWICE),
        (Setup(delayed_commits=1, state=TakesUnknownForRefused), "goes back"),
        (Setup(delayed_commits=1, state=TakesUnknownForAccepted), "goes back"),
        (Setup(moves=1, half_inserts=1, state=ForgetsLostMembers), MISSING),
        (Setup(partial_commits=1, crashes=1, state=TakesPartForAll), TWICE),
        (Setup(partial_commits=1, moves=1, state=KeepsPartOfAnAnnouncement), TWICE),
        (Setup(refused_partition=1, crashes=1, records=1, state=JoinsUnconfirmedPartitions), TWICE),
        (Setup(crashes=1, shards=2, relistings=1, partitions=1, follows_intent=False), TWICE),
        (
            Setup(
                state=RecoversUnderNewTokens,
                committed=UPGRADE.committed,
                late_inserts=UPGRADE.late_inserts,
            ),
            TWICE,
        ),
    ],
    ids=lambda value: value.state.__name__ if isinstance(value, Setup) else "",
)
def test_search_finds_the_hole_without_the_rule(setup: Setup, hole: str) -> None:
    with pytest.raises(Violation, match=hole):
        search(setup, 400_000)


def test_version_1_intent_has_one_batch() -> None:
    assert search(UPGRADE, MAX_STATES) > 50


def test_offsets_of_pending_partitions_are_not_set() -> None:
    committed: Mapping[int, Committed] = {
        0: Committed(0, completed(TOPIC, LOG)),  # set by hand, though the other names it
        1: Committed(0, BATCH.metadata()),
    }
    live = {TopicPartition(TOPIC, number): found for number, found in committed.items()}
    assert pending_batches(live, LOG).partitions == [0, 1]
    with pytest.raises(Violation, match="there twice"):
        search(Setup(committed=committed), MAX_STATES)
    untouched = {n: Committed(0, BATCH.metadata()) for n in range(2)}
    assert search(Setup(committed=untouched), MAX_STATES) > 50
