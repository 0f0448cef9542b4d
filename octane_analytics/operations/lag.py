"""How far the group is behind, partition by partition: in messages, in seconds, and who has it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.group import GroupState, Member
from octane_analytics.ledger import parse_intent
from octane_analytics.types import Committed, Span, TopicPartition

_TIMESTAMP_SECONDS = 3.0


class GroupFacts(Protocol):
    """`kafka.group.Group`, as far as it is needed here."""

    def partitions(self, topic: str) -> list[TopicPartition]: ...
    def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Committed]: ...
    def bounds(self, partition: TopicPartition) -> tuple[int, int]: ...
    def state(self) -> GroupState: ...
    def timestamps(
        self, positions: Mapping[TopicPartition, int], seconds: float
    ) -> dict[TopicPartition, int]: ...


@dataclass(frozen=True, slots=True)
class PartitionLag:
    partition: int
    committed: int | None
    """None where the group has committed nothing: it begins at `first`."""
    first: int
    """The earliest offset that the log still holds."""
    end: int
    messages: int
    seconds: float | None
    """Age of the oldest record not committed; 0 without lag, None where nobody can tell."""
    gone: int
    """Records that retention removed before they were committed."""
    pending: Span | None
    """Announced and perhaps inserted; inserted again, once, by whoever has the partition next."""
    owner: Member | None


@dataclass(frozen=True, slots=True)
class Lag:
    group: str
    topic: str
    state: str
    """The group's; `unknown` where the broker does not tell its members."""
    partitions: tuple[PartitionLag, ...]

    @property
    def messages(self) -> int:
        return sum(p.messages for p in self.partitions)

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
            "seconds": self.seconds,
            "partitions": [_as_object(p) for p in self.partitions],
        }


def measure(group: GroupFacts, name: str, topic: str, now: float) -> Lag:
    """Blocks for some seconds at most. `now` in epoch seconds. Raises Unavailable, NeedsOperator."""
    partitions = group.partitions(topic)
    committed = group.committed(partitions)
    bounds = {partition: group.bounds(partition) for partition in partitions}
    try:
        state = group.state()
    except Unavailable:
        state = GroupState("unknown", ())
    positions = {}
    for partition in partitions:
        first, end = bounds[partition]
        offset = committed[partition].offset
        position = first if offset is None else max(first, offset)
        if position < end:
            positions[partition] = position
    made = group.timestamps(positions, _TIMESTAMP_SECONDS)
    return Lag(
        name,
        topic,
        "no such group" if not state.exists else state.state,
        tuple(
            _lag_of(
                partition,
                committed[partition],
                bounds[partition],
                made.get(partition),
                state.owner(partition),
                now,
            )
            for partition in partitions
        ),
    )


def _lag_of(
    partition: TopicPartition,
    committed: Committed,
    bounds: tuple[int, int],
    made_ms: int | None,
    owner: Member | None,
    now: float,
) -> PartitionLag:
    first, end = bounds
    position = first if committed.offset is None else max(first, committed.offset)
    messages = max(0, end - position)
    seconds = None if made_ms is None else max(0.0, now - made_ms / 1000)
    intent = parse_intent(committed.metadata)
    is_current = intent is not None and intent.span.first == committed.offset
    return PartitionLag(
        partition.partition,
        committed.offset,
        first,
        end,
        messages,
        seconds if messages else 0.0,
        0 if committed.offset is None else max(0, first - committed.offset),
        intent.span if intent is not None and is_current and intent.is_pending else None,
        owner,
    )


def _as_object(lag: PartitionLag) -> dict[str, Any]:
    owner = lag.owner
    return asdict(lag) | {
        "pending": None if lag.pending is None else [lag.pending.first, lag.pending.end],
        "owner": None
        if owner is None
        else {
            "member_id": owner.member_id,
            "instance_id": owner.instance_id,
            "client_id": owner.client_id,
            "host": owner.host,
        },
    }
