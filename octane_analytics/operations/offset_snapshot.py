"""The group's offsets with their intents as a document, and what may be set from one.

An offset means a record only together with the log that it counts, so the document names the log. Into
the same log everything goes back as it was, pending intents too. Into another one (a cluster that
holds a copy of the records at the same offsets) only completed offsets can go: what was announced for
the old log would be inserted under other tokens, and so perhaps twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octane_analytics.errors import ConfigError
from octane_analytics.pipeline.delivery_ledger import Intent, parse_intent
from octane_analytics.types import Commit, Committed, LogIdentity, OffsetRange, TopicPartition

FORMAT = "octane-analytics offsets 1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a group had committed of a topic."""

    group: str
    topic: str
    log: LogIdentity
    partitions: tuple[Committed, ...]
    """By partition number."""

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
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
                    "pending": _pending(committed),
                }
                for number, committed in enumerate(self.partitions)
            ],
        }


def parse_snapshot(told: object) -> Snapshot:
    """Raises ConfigError for what `Snapshot.as_object` does not write."""
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ConfigError(f"this is no export of offsets: its format is not {FORMAT!r}")
    try:
        listed = told["partitions"]
        if [item["partition"] for item in listed] != list(range(len(listed))):
            raise ConfigError("the export does not list the partitions from 0 on, each once")
        partitions = tuple(
            Committed(
                None if item["offset"] is None else _offset(item["offset"]), str(item["metadata"])
            )
            for item in listed
        )
        log = LogIdentity(*(str(told[name]) for name in ("cluster_id", "topic_id", "epoch")))
        return Snapshot(str(told["group"]), str(told["topic"]), log, partitions)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"the export is damaged: {type(error).__name__}: {error}") from error


def plan(
    snapshot: Snapshot,
    topic: str,
    log: LogIdentity,
    bounds: Mapping[TopicPartition, tuple[int, int]],
    *,
    other_log: bool = False,
    drop_intents: bool = False,
) -> list[Commit]:
    """The commits that set the group to the snapshot. Raises ConfigError that says what is in the way.

    `bounds` are the live topic's partitions with their first and end offsets. `other_log` is the
    operator's word that another log holds the same records at the same offsets, `drop_intents` that
    ranges which were being inserted may be inserted a second time.
    """
    if snapshot.topic != topic:
        raise ConfigError(
            f"the export is of topic {snapshot.topic}, and KAFKA_TOPIC is {topic}: offsets of one "
            "topic mean nothing in another"
        )
    if len(snapshot.partitions) != len(bounds):
        raise ConfigError(
            f"the export has {len(snapshot.partitions)} partitions, {topic} has {len(bounds)}: an "
            "offset would not mean the same record; export again, or make the topic as it was"
        )
    is_same = (snapshot.log.cluster_id, snapshot.log.topic_id) == (log.cluster_id, log.topic_id)
    if not is_same and not other_log:
        raise ConfigError(
            f"{topic} is another log than the one exported (cluster {snapshot.log.cluster_id}, topic "
            f"id {snapshot.log.topic_id or 'unknown'}): where it holds the same records at the same "
            "offsets, say --other-log"
        )
    pending = [number for number, c in enumerate(snapshot.partitions) if _pending(c)]
    if not is_same and pending and not drop_intents:
        raise ConfigError(
            f"partitions {', '.join(map(str, pending))} have announced ranges that may be inserted "
            "already, and another log has other tokens: stop the old workers with SIGTERM, which "
            "finishes them, and export again; or say --drop-intents, and those ranges may be there "
            "twice"
        )
    commits = []
    for number, committed in enumerate(snapshot.partitions):
        if committed.offset is None:
            continue
        where = TopicPartition(topic, number)
        first, end = bounds[where]
        if not first <= committed.offset <= end:
            raise ConfigError(
                f"{where} holds the offsets from {first} to {end}, the export says "
                f"{committed.offset}: nothing was set"
            )
        commits.append(Commit(where, committed.offset, _metadata(committed, log, is_same)))
    return commits


def _metadata(committed: Committed, log: LogIdentity, is_same: bool) -> str:
    if is_same:
        return committed.metadata
    assert committed.offset is not None, "only such offsets are set"
    return Intent(OffsetRange(committed.offset, committed.offset), log).metadata()


def _pending(committed: Committed) -> str | None:
    intent = parse_intent(committed.metadata)
    if intent is None or not intent.is_pending or intent.span.first != committed.offset:
        return None
    return str(intent.span)


def _offset(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no offset")
    return value


def changes(before: Mapping[TopicPartition, Committed], commits: Sequence[Commit]) -> list[str]:
    """One line for each partition that would move."""
    return [
        f"{c.partition}: {_told(before[c.partition].offset)} -> {c.offset}"
        for c in commits
        if (before[c.partition].offset, before[c.partition].metadata) != (c.offset, c.metadata)
    ]


def _told(offset: int | None) -> str:
    return "nothing committed" if offset is None else str(offset)
