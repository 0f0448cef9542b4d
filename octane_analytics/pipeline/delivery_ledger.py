"""Delivery protocol as a pure state machine: identities, intents, recovery, completion.

Exactly-once delivery rests on the group's coordinator: it stores, with the offset, which range is being
inserted under which token (the *intent*), and it accepts such a commit only from the partition's owner.
The next owner of the partition inserts exactly that range again under the same token, and ClickHouse
drops a block that it has stored before. The ledger decides what to commit and the token of a range; it
does no input or output.

    unannounced --announce, accept--> announced --inserted--> inserted --next announce or completion
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from octane_analytics.types import Commit, Committed, LogIdentity, OffsetRange, TopicPartition

_MARK = "octane1"
"""Prefix of every intent; the digit is the format's version."""


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


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Position at which to start reading an assigned partition."""

    offset: int | None
    """Start offset; None for the earliest that the log holds."""
    recovering: OffsetRange | None = None
    """Announced range to insert again before anything else."""
    is_of_log: bool = field(default=False, compare=False)
    """True if the offset was committed for this log: same cluster, topic id and epoch, all known."""


@dataclass(slots=True)
class _Partition:
    log: LogIdentity
    intent: Intent | None
    """Intent accepted by the coordinator, not known to be inserted."""
    inserted_up_to: int | None = None
    """Offset before which everything is inserted; None once that is committed."""


class DeliveryLedger:
    """Delivery state of the partitions that this worker owns. No method blocks."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition] = {}

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._partitions

    def partitions(self) -> list[TopicPartition]:
        return list(self._partitions)

    def assign(
        self, partition: TopicPartition, committed: Committed, log: LogIdentity
    ) -> StartPosition:
        """Take the partition over from the committed state of its last owner."""
        intent = parse_intent(committed.metadata)
        if intent is None or committed.offset != intent.span.first:
            # No intent, or the offset was moved by other means.
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(committed.offset)
        if intent.log.cluster_id != log.cluster_id:
            # The group's offsets were copied to another cluster, with this one set on purpose; the
            # topic has another id there, and the range is unknown.
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(committed.offset)
        if intent.log.topic_id and log.topic_id and intent.log.topic_id != log.topic_id:
            # The topic was recreated: its offsets identify other records now.
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(None)
        if intent.log.epoch != log.epoch:
            # Declared replaced: the range is unknown in the new log.
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(committed.offset)
        is_of_log = bool(log.topic_id) and intent.log == log
        if not intent.is_pending:
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(committed.offset, is_of_log=is_of_log)
        # The intent's own identity determines the token, even if the broker reported less of it then.
        self._partitions[partition] = _Partition(log, intent)
        return StartPosition(intent.span.first, intent.span, is_of_log)

    def log(self, partition: TopicPartition) -> LogIdentity:
        """Return the identity of the partition's log at its assignment."""
        return self._partitions[partition].log

    def announce(self, spans: Mapping[TopicPartition, OffsetRange]) -> list[Commit]:
        """Return the commits that announce these ranges and complete what was inserted before them."""
        commits = []
        for partition, span in spans.items():
            state = self._partitions[partition]
            if state.intent is not None:
                raise ValueError(f"{partition}: {state.intent.span} is not inserted yet")
            if state.inserted_up_to is not None and span.first != state.inserted_up_to:
                raise ValueError(
                    f"{partition}: {span} does not follow what ends at {state.inserted_up_to}"
                )
            commits.append(Commit(partition, span.first, Intent(span, state.log).metadata()))
        return commits

    def accept(self, spans: Mapping[TopicPartition, OffsetRange]) -> None:
        """Record that the coordinator has accepted the announcement of these ranges."""
        for partition, span in spans.items():
            state = self._partitions[partition]
            state.intent = Intent(span, state.log)
            state.inserted_up_to = None

    def token(self, partition: TopicPartition) -> str | None:
        """Return the token of the partition's announced range; None if none is announced."""
        intent = self._partitions[partition].intent
        return None if intent is None else token(partition, intent)

    def inserted(self, partition: TopicPartition, span: OffsetRange) -> None:
        """Record that everything up to the range's end is in ClickHouse or the dead-letter topic."""
        state = self._partitions[partition]
        if state.intent is not None and state.intent.span != span:
            raise ValueError(f"{partition}: {span} is not the announced {state.intent.span}")
        state.intent, state.inserted_up_to = None, span.end

    def completions(self, partitions: Iterable[TopicPartition]) -> list[Commit]:
        """Return the commits of everything inserted in these partitions, with nothing pending."""
        commits = []
        for partition in partitions:
            state = self._partitions[partition]
            if state.inserted_up_to is not None:
                nothing = Intent(OffsetRange(state.inserted_up_to, state.inserted_up_to), state.log)
                commits.append(Commit(partition, state.inserted_up_to, nothing.metadata()))
        return commits

    def completed(self, commits: Iterable[Commit]) -> None:
        """Record that the coordinator has accepted the completions."""
        for commit in commits:
            state = self._partitions[commit.partition]
            if state.inserted_up_to == commit.offset:
                state.inserted_up_to = None

    def forget(self, partition: TopicPartition) -> None:
        """Drop the state of a partition after its assignment ended."""
        self._partitions.pop(partition, None)
