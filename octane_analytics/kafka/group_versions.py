"""Members of the group that run another version of the delivery protocol.

Such versions must not share a group: a worker that does not understand what another one announced
inserts those rows a second time.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from octane_analytics.kafka.client_ids import PROTOCOL_VERSION, version_of
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.settings.connections import KafkaSettings

_SESSION_MS = 45_000
"""librdkafka's default session timeout."""
_MARGIN_SECONDS = 3.0
_LOOK_SECONDS = 1.0
_LISTED_MEMBERS = 5


class Group(Protocol):
    """Methods of `kafka.group_admin.ConsumerGroupAdmin` needed here."""

    def state(self) -> GroupState: ...


def members_of_other_versions(members: Sequence[Member]) -> list[Member]:
    return [m for m in members if version_of(m.client_id) not in (None, PROTOCOL_VERSION)]


def explain(group: str, others: Sequence[Member]) -> str:
    """Return what is wrong and what to do, in one line."""
    named = sorted({f"{member.client_id}@{member.host}" for member in others})
    more = f" and {len(named) - _LISTED_MEMBERS} more" if len(named) > _LISTED_MEMBERS else ""
    return (
        f"group {group} has members of another version of this service "
        f"({', '.join(named[:_LISTED_MEMBERS])}{more}): together they would insert events twice; stop "
        "`octane-analytics worker` of that version on every host, let it drain, then start this one (a "
        "static member is gone only after its session timeout, 45 s by default)"
    )


def find_other_versions(
    group: Group,
    settings: KafkaSettings,
    *,
    on_wait: Callable[[str], object] = lambda reason: None,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> str | None:
    """Return why no worker of this version may join the group; None if one may.

    A static member stays in the group for a session timeout after its process has ended: waits for that
    long, and passes the reason to `on_wait` before. Raise Unavailable if the members are not known
    (NeedsOperator for a missing right).
    """
    deadline = now() + _session_seconds(settings) + _MARGIN_SECONDS
    is_waiting = False
    while others := members_of_other_versions(group.state().members):
        reason = explain(settings.group_id, others)
        if now() >= deadline or any(member.instance_id is None for member in others):
            return reason
        if not is_waiting:
            is_waiting = True
            on_wait(reason)
        sleep(_LOOK_SECONDS)
    return None


def _session_seconds(settings: KafkaSettings) -> float:
    value = settings.rdkafka.get("session.timeout.ms", "")
    return int(value if value.isascii() and value.isdecimal() else _SESSION_MS) / 1000


class VersionWatch:
    """Looks for members of another version that join while this service runs.

    A worker cannot keep them out: it reports them, again every few minutes, and goes on. If it stopped,
    they would take over more partitions whose announced ranges they do not understand.
    """

    def __init__(
        self,
        group: Group,
        group_id: str,
        report: Callable[[str], object],
        *,
        now: Callable[[], float] = time.monotonic,
        repeat_seconds: float = 300.0,
    ) -> None:
        self._group = group
        self._group_id = group_id
        self._report = report
        self._now = now
        self._repeat_seconds = repeat_seconds
        self._reported: frozenset[str] = frozenset()
        self._reported_at = 0.0

    def look(self) -> bool:
        """Report new members of another version; return whether there are any. Raises as `state`."""
        others = members_of_other_versions(self._group.state().members)
        found = frozenset(member.member_id for member in others)
        is_due = self._now() - self._reported_at >= self._repeat_seconds
        if others and (is_due or not found <= self._reported):
            self._reported_at = self._now()
            self._report(explain(self._group_id, others))
        self._reported = found
        return bool(others)
