"""Which partitions stand still although the broker has more of them, or less than was read.

librdkafka can stop reading a partition without a word. Nothing that it tells of itself shows that: the
end it knows is the last fetch's. So whoever reads asks the broker for the end of a partition that has
been quiet for some time, and gives it some more, since a record may just have come in. An end before
the position is that of another log, or of a leader that has just become one: there librdkafka should
have said so. Pure: knows no client, and `now` is whatever clock the caller has.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from octane_analytics.types import TopicPartition


@dataclass(slots=True)
class _PartitionProgress:
    position: int
    """The next offset to hand out."""
    since: float
    is_amiss: bool = False
    """Its log does not end where it is read to."""


class StallDetector:
    """A partition is watched from `begin` to `end`."""

    def __init__(self, patience: float, grace: float, revival: float) -> None:
        """A partition that is quiet for `patience` is `quiet`; one that turns out to end elsewhere then
        and stays quiet for `grace` is `stalled`; one of which nothing comes for `revival` after it was
        read anew is beyond that. All in units of `now`."""
        self._patience = patience
        self._grace = grace
        self._revival = revival
        self._revived: dict[TopicPartition, float] = {}
        """When those were read anew that stood still, until something of them comes."""
        self._standing: dict[TopicPartition, _PartitionProgress] = {}
        self.unseen: set[TopicPartition] = set()
        """Those of which nothing has come since `begin`: the client's word of where it is may still
        be that of before."""

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._standing

    def partitions(self) -> list[TopicPartition]:
        return list(self._standing)

    def position(self, partition: TopicPartition) -> int | None:
        """The next offset to hand out as far as is known; None where the partition is not watched."""
        standing = self._standing.get(partition)
        return None if standing is None else standing.position

    def assign(self, partition: TopicPartition, position: int, now: float) -> None:
        """The partition is read from `position` on; also where it was read from elsewhere before."""
        self._standing[partition] = _PartitionProgress(position, now)
        self.unseen.add(partition)

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._standing.pop(partition, None)
            self.unseen.discard(partition)
            self._revived.pop(partition, None)

    def records_received(self, partitions: Collection[tuple[object, object]]) -> None:
        """Something of these, given as topic and number, was handed out."""
        self.unseen.difference_update(partitions)
        self._revived = {p: at for p, at in self._revived.items() if p not in partitions}

    def restart(self, now: float) -> None:
        """Whatever was quiet until now had a reason to be."""
        for standing in self._standing.values():
            standing.since, standing.is_amiss = now, False

    def moved(self, positions: Mapping[TopicPartition, int], now: float) -> None:
        """Where each partition is; taken only from those of which something has come."""
        for partition, position in positions.items():
            standing = self._standing.get(partition)
            if standing is None or partition in self.unseen or position <= standing.position:
                continue
            self._standing[partition] = _PartitionProgress(position, now)

    def reached_end(self, partition: TopicPartition, offset: int, now: float) -> None:
        """There is nothing to hand out before `offset`."""
        standing = self._standing.get(partition)
        if standing is not None:
            self._standing[partition] = _PartitionProgress(max(offset, standing.position), now)
        self._revived.pop(partition, None)

    def quiet(self, now: float) -> list[TopicPartition]:
        """Those whose end is to be asked for, and told to `ends` then."""
        return [
            partition
            for partition, standing in self._standing.items()
            if not standing.is_amiss and now - standing.since >= self._patience
        ]

    def ends(
        self, asked: Iterable[TopicPartition], ends: Mapping[TopicPartition, int], now: float
    ) -> list[TopicPartition]:
        """What the broker answered; a partition that it told nothing of is asked for again later.

        Answers with those that end before their position.
        """
        short = []
        for partition in asked:
            standing = self._standing[partition]
            end = ends.get(partition, standing.position)
            standing.since = now
            standing.is_amiss = end != standing.position
            if end < standing.position:
                short.append(partition)
        return short

    def stalled(self, now: float) -> dict[TopicPartition, int]:
        """Those that are to be read anew, from where they are."""
        return {
            partition: standing.position
            for partition, standing in self._standing.items()
            if standing.is_amiss and now - standing.since >= self._grace
        }

    def revived(self, partitions: Iterable[TopicPartition], now: float) -> None:
        """They stood still, and are read anew from now on."""
        self._revived |= dict.fromkeys(partitions, now)

    def is_beyond_revival(self, now: float) -> bool:
        """Whether nothing has come of one that was read anew."""
        return any(now - since >= self._revival for since in self._revived.values())
