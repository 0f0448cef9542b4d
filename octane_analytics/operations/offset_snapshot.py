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
from octane_analytics.pipeline.intents import completed, pending_intent, pending_partitions
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
                None if item["offset"] is None else _offset(item["offset"]), str(item["metadata"])
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
    committed offsets as they are now. `other_log` is the
    operator's assertion that another log holds the same records at the same offsets, `drop_intents`
    the operator's consent that pending ranges may be inserted a second time.
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
    pending = [
        number
        for number, c in enumerate(snapshot.partitions)
        if pending_intent(topic, number, c) is not None
    ]
    if not is_same and pending and not drop_intents:
        raise ConfigError(
            f"a batch that may be inserted already is pending for partitions "
            f"{', '.join(map(str, pending))}, and another log has other tokens: stop the old workers "
            "with SIGTERM, which finishes it, and export again; or use --drop-intents, which may insert "
            "it twice"
        )
    commits = []
    for number, committed in enumerate(snapshot.partitions):
        if committed.offset is None:
            continue
        partition = TopicPartition(topic, number)
        first, end = bounds[partition]
        if not first <= committed.offset <= end:
            raise ConfigError(
                f"{partition} holds the offsets from {first} to {end}, the export has "
                f"{committed.offset}: nothing was set"
            )
        commits.append(
            Commit(partition, committed.offset, _metadata(topic, committed, log, is_same))
        )
    if commits and not drop_intents:
        _require_nothing_pending(live, commits)
    return commits


def _metadata(topic: str, committed: Committed, log: LogIdentity, is_same: bool) -> str:
    if is_same:
        return committed.metadata
    assert committed.offset is not None, "absent offsets are skipped"
    return completed(topic, log)


def _require_nothing_pending(
    live: Mapping[TopicPartition, Committed], commits: Sequence[Commit]
) -> None:
    """Raise ConfigError if a partition that is to move belongs to a pending batch of the live group."""
    moved = {c.partition.partition for c in commits if live[c.partition].offset != c.offset}
    named = pending_partitions(
        next(iter(live)).topic, {where.partition: found for where, found in live.items()}
    )
    blocked = sorted(moved & named.keys())
    if blocked:
        raise ConfigError(
            f"a batch of the group as it is now is pending for partitions "
            f"{', '.join(map(str, blocked))}: start the worker and stop it with SIGTERM, which finishes "
            "it; or use --drop-intents, which may insert it twice or not at all"
        )


def _pending_range(topic: str, partition: int, committed: Committed) -> str | None:
    intent = pending_intent(topic, partition, committed)
    own = None if intent is None else intent.range_of(partition)
    return None if own is None else f"{own.first}-{own.end}"


def _offset(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not an offset")
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
