"""Readiness of the consumer group for workers of one version of the delivery protocol.

Workers of two versions must not share the group, and a version does not read what a newer one announced:
either inserts rows twice. So the workers of the other version have left, and nothing is pending that
the next version cannot read, before the first worker of the next version starts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.kafka.client_ids import version_of
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.operations.pending_batches import PendingBatches, pending_batches
from octane_analytics.pipeline.intents import Intent
from octane_analytics.types import Committed, LogIdentity, TopicPartition

_LISTED = 8
_LOOK_SECONDS = 1.0


class ReadableGroup(Protocol):
    """Methods of `kafka.group_admin.ConsumerGroupAdmin` needed here."""

    def state(self) -> GroupState: ...
    def partitions(self, topic: str) -> list[TopicPartition]: ...
    def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Committed]: ...
    def identity(self, topic: str) -> LogIdentity: ...


@dataclass(frozen=True, slots=True)
class GroupReadiness:
    """Members and pending batches of a group, and which of them keep workers from starting."""

    group: str
    protocol: int | None
    """Version of the workers that are to start; None to require a group without workers or batches."""
    members: tuple[Member, ...]
    """Workers of this service, of any version."""
    batches: PendingBatches

    @property
    def blocking_members(self) -> list[Member]:
        return [m for m in self.members if version_of(m.client_id) != self.protocol]

    @property
    def blocking_batches(self) -> Mapping[TopicPartition, Intent]:
        return {
            where: intent
            for where, intent in self.batches.by_partition.items()
            if self.protocol is None or intent.version > self.protocol
        }

    @property
    def is_ready(self) -> bool:
        return not (self.blocking_members or self.blocking_batches or self.batches.unreadable)

    def obstacles(self) -> list[str]:
        """Return what is in the way, and what to do: one line each; empty if the group is ready."""
        lines = []
        if others := self.blocking_members:
            names = sorted({f"{member.client_id}@{member.host}" for member in others})
            others_than = (
                "" if self.protocol is None else f" of another protocol than {self.protocol}"
            )
            lines.append(
                f"group {self.group} has {_workers(len(others))}{others_than}: {_listed(names)}; stop "
                "`octane-analytics worker` on these hosts and let it drain (a static member is gone "
                "only after its session timeout, 45 s by default)"
            )
        if pending := self.blocking_batches:
            numbers = sorted({n for intent in pending.values() for n in intent.partitions})
            reader = (
                "" if self.protocol is None else f" that protocol {self.protocol} does not read"
            )
            lines.append(
                f"group {self.group} has a pending batch{reader}, of partitions "
                f"{_listed(list(map(str, numbers)))}: start `octane-analytics worker` of the version "
                "that announced it and stop it with SIGTERM, which inserts and completes it"
            )
        lines += sorted(self.batches.unreadable.values())
        return lines

    def as_object(self) -> dict[str, Any]:
        """Return a JSON-serializable object."""
        return {
            "group": self.group,
            "for_protocol": self.protocol,
            "ready": self.is_ready,
            "members": [
                {
                    "client_id": member.client_id,
                    "instance_id": member.instance_id,
                    "host": member.host,
                    "protocol": version_of(member.client_id),
                    "partitions": sorted(where.partition for where in member.partitions),
                }
                for member in self.members
            ],
            "pending": [
                {
                    "partition": where.partition,
                    "range": [own.first, own.end],
                    "protocol": intent.version,
                    "batch": list(intent.partitions),
                }
                for where, intent in sorted(self.batches.by_partition.items())
                if (own := intent.range_of(where.partition)) is not None
            ],
            "unreadable": sorted(where.partition for where in self.batches.unreadable),
            "obstacles": self.obstacles(),
        }


def look(group: ReadableGroup, name: str, topic: str, protocol: int | None) -> GroupReadiness:
    """Ask the brokers for members and committed offsets. Blocks for some seconds at most.

    Raise Unavailable or NeedsOperator, and if a broker does not report the members.
    """
    # The members first: one that has left may have completed its batch just before.
    members = tuple(m for m in group.state().members if version_of(m.client_id) is not None)
    committed = group.committed(group.partitions(topic))
    batches = pending_batches(committed, group.identity(topic))
    return GroupReadiness(name, protocol, members, batches)


def wait_until_ready(
    look_again: Callable[[], GroupReadiness],
    seconds: float,
    *,
    on_wait: Callable[[str], object],
    now: Callable[[], float],
    sleep: Callable[[float], bool],
) -> GroupReadiness:
    """Look until the group is ready, for up to `seconds`; return the last result.

    Passes the obstacles to `on_wait` whenever they have changed. `sleep` returns whether to stop early.
    Raise Unavailable if no broker answered at the end, NeedsOperator at once.
    """
    deadline = now() + seconds
    reported: list[str] = []
    while True:
        found: GroupReadiness | Unavailable
        try:
            found = look_again()
            obstacles = found.obstacles()
        except NeedsOperator:
            raise
        except Unavailable as error:
            found, obstacles = error, [str(error)]
        is_last = not obstacles or now() >= deadline
        if not is_last and obstacles != reported:
            reported = obstacles
            for line in obstacles:
                on_wait(line)
        if is_last or sleep(min(_LOOK_SECONDS, max(0.0, deadline - now()))):
            if isinstance(found, Unavailable):
                raise found
            return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def _workers(number: int) -> str:
    return "a worker" if number == 1 else f"{number} workers"
