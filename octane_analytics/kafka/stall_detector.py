"""Detects partitions that return no records although the broker has more of them, or fewer than read.

librdkafka can stop reading a partition without an error. None of its own state shows that: the end that
it knows is the last fetch's. So the caller asks the broker for the end of a partition that has been
quiet for some time, and then waits a little longer, since a record may just have come in. An end before
the position belongs to another log, or to a leader that has just become one: librdkafka should have
reported either. Pure: depends on no client, and `now` is of any clock of the caller.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from octane_analytics.types import OffsetRange, TopicPartition


@dataclass(slots=True)
class _PartitionProgress:
    position: int
    """Next offset to return."""
    since: float
    """Time of the last progress, or of the last comparison with the broker's end."""
    end: int | None = None
    """The broker's end if it differs from the position."""
    is_reported: bool = False
    """True once `settled` has returned the position."""
    moved_at: float = field(init=False)
    """Time of the last progress."""

    def __post_init__(self) -> None:
        self.moved_at = self.since


class StallDetector:
    """Watches a partition from `assign` to `unassign`."""

    def __init__(self, quiet_after: float, grace: float, revival: float) -> None:
        """Set the times, in units of `now`. Partitions without progress for `quiet_after` are `quiet`;
        if the end then differs from the position and no progress follows for `grace`, they are
        `stalled`; if nothing is received for `revival` after a reassignment, they are beyond revival."""
        self._quiet_after = quiet_after
        self._grace = grace
        self._revival = revival
        self._reassigned_at: dict[TopicPartition, float] = {}
        """Time at which each stalled partition was reassigned, until something of it is received."""
        self._progress: dict[TopicPartition, _PartitionProgress] = {}
        self.awaiting_first_record: set[TopicPartition] = set()
        """Partitions without a record since `assign`: the position that the client reports may still be
        that of the assignment before."""

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._progress

    def partitions(self) -> list[TopicPartition]:
        return list(self._progress)

    def position(self, partition: TopicPartition) -> int | None:
        """Return the next offset to return, as far as known; None if the partition is not watched."""
        progress = self._progress.get(partition)
        return None if progress is None else progress.position

    def assign(self, partition: TopicPartition, position: int, now: float) -> None:
        """Watch the partition from `position` on; replaces an earlier position."""
        self._progress[partition] = _PartitionProgress(position, now)
        self.awaiting_first_record.add(partition)

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._progress.pop(partition, None)
            self.awaiting_first_record.discard(partition)
            self._reassigned_at.pop(partition, None)

    def records_received(self, partitions: Collection[tuple[object, object]]) -> None:
        """Record that these partitions, given as topic and number, returned records."""
        self.awaiting_first_record.difference_update(partitions)
        self._reassigned_at = {
            p: at for p, at in self._reassigned_at.items() if p not in partitions
        }

    def restart(self, now: float) -> None:
        """Start all waiting times again, after a pause."""
        for progress in self._progress.values():
            progress.since, progress.end = now, None

    def moved(self, positions: Mapping[TopicPartition, int], now: float) -> None:
        """Record the client's positions; ignored for partitions without a record so far."""
        for partition, position in positions.items():
            progress = self._progress.get(partition)
            if (
                progress is None
                or partition in self.awaiting_first_record
                or position <= progress.position
            ):
                continue
            self._progress[partition] = _PartitionProgress(position, now)

    def reached_end(self, partition: TopicPartition, offset: int, now: float) -> None:
        """Record that there is nothing to return before `offset`, and that the caller knows it."""
        progress = self._progress.get(partition)
        if progress is not None:
            self._progress[partition] = _PartitionProgress(
                max(offset, progress.position), now, is_reported=True
            )
        self._reassigned_at.pop(partition, None)

    def settled(self, now: float, seconds: float) -> dict[TopicPartition, int]:
        """Return, once for each position, the positions that have not moved for so long.

        A position may be after the last record: the client also passes what it never returns.
        """
        found = {}
        for partition, progress in self._progress.items():
            if progress.is_reported or partition in self.awaiting_first_record:
                continue
            if now - progress.moved_at >= seconds:
                progress.is_reported = True
                found[partition] = progress.position
        return found

    def quiet(
        self, now: float, last_end: Callable[[TopicPartition], int | None] = lambda partition: None
    ) -> list[TopicPartition]:
        """Return the partitions whose ends to request, and to pass to `compare_ends`.

        Those that the last fetch, whose end `last_end` returns, has seen to continue after the position
        are quiet after the grace time.
        """
        found = []
        for partition, progress in self._progress.items():
            seconds = now - progress.since
            if progress.end is not None or seconds < min(self._quiet_after, self._grace):
                continue
            if seconds >= self._quiet_after or (last_end(partition) or 0) > progress.position:
                found.append(partition)
        return found

    def compare_ends(
        self, requested: Iterable[TopicPartition], ends: Mapping[TopicPartition, int], now: float
    ) -> list[TopicPartition]:
        """Compare the broker's ends with the positions; return the partitions that end before theirs.

        A partition missing from `ends` is requested again later.
        """
        ended_early = []
        for partition in requested:
            progress = self._progress[partition]
            end = ends.get(partition, progress.position)
            progress.since = now
            progress.end = end if end != progress.position else None
            if end < progress.position:
                ended_early.append(partition)
        return ended_early

    def stalled(self, now: float) -> dict[TopicPartition, int]:
        """Return the partitions to reassign, with their positions."""
        return {
            partition: progress.position
            for partition, progress in self._progress.items()
            if progress.end is not None and now - progress.since >= self._grace
        }

    def unread(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        """Return the offsets from the position to the broker's end, of partitions that have some."""
        return {
            partition: OffsetRange(progress.position, progress.end)
            for partition in partitions
            if (progress := self._progress[partition]).end is not None
            and progress.end > progress.position
        }

    def postpone(self, partitions: Iterable[TopicPartition], now: float) -> None:
        """Start the waiting times of these partitions again: it is not known whether they stall."""
        for partition in partitions:
            progress = self._progress[partition]
            progress.since, progress.end = now, None

    def reassigned(self, partitions: Iterable[TopicPartition], now: float) -> None:
        """Record that these stalled partitions were reassigned."""
        self._reassigned_at |= dict.fromkeys(partitions, now)

    def beyond_revival(self, now: float) -> list[TopicPartition]:
        """Return the reassigned partitions that have returned nothing for the revival time."""
        return [p for p, since in self._reassigned_at.items() if now - since >= self._revival]
