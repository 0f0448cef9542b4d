"""Members of the group beside which no worker of this service may run.

Workers of another version of the delivery protocol do not understand what this one announces, and insert
those rows a second time. Workers that insert into another table share the partitions of the topic with
this one: each table would have a part of the events, and none all of them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from octane_analytics.kafka.client_ids import PROTOCOL_VERSION, TableMark, mark_of, version_of
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.settings.connections import KafkaSettings

_SESSION_MS = 45_000
"""librdkafka's default session timeout."""
_MARGIN_SECONDS = 3.0
_LOOK_SECONDS = 1.0
_LISTED_MEMBERS = 5
_STATIC_MEMBERS = "(a static member is gone only after its session timeout, 45 s by default)"


class Group(Protocol):
    """Methods of `kafka.group_admin.ConsumerGroupAdmin` needed here."""

    def state(self) -> GroupState: ...


def conflicting_members(members: Sequence[Member], own: TableMark | None) -> list[Member]:
    """Return the members of another version, or else those of another table than `own`."""
    return _of_other_versions(members) or [m for m in members if _is_of_other_table(m, own)]


def _of_other_versions(members: Sequence[Member]) -> list[Member]:
    return [m for m in members if version_of(m.client_id) not in (None, PROTOCOL_VERSION)]


def _is_of_other_table(member: Member, own: TableMark | None) -> bool:
    mark = mark_of(member.client_id)
    return own is not None and mark is not None and mark.is_other_table(own)


def explain(group: str, conflicting: Sequence[Member]) -> str:
    """Return what is wrong and what to do, in one line."""
    named = sorted({f"{member.client_id}@{member.host}" for member in conflicting})
    more = f" and {len(named) - _LISTED_MEMBERS} more" if len(named) > _LISTED_MEMBERS else ""
    listed = f"{', '.join(named[:_LISTED_MEMBERS])}{more}"
    if _of_other_versions(conflicting):
        return (
            f"group {group} has members of another version of this service ({listed}): together they "
            "would insert events twice; stop `octane-analytics worker` of that version on every host, "
            f"let it drain, then start this one {_STATIC_MEMBERS}"
        )
    return (
        f"group {group} has members that insert into another table, or into the table of another "
        f"ClickHouse ({listed}): each table would get a part of the events; give one of the services "
        "another KAFKA_GROUP_ID, or correct CLICKHOUSE_HOST, CLICKHOUSE_DATABASE or CLICKHOUSE_TABLE. "
        "To move the service, stop `octane-analytics worker` on every host, let it drain, then start it "
        f"{_STATIC_MEMBERS}"
    )


def find_conflict(
    group: Group,
    settings: KafkaSettings,
    own: TableMark | None,
    *,
    on_wait: Callable[[str], object] = lambda reason: None,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> str | None:
    """Return why no worker of this version and table may join the group; None if one may.

    A static member stays in the group for a session timeout after its process has ended: waits for that
    long, and passes the reason to `on_wait` before. Raise Unavailable if the members are not known
    (NeedsOperator for a missing right).
    """
    deadline = now() + _session_seconds(settings) + _MARGIN_SECONDS
    is_waiting = False
    while others := conflicting_members(group.state().members, own):
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


class ConflictWatch:
    """Looks for members of another version or table that join while this service runs.

    A worker cannot keep them out: it reports them, again every few minutes, and goes on. If it stopped,
    they would take over more partitions.
    """

    def __init__(
        self,
        group: Group,
        group_id: str,
        own: Callable[[], TableMark | None],
        report: Callable[[str], object],
        *,
        now: Callable[[], float] = time.monotonic,
        repeat_seconds: float = 300.0,
    ) -> None:
        self._group = group
        self._group_id = group_id
        self._own = own
        self._report = report
        self._now = now
        self._repeat_seconds = repeat_seconds
        self._reported: frozenset[str] = frozenset()
        self._reported_at = 0.0

    def look(self) -> bool:
        """Report new conflicting members; return whether there are any. Raises as `state`."""
        others = conflicting_members(self._group.state().members, self._own())
        found = frozenset(member.member_id for member in others)
        is_due = self._now() - self._reported_at >= self._repeat_seconds
        if others and (is_due or not found <= self._reported):
            self._reported_at = self._now()
            self._report(explain(self._group_id, others))
        self._reported = found
        return bool(others)
