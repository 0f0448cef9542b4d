"""Partitions that no member of a stable group owns, and the rebalance that assigns them.

A cooperative rebalance has two steps: members give partitions up and join again, then others get them. A
static member that restarts in between is given its former assignment, without a second step. What it had
given up then has no owner until something else makes the group rebalance.
"""

import time
from collections.abc import Callable
from typing import Protocol

from confluent_kafka import Consumer, KafkaException

from octane_analytics.kafka.client import Broker, error_of, translate
from octane_analytics.kafka.group_admin import GroupState
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import TopicPartition

_LEAST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 30.0, 600.0
_JOIN_SECONDS = 30.0
_SESSION_MS = 6_000
"""Least value that brokers accept by default: a killed visitor holds its group up for so long."""


class OwnedGroup(Protocol):
    """Methods of `kafka.group_admin.ConsumerGroupAdmin` needed here."""

    def state(self) -> GroupState: ...
    def partitions(self, topic: str) -> list[TopicPartition]: ...


class OwnerlessPartitionsWatch:
    """Rebalances a group if two looks in a row find the same members and partitions without an owner.

    New partitions of a topic have no owner either until its members learn of them: the pauses between
    rebalances double as long as one does not help.
    """

    def __init__(
        self,
        group: OwnedGroup,
        topic: str,
        rebalance: Callable[[], None],
        report: Callable[[str], object],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group = group
        self._topic = topic
        self._rebalance = rebalance
        self._report = report
        self._now = now
        self._seen: tuple[frozenset[str], frozenset[TopicPartition]] | None = None
        self._pause_seconds = _LEAST_PAUSE_SECONDS
        self._not_before = 0.0

    def look(self) -> bool:
        """Return whether partitions have no owner. Raise Unavailable if a broker does not answer."""
        state = self._group.state()
        if state.state != "stable":
            self._seen = None
            return False
        owned = frozenset[TopicPartition]().union(*(m.partitions for m in state.members))
        ownerless = frozenset(self._group.partitions(self._topic)) - owned
        if not ownerless:
            self._seen, self._pause_seconds = None, _LEAST_PAUSE_SECONDS
            return False
        seen = (frozenset(m.member_id for m in state.members), ownerless)
        if seen != self._seen:
            self._seen = seen
        elif self._now() >= self._not_before:
            self._seen = None
            self._report(
                f"{len(ownerless)} partitions of {self._topic} have no owner in a stable group: "
                "rebalancing the group"
            )
            self._rebalance()
            self._not_before = self._now() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        return True


def rebalance_group(settings: KafkaSettings, *, client_id: str) -> None:
    """Join the group for a moment, so that it assigns its partitions again. Blocks until that is done.

    Subscribes to the dead-letter topic: no partition of the events changes its owner twice. Raise
    Unavailable.
    """
    consumer = Broker(settings, client_id).connect(
        Consumer,
        **{
            "group.id": settings.group_id,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": _SESSION_MS,
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
        },
    )
    joined: list[object] = []
    try:
        consumer.subscribe([settings.dlq_topic], on_assign=lambda _, parts: joined.append(parts))
        deadline = time.monotonic() + _JOIN_SECONDS
        while not joined and time.monotonic() < deadline:
            consumer.poll(0.2)
    except KafkaException as exception:
        raise translate(error_of(exception), "rebalancing the group") from exception
    finally:
        consumer.close()
