"""Intents as version 1 of the delivery protocol wrote them: one partition each. Frozen."""

import hashlib
from dataclasses import dataclass

from octane_analytics.types import LogIdentity, OffsetRange, TopicPartition

_MARK = "octane1"


@dataclass(frozen=True, slots=True)
class Intent:
    """Announcement that a range is being inserted under the log's identity.

    An empty range announces nothing: it records that everything before it is inserted, and of which log,
    because a topic may be recreated while a group keeps its committed offsets.
    """

    span: OffsetRange
    log: LogIdentity

    @property
    def is_pending(self) -> bool:
        return self.span.first < self.span.end

    def metadata(self) -> str:
        """Format the intent for a commit's metadata."""
        log = self.log
        return ";".join((_MARK, str(self.span), log.cluster_id, log.topic_id, log.epoch))


def parse_intent(metadata: str) -> Intent | None:
    """Parse the intent in a commit's metadata; None if it is not one of ours."""
    mark, *parts = metadata.split(";", 4)
    if mark != _MARK or len(parts) != 4:
        return None
    first, _, end = parts[0].partition("-")
    if not (first.isdecimal() and end.isdecimal()) or int(first) > int(end):
        return None
    return Intent(OffsetRange(int(first), int(end)), LogIdentity(*parts[1:]))


def token(partition: TopicPartition, intent: Intent) -> str:
    """Return the deduplication token of the range, the same in every process."""
    log = hashlib.blake2b("\0".join(intent.log).encode(), digest_size=12).hexdigest()
    return f"octane/{log}/{partition.topic}/{partition.partition}/{intent.span}"


def part_token(whole: str, part: OffsetRange) -> str:
    """Return the token of a part of a range that is inserted in parts."""
    return f"{whole}/{part}"
