"""Start position of a new owner's partition, from the committed offset and its metadata."""

from dataclasses import dataclass, field

from octane_analytics.pipeline.intents import Intent, parse_intent
from octane_analytics.types import Committed, LogIdentity


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Position from which an assigned partition is read."""

    offset: int | None
    """Start offset; None for the earliest that the log holds."""
    pending: Intent | None = None
    """Batch to recover before the partition is read."""
    is_of_log: bool = field(default=False, compare=False)
    """True if the offset was committed for this log: same cluster and topic id, both known."""
    is_moved: bool = field(default=False, compare=False)
    """True if the offset is not one that a worker or `offsets set` committed for this cluster: another
    tool has set it, perhaps to records that were inserted before."""


def start_position(
    topic: str, partition: int, committed: Committed, log: LogIdentity
) -> StartPosition:
    """Return the position at which a new owner starts. Raise ConfigError for an unreadable intent."""
    intent = parse_intent(topic, partition, committed.metadata)
    if intent is None or intent.log.cluster_id != log.cluster_id:
        # Another cluster: this offset was set when the group's offsets were copied to it.
        return StartPosition(committed.offset, is_moved=committed.offset is not None)
    if intent.log.topic_id and log.topic_id and intent.log.topic_id != log.topic_id:
        # The topic was recreated: its offsets mean other records now.
        return StartPosition(None)
    own = intent.range_of(partition)
    if own is not None and own.first != committed.offset:
        return StartPosition(committed.offset, is_moved=committed.offset is not None)
    # Also a batch of another epoch may be in the table: which of its rows are missing is counted.
    is_of_log = bool(log.topic_id) and intent.log.topic_id == log.topic_id
    return StartPosition(committed.offset, intent if own is not None else None, is_of_log)


def is_another_log(log: LogIdentity, known: LogIdentity) -> bool:
    """Return whether the topic was recreated; a broker may only later learn to report topic ids."""
    if log.topic_id and known.topic_id:
        return log.topic_id != known.topic_id
    return log.cluster_id != known.cluster_id
