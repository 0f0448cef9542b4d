"""How far the group is behind, partition by partition: in messages, in seconds, and who has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.pipeline.delivery_ledger import parse_intent
from octane_analytics.types import Committed, OffsetRange, TopicPartition, UncommittedLag


class LagSource(Protocol):
    """`kafka.lag.LagProbe`, as far as it is needed here."""

    def measure(self) -> Mapping[int, UncommittedLag]: ...


class Members(Protocol):
    """`kafka.group.Group`, as far as it is needed here."""

    def state(self) -> GroupState: ...


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition's lag, and what its committed offset and the group's state say of it."""

    partition: int
    lag: UncommittedLag
    seconds: float | None
    """Age of the oldest record not committed; 0 without lag, None where nobody can tell."""
    pending: OffsetRange | None
    """Announced and perhaps inserted; inserted again, once, by whoever has the partition next."""
    owner: Member | None

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        owner = self.owner
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
            "pending": None if self.pending is None else [self.pending.first, self.pending.end],
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
    """The group's; `unknown` where the broker does not tell its members."""
    partitions: tuple[PartitionStatus, ...]

    @property
    def messages(self) -> int:
        return sum(p.lag.messages for p in self.partitions)

    @property
    def held_back(self) -> int:
        """Those of `messages` that open transactions keep from every consumer."""
        return sum(p.lag.held_back for p in self.partitions)

    @property
    def seconds(self) -> float | None:
        """Of the partition furthest behind."""
        known = [p.seconds for p in self.partitions if p.seconds is not None]
        return max(known, default=None)

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
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
    """Blocks for some seconds at most. `now` in epoch seconds. Raises Unavailable, NeedsOperator."""
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
                _pending(lag.committed),
                state.owner(TopicPartition(topic, number)),
            )
            for number, lag in found.items()
        ),
    )


def _seconds(lag: UncommittedLag, now: float) -> float | None:
    if not lag.messages:
        return 0.0
    return None if lag.oldest_at is None else max(0.0, now - lag.oldest_at)


def _pending(committed: Committed) -> OffsetRange | None:
    intent = parse_intent(committed.metadata)
    if intent is None or not intent.is_pending or intent.span.first != committed.offset:
        return None
    return intent.span
