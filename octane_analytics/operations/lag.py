"""Lag of the consumer group by partition: in messages, in seconds, and with the owning member."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.pipeline.intents import Intent, pending_intent
from octane_analytics.types import Committed, OffsetRange, TopicPartition, UncommittedLag


class LagSource(Protocol):
    """Methods of `kafka.lag.LagProbe` needed here."""

    def measure(self) -> Mapping[int, UncommittedLag]: ...


class Members(Protocol):
    """Methods of `kafka.group_admin.ConsumerGroupAdmin` needed here."""

    def state(self) -> GroupState: ...


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Lag of one partition, its pending range and its owner."""

    partition: int
    lag: UncommittedLag
    seconds: float | None
    """Age of the oldest record not committed; 0 without lag, None if it is not known."""
    pending: Intent | None
    """Batch that is announced and perhaps inserted. The next owner of any of its partitions inserts all
    of it again, under the same token."""
    unreadable: str
    """Why the metadata of the committed offset cannot be read; empty if it can."""
    owner: Member | None

    @property
    def pending_range(self) -> OffsetRange | None:
        """This partition's own range of the pending batch."""
        own = None if self.pending is None else self.pending.range_of(self.partition)
        return None if own is None else OffsetRange(own.first, own.end)

    def as_object(self) -> dict[str, Any]:
        """Return a JSON-serializable object."""
        owner, pending = self.owner, self.pending_range
        return {
            "partition": self.partition,
            "committed": self.lag.committed.offset,
            "first": self.lag.first,
            "end": self.lag.end,
            "stable_end": self.lag.stable_end,
            "messages": self.lag.messages,
            "held_back": self.lag.held_back,
            "seconds": self.seconds,
            "gone": self.lag.removed,
            "pending": None if pending is None else [pending.first, pending.end],
            "pending_partitions": [] if self.pending is None else list(self.pending.partitions),
            "owner": None
            if owner is None
            else {
                "member_id": owner.member_id,
                "instance_id": owner.instance_id,
                "client_id": owner.client_id,
                "host": owner.host,
            },
        }


@dataclass(frozen=True, slots=True)
class GroupLagReport:
    group: str
    topic: str
    state: str
    """State of the group; `unknown` if the broker does not report its members."""
    partitions: tuple[PartitionStatus, ...]

    @property
    def messages(self) -> int:
        return sum(p.lag.messages for p in self.partitions)

    @property
    def held_back(self) -> int:
        """Part of `messages` that open transactions hide from every consumer."""
        return sum(p.lag.held_back for p in self.partitions)

    @property
    def seconds(self) -> float | None:
        """Age of the oldest record not committed, over all partitions."""
        known = [p.seconds for p in self.partitions if p.seconds is not None]
        return max(known, default=None)

    def as_object(self) -> dict[str, Any]:
        """Return a JSON-serializable object."""
        return {
            "group": self.group,
            "topic": self.topic,
            "state": self.state,
            "messages": self.messages,
            "held_back": self.held_back,
            "seconds": self.seconds,
            "partitions": [p.as_object() for p in self.partitions],
        }


def measure(lags: LagSource, members: Members, name: str, topic: str, now: float) -> GroupLagReport:
    """Measure the lag of the group `name`. Blocks for up to some seconds.

    `now` is in epoch seconds. Raise Unavailable or NeedsOperator.
    """
    found = lags.measure()
    try:
        state = members.state()
    except Unavailable:
        state = GroupState("unknown", ())
    return GroupLagReport(
        name,
        topic,
        "no such group" if not state.exists else state.state,
        tuple(
            PartitionStatus(
                number,
                lag,
                _seconds(lag, now),
                *_pending(topic, number, lag.committed),
                state.owner(TopicPartition(topic, number)),
            )
            for number, lag in found.items()
        ),
    )


def _seconds(lag: UncommittedLag, now: float) -> float | None:
    if not lag.messages:
        return 0.0
    return None if lag.oldest_at is None else max(0.0, now - lag.oldest_at)


def _pending(topic: str, partition: int, committed: Committed) -> tuple[Intent | None, str]:
    try:
        return pending_intent(topic, partition, committed), ""
    except ConfigError as error:
        return None, str(error)
