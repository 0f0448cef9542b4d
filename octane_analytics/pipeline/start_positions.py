"""Where a new owner reads a partition from: what was committed, and of which log."""

from dataclasses import dataclass

from octane_analytics.pipeline.intents import Intent, parse_intent
from octane_analytics.types import Committed, LogIdentity


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Where a partition is read from after its assignment."""

    offset: int | None
    """None: from the earliest offset that the log holds."""
    pending: Intent | None = None
    """The batch that is recovered before the partition is read."""


def start_position(
    topic: str, partition: int, committed: Committed, log: LogIdentity
) -> StartPosition:
    """Return where a new owner begins. Raises ConfigError for an intent that cannot be read."""
    intent = parse_intent(topic, partition, committed.metadata)
    if intent is None or intent.log.cluster_id != log.cluster_id:
        # Another cluster: whoever carried the group's offsets over has set this one.
        return StartPosition(committed.offset)
    if intent.log.topic_id and log.topic_id and intent.log.topic_id != log.topic_id:
        # The topic was recreated: its offsets mean other records now.
        return StartPosition(None)
    own = intent.range_of(partition)
    if own is None or own.first != committed.offset or intent.log.epoch != log.epoch:
        # Nothing is pending here, or the offset was moved, or the log was declared replaced.
        return StartPosition(committed.offset)
    return StartPosition(committed.offset, intent)


def is_another_log(log: LogIdentity, known: LogIdentity) -> bool:
    """Whether the topic was recreated; a broker may only later learn to report topic ids."""
    if log.topic_id and known.topic_id:
        return log.topic_id != known.topic_id
    return log.cluster_id != known.cluster_id
