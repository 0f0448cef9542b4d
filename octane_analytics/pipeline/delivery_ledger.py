"""The delivery protocol as a pure state machine: identities, intents, recovery, completion.

What makes an event arrive once is that the group's coordinator remembers, with the offset, which
range is being inserted under which token (the *intent*), and that it takes such a commit only from
the partition's owner. Whoever owns the partition next inserts exactly that range again under the same
token, and ClickHouse drops what it has seen before. The ledger decides what is to be committed and
under which token a range goes in; it does no input or output.

    unannounced --announce, accept--> announced --inserted--> inserted --next announce or completion
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from octane_analytics.types import Commit, Committed, LogIdentity, OffsetRange, TopicPartition

_MARK = "octane1"
"""Begins every intent; the digit is the format's version."""


@dataclass(frozen=True, slots=True)
class Intent:
    """The announcement that a range is being inserted under the log's identity.

    An empty range announces nothing: it says that everything before it is inserted, and of which log,
    for a topic may be made anew under a group's committed offsets.
    """

    span: OffsetRange
    log: LogIdentity

    @property
    def is_pending(self) -> bool:
        return self.span.first < self.span.end

    def metadata(self) -> str:
        """As the commit carries it."""
        log = self.log
        return ";".join((_MARK, str(self.span), log.cluster_id, log.topic_id, log.epoch))


def parse_intent(metadata: str) -> Intent | None:
    """The intent in a commit's metadata; None where it is not one of ours."""
    mark, *parts = metadata.split(";", 4)
    if mark != _MARK or len(parts) != 4:
        return None
    first, _, end = parts[0].partition("-")
    if not (first.isdecimal() and end.isdecimal()) or int(first) > int(end):
        return None
    return Intent(OffsetRange(int(first), int(end)), LogIdentity(*parts[1:]))


def token(partition: TopicPartition, intent: Intent) -> str:
    """ClickHouse's deduplication token of the range: the same for whoever inserts it."""
    log = hashlib.blake2b("\0".join(intent.log).encode(), digest_size=12).hexdigest()
    return f"octane/{log}/{partition.topic}/{partition.partition}/{intent.span}"


def part_token(whole: str, part: OffsetRange) -> str:
    """The token of a part of a range that has to be inserted in parts."""
    return f"{whole}/{part}"


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Where a partition is to be read from after its assignment."""

    offset: int | None
    """None: from the earliest the log still holds."""
    recovering: OffsetRange | None = None
    """The range that was announced and is to be inserted again before anything else."""
    is_of_log: bool = field(default=False, compare=False)
    """The offset was committed for this very log: same cluster, topic id and epoch, none unknown."""


@dataclass(slots=True)
class _Partition:
    log: LogIdentity
    intent: Intent | None
    """Accepted by the coordinator, not known to be inserted."""
    done: int | None = None
    """Everything before it is inserted, and the coordinator is still to hear of it."""


class DeliveryLedger:
    """The partitions that this worker owns. Every method is immediate."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition] = {}

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._partitions

    def partitions(self) -> list[TopicPartition]:
        return list(self._partitions)

    def assign(
        self, partition: TopicPartition, committed: Committed, log: LogIdentity
    ) -> StartPosition:
        """Takes the partition over from what its last owner left behind."""
        intent = parse_intent(committed.metadata)
        if intent is None or committed.offset != intent.span.first:
            # No intent, or one that the offset was moved away from by other means.
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(committed.offset)
        if intent.log.cluster_id != log.cluster_id:
            # Whoever carried the group's offsets to another cluster put this one in its place; the
            # topic has another id there, and nobody knows the range.
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(committed.offset)
        if intent.log.topic_id and log.topic_id and intent.log.topic_id != log.topic_id:
            # The topic was made anew: its offsets mean other records now.
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(None)
        if intent.log.epoch != log.epoch:
            # Declared replaced: nobody knows the range in the new log.
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(committed.offset)
        is_of_log = bool(log.topic_id) and intent.log == log
        if not intent.is_pending:
            self._partitions[partition] = _Partition(log, None)
            return StartPosition(committed.offset, is_of_log=is_of_log)
        # The intent's own identity names the token, also where the broker knew less of it then.
        self._partitions[partition] = _Partition(log, intent)
        return StartPosition(intent.span.first, intent.span, is_of_log)

    def log(self, partition: TopicPartition) -> LogIdentity:
        """The identity that the partition's log had when it was taken over."""
        return self._partitions[partition].log

    def announce(self, spans: Mapping[TopicPartition, OffsetRange]) -> list[Commit]:
        """The commit that announces these ranges and completes what was inserted before them."""
        commits = []
        for partition, span in spans.items():
            state = self._partitions[partition]
            if state.intent is not None:
                raise ValueError(f"{partition}: {state.intent.span} is not inserted yet")
            if state.done is not None and span.first != state.done:
                raise ValueError(f"{partition}: {span} does not follow what ends at {state.done}")
            commits.append(Commit(partition, span.first, Intent(span, state.log).metadata()))
        return commits

    def accept(self, spans: Mapping[TopicPartition, OffsetRange]) -> None:
        """The coordinator has taken the commit that announced these ranges."""
        for partition, span in spans.items():
            state = self._partitions[partition]
            state.intent = Intent(span, state.log)
            state.done = None

    def token(self, partition: TopicPartition) -> str | None:
        """Under which the partition's announced range goes in; None where none is announced."""
        intent = self._partitions[partition].intent
        return None if intent is None else token(partition, intent)

    def inserted(self, partition: TopicPartition, span: OffsetRange) -> None:
        """Everything up to the span's end is in ClickHouse or the dead-letter topic."""
        state = self._partitions[partition]
        if state.intent is not None and state.intent.span != span:
            raise ValueError(f"{partition}: {span} is not the announced {state.intent.span}")
        state.intent, state.done = None, span.end

    def completions(self, partitions: Iterable[TopicPartition]) -> list[Commit]:
        """The commit that leaves these partitions with nothing pending, as far as they have nothing."""
        commits = []
        for partition in partitions:
            state = self._partitions[partition]
            if state.done is not None:
                nothing = Intent(OffsetRange(state.done, state.done), state.log)
                commits.append(Commit(partition, state.done, nothing.metadata()))
        return commits

    def completed(self, commits: Iterable[Commit]) -> None:
        """The coordinator has taken the completions."""
        for commit in commits:
            state = self._partitions[commit.partition]
            if state.done == commit.offset:
                state.done = None

    def forget(self, partition: TopicPartition) -> None:
        """The partition is somebody else's."""
        self._partitions.pop(partition, None)
