"""Export of the group's offsets with their intents, and the commits that restore one.

An offset identifies a record only together with its log, so the export names the log. For the same log
everything is restored as it was, pending intents too. For another log (a cluster that holds a copy of
the records at the same offsets) only completed offsets can be restored: a range announced for the old
log would be inserted under other tokens, and so perhaps twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octane_analytics.errors import ConfigError
from octane_analytics.operations.pending_batches import pending_batches
from octane_analytics.pipeline.intents import completed, pending_intent
from octane_analytics.types import Commit, Committed, LogIdentity, TopicPartition

FORMAT = "octane-analytics offsets 1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Committed offsets and metadata of a group for one topic."""

    group: str
    topic: str
    log: LogIdentity
    partitions: tuple[Committed, ...]
    """Committed offsets, indexed by partition number."""

    def as_object(self) -> dict[str, Any]:
        """Return a JSON-serializable object."""
        return {
            "format": FORMAT,
            "group": self.group,
            "topic": self.topic,
            "cluster_id": self.log.cluster_id,
            "topic_id": self.log.topic_id,
            "epoch": self.log.epoch,
            "partitions": [
                {
                    "partition": number,
                    "offset": committed.offset,
                    "metadata": committed.metadata,
                    "pending": _pending_range(self.topic, number, committed),
                }
                for number, committed in enumerate(self.partitions)
            ],
        }


def parse_snapshot(exported: object) -> Snapshot:
    """Parse the output of `Snapshot.as_object`. Raise ConfigError for anything else."""
    if not isinstance(exported, dict) or exported.get("format") != FORMAT:
        raise ConfigError(f"this is not an export of offsets: its format is not {FORMAT!r}")
    try:
        listed = exported["partitions"]
        if [item["partition"] for item in listed] != list(range(len(listed))):
            raise ConfigError("the export does not list the partitions from 0 on, each once")
        partitions = tuple(
            Committed(
                None if item["offset"] is None else _offset(item["offset"]),
                _text(item["metadata"]),
            )
            for item in listed
        )
        log = LogIdentity(*(str(exported[name]) for name in ("cluster_id", "topic_id", "epoch")))
        return Snapshot(str(exported["group"]), str(exported["topic"]), log, partitions)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"the export is damaged: {type(error).__name__}: {error}") from error


def plan(
    snapshot: Snapshot,
    topic: str,
    log: LogIdentity,
    bounds: Mapping[TopicPartition, tuple[int, int]],
    live: Mapping[TopicPartition, Committed],
    *,
    other_log: bool = False,
    drop_intents: bool = False,
) -> list[Commit]:
    """Return the commits that restore the snapshot. Raise ConfigError, with the reason, if it cannot be.

    `bounds` maps the live topic's partitions to their first and end offsets, `live` to the group's
    committed offsets as they are now. `other_log` is the operator's assertion that another log holds the
    same records at the same offsets, `drop_intents` the operator's consent that pending batches, of the
    export or of the live group, may be inserted twice or not at all.
    """
    if snapshot.topic != topic:
        raise ConfigError(
            f"the export is of topic {snapshot.topic}, and KAFKA_TOPIC is {topic}: offsets of one "
            "topic mean nothing in another"
        )
    if len(snapshot.partitions) != len(bounds):
        raise ConfigError(
            f"the export has {len(snapshot.partitions)} partitions, {topic} has {len(bounds)}: an "
            "offset would not mean the same record; export again, or recreate the topic as it was"
        )
    is_same = (snapshot.log.cluster_id, snapshot.log.topic_id) == (log.cluster_id, log.topic_id)
    if not is_same and not other_log:
        raise ConfigError(
            f"{topic} is another log than the one exported (cluster {snapshot.log.cluster_id}, topic "
            f"id {snapshot.log.topic_id or 'unknown'}): if it holds the same records at the same "
            "offsets, use --other-log"
        )
    where = {number: TopicPartition(topic, number) for number in range(len(snapshot.partitions))}
    exported = pending_batches(
        {where[n]: c for n, c in enumerate(snapshot.partitions)}, snapshot.log
    )
    if not is_same and exported.by_partition and not drop_intents:
        raise ConfigError(
            f"a batch that may be inserted already is pending for partitions "
            f"{', '.join(map(str, exported.partitions))}, and another log has other tokens: stop the "
            "old workers with SIGTERM, which finishes it, and export again; or use --drop-intents, "
            "which may insert it twice"
        )
    for error in () if drop_intents else exported.unreadable.values():
        raise ConfigError(f"the export cannot be used: {error}")
    commits = []
    for number, committed in enumerate(snapshot.partitions):
        if committed.offset is None:
            continue
        partition = where[number]
        first, end = bounds[partition]
        if not first <= committed.offset <= end:
            raise ConfigError(
                f"{partition} holds the offsets from {first} to {end}, the export has "
                f"{committed.offset}: nothing was set"
            )
        is_kept = is_same and partition not in exported.unreadable
        commits.append(
            Commit(partition, committed.offset, _metadata(topic, committed, log, is_kept))
        )
    commits += _dropped(live, commits, log, drop_intents=drop_intents)
    _require_whole_batches(commits, log, bounds, live)
    return commits


def _require_whole_batches(
    commits: Sequence[Commit],
    log: LogIdentity,
    bounds: Mapping[TopicPartition, tuple[int, int]],
    live: Mapping[TopicPartition, Committed],
) -> None:
    """Raise ConfigError if a batch would be pending that the log does not hold, or if a partition of it
    would be read from before its end, as with an export of which a part was changed."""
    later = dict(live) | {c.partition: Committed(c.offset, c.metadata) for c in commits}
    if later == live:
        return
    pending = pending_batches(later, log).by_partition
    for intent in dict.fromkeys(pending[where] for where in sorted(pending)):
        for number, first, end in intent.ranges:
            where = TopicPartition(intent.topic, number)
            if where not in bounds or end > bounds[where][1]:
                raise ConfigError(
                    f"the export has a pending batch with the offsets {first} to {end} of {where}, "
                    "which the topic does not hold: the export was edited or is of another log; "
                    "nothing was set"
                )
            if pending.get(where) != intent and (offset := later[where].offset or 0) < end:
                raise ConfigError(
                    f"{where} would be read from {offset} on, although a pending batch has its "
                    f"offsets {first} to {end}, and these would be inserted twice: the export was "
                    "edited or is incomplete; nothing was set"
                )


def _dropped(
    live: Mapping[TopicPartition, Committed],
    commits: Sequence[Commit],
    log: LogIdentity,
    *,
    drop_intents: bool,
) -> list[Commit]:
    """Return the commits that drop batches of the live group with a partition that is to change.

    Raise ConfigError for such a batch without `drop_intents`.
    """
    changed = {
        c.partition
        for c in commits
        if (live[c.partition].offset, live[c.partition].metadata) != (c.offset, c.metadata)
    }
    pending = pending_batches(live, log)
    if not drop_intents:
        pending.require_none(changed)
    left = pending.carriers_of(changed) - {c.partition for c in commits}
    return [
        Commit(where, live[where].offset or 0, completed(where.topic, log))
        for where in sorted(left)
    ]


def _metadata(topic: str, committed: Committed, log: LogIdentity, is_same: bool) -> str:
    if is_same:
        return committed.metadata
    assert committed.offset is not None, "absent offsets are skipped"
    return completed(topic, log)


def _pending_range(topic: str, partition: int, committed: Committed) -> str | None:
    try:
        intent = pending_intent(topic, partition, committed)
    except ConfigError:
        return "unreadable"
    own = None if intent is None else intent.range_of(partition)
    return None if own is None else f"{own.first}-{own.end}"


def _offset(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not an offset")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not metadata")
    value.encode()
    return value


def changes(before: Mapping[TopicPartition, Committed], commits: Sequence[Commit]) -> list[str]:
    """Return one line for each partition that would move."""
    return [
        f"{c.partition}: {_format_offset(before[c.partition].offset)} -> {c.offset}"
        for c in commits
        if (before[c.partition].offset, before[c.partition].metadata) != (c.offset, c.metadata)
    ]


def _format_offset(offset: int | None) -> str:
    return "nothing committed" if offset is None else str(offset)
