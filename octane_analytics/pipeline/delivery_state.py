"""Delivery protocol as a pure state machine, one object for all partitions of a worker.

An event arrives once because the group's coordinator remembers, with the offsets, which batch is being
inserted under which token (the intent), and accepts commits only from members of the current
generation. The next owner of any of the batch's partitions inserts the whole batch again under the same
token. The state decides what is committed, which batch is inserted, and when the worker starts again
from what is committed. It does no input or output, and does not depend on a clock.

    open --freeze--> frozen --announcement accepted--> announced --inserted--> inserted
    inserted --next announcement or completion accepted--> (nothing pending)

Rules, each of which is needed (a model check finds lost or doubled events without it):

1. An announced batch is inserted whole, whatever partitions the worker loses meanwhile.
2. A worker completes only partitions that it held without interruption since the announcement.
3. A commit whose outcome is unknown means a restart: a new member id fences the delayed commit. An
   announcement that was refused, but may have been stored before, is repeated unchanged; if a partition
   of the batch is lost before, it is one of unknown outcome.
4. An insert is a repeat if the batch was recovered, an attempt failed, or a member was lost after the
   announcement.
5. A partition joins a batch only after a commit of its own was accepted in this assignment. If only
   some intents of a commit were accepted, these are withdrawn; if that fails, the worker stops.
6. A batch belongs to one shard of the table, chosen before its first announcement and named in it. The
   batch is never inserted into another one, whatever shards are added or removed later.
7. An intent of version 1 is inserted under its version 1 token (`intents.Intent.token`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from octane_analytics.pipeline.intents import (
    MAX_COMMIT_BYTES,
    Intent,
    MetadataRoom,
    completed,
)
from octane_analytics.pipeline.pending_batch import PendingBatch
from octane_analytics.pipeline.start_positions import is_another_log
from octane_analytics.types import (
    Commit,
    CommitOutcome,
    LogIdentity,
    PartitionRange,
    TopicPartition,
)

_COMMIT_ROOM_BYTES = 80_000
"""Completions that go with an announcement: below 500 kB together with MAX_COMMIT_BYTES."""
_ENTRY_BYTES = 64
"""Bytes of a partition in a commit beside its metadata, rounded up."""


@dataclass(slots=True)
class _Partition:
    position: int
    """Next offset to read."""
    waits_for: Intent | None
    """Batch to recover before the partition is read."""
    is_confirmed: bool = False
    """True once a commit of its own was accepted in this assignment."""
    inserted_up_to: int | None = None
    """Offset before which everything is inserted; None once that is committed."""


@dataclass(slots=True)
class DeliveryState:
    """State of one worker. No method blocks. Partitions are numbers, all of one topic."""

    topic: str
    has_intents: bool = True
    """False for at-least-once delivery: batches are inserted without an announcement."""
    log: LogIdentity | None = None
    """Identity of the topic at the assignment; None without partitions."""
    pending: PendingBatch | None = None
    restart_reason: str | None = None
    """Reason to forget this object, join with a new client and start from what is committed; or None."""
    stop_reason: str | None = None
    """Reason why nothing that this worker may do is safe and an operator must set offsets; or None."""
    _partitions: dict[int, _Partition] = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)
    """First offsets of the open batch; its ranges end at the positions."""
    _room: MetadataRoom | None = None

    def __contains__(self, partition: int) -> bool:
        return partition in self._partitions

    @property
    def partitions(self) -> list[int]:
        return sorted(self._partitions)

    # Partitions come and go.

    def assign(self, partition: int, log: LogIdentity, start: int, pending: Intent | None) -> None:
        """Take the partition over at offset `start`, or with a batch that is recovered first."""
        if partition in self._partitions:
            raise ValueError(f"partition {partition} is assigned already")
        if self.log is None or not (self._partitions or self.pending):
            MetadataRoom(log)  # raises where the identity leaves no room
            self.log = log
        elif is_another_log(log, self.log):
            self.replace_log()
            return
        self._partitions[partition] = _Partition(start, pending)

    def drop(self, partitions: Iterable[int]) -> dict[int, int]:
        """Forget partitions that were revoked or lost.

        Return the positions to which other partitions go back: a batch that held records of a dropped
        one and was not announced is void.
        """
        gone = {number for number in partitions if number in self._partitions}
        rewound: dict[int, int] = {}
        if self.pending is not None and not gone.isdisjoint(self.pending.members):
            if self.pending.withdrawing & gone:
                self._stop()
            self.pending.is_announced |= self.pending.was_announced
            if self.pending.is_announced or self.pending.withdrawing:
                self.pending.members -= gone
                self.pending.is_repeat = True
            elif self.pending.may_be_announced:
                self.pending.members -= gone
                self._restart_from_committed()
            else:
                rewound = self._void_pending()
        if not gone.isdisjoint(self._open):
            rewound = self._void_open() | rewound
        for number in gone:
            del self._partitions[number]
        return {number: at for number, at in rewound.items() if number not in gone}

    def replace_log(self) -> None:
        """Record that the topic was recreated: its offsets identify other records now.

        A batch that was announced before is still inserted, and completes nothing.
        """
        self.drop(self.partitions)
        self.restart_reason = "topic was recreated"

    @property
    def must_restart(self) -> bool:
        """True if a restart is due; an announced batch of a recreated topic is inserted before."""
        return self.restart_reason is not None and (
            bool(self._partitions) or self.pending is None or not self.pending.is_announced
        )

    # Records come in.

    @property
    def unconfirmed(self) -> list[int]:
        """Partitions that wait only for a commit of their own."""
        return [
            number
            for number, found in self._partitions.items()
            if not found.is_confirmed and found.waits_for is None
        ]

    def position(self, partition: int) -> int:
        return self._partitions[partition].position

    def is_readable(self, partition: int) -> bool:
        """Return whether records of the partition may join the open batch."""
        found = self._partitions.get(partition)
        return found is not None and found.is_confirmed and found.waits_for is None

    def extend(self, partition: int, end: int) -> bool:
        """Add everything before `end` to the open batch; return False if the batch has no room for it.

        A batch without room must be frozen first. Only for readable partitions.
        """
        found = self._partitions[partition]
        if not self.is_readable(partition):
            raise ValueError(f"partition {partition} is not readable")
        if end <= found.position:
            return True
        if partition not in self._open:
            if self._room is None:
                assert self.log is not None, "there is one since the first assignment"
                self._room = MetadataRoom(self.log)
            if not self._room.take(partition, found.position):
                return False
            self._open[partition] = found.position
        found.position = end
        return True

    @property
    def open_ranges(self) -> list[PartitionRange]:
        return [
            PartitionRange(number, first, self._partitions[number].position)
            for number, first in sorted(self._open.items())
        ]

    # A batch leaves.

    def freeze(self) -> Intent | None:
        """Close the open batch and return its intent; None if it is empty or another one is pending."""
        if self.pending is not None or not self._open:
            return None
        assert self.log is not None, "there is one since the first assignment"
        intent = Intent(self.topic, self.log, tuple(self.open_ranges))
        self.pending = PendingBatch(intent, set(self._open), is_announced=not self.has_intents)
        self._clear_open()
        return intent

    def announcement(self) -> list[Commit]:
        """Return the commit that announces the frozen batch and completes other partitions."""
        batch = self.pending
        if batch is None or batch.is_announced or batch.withdrawing:
            return []
        metadata = batch.intent.metadata()
        commits = [
            self._commit(item.partition, item.first, metadata) for item in batch.intent.ranges
        ]
        return commits + self._completions(set(self._partitions) - batch.members)

    def announced(self, outcome: CommitOutcome) -> None:
        """Record the result of `announcement`.

        A batch that was refused as a whole stays as it is: announce it again.
        """
        batch = self.pending
        assert batch is not None, "an announcement needs a frozen batch"
        if self._note(outcome):
            return
        batch.may_be_announced |= outcome.may_be_stored
        taken = batch.members & outcome.accepted
        if taken == batch.members:
            batch.is_announced, batch.may_be_announced = True, False
            batch.was_announced = False
            self._note_completions(batch.members)
        elif taken and batch.was_announced:
            self._restart_from_committed()  # every partition has the intent
        elif taken:
            batch.withdrawing = frozenset(taken)
        self._note_completions(outcome.accepted - batch.members)

    def renew_announcement(self) -> bool:
        """Require the pending batch to be announced again before its insert; return whether it must be.

        A repeat needs no new announcement.
        """
        batch = self.pending
        if not self.has_intents or batch is None or not batch.is_announced or batch.is_repeat:
            return False
        batch.is_announced, batch.was_announced = False, True
        return True

    def withdrawal(self) -> list[Commit]:
        """Return the commit that withdraws the intents of a batch of which others were refused."""
        batch = self.pending
        if batch is None or not batch.withdrawing:
            return []
        return [
            self._commit(item.partition, item.first, self._nothing())
            for item in batch.intent.ranges
            if item.partition in batch.withdrawing
        ]

    def withdrawn(self, outcome: CommitOutcome) -> dict[int, int]:
        """Record the result of `withdrawal`; return the positions to which partitions go back.

        A partition whose intent was refused needs a commit of its own again.
        """
        batch = self.pending
        assert batch is not None, "a withdrawal needs a frozen batch"
        if outcome.is_unknown or not batch.withdrawing <= outcome.accepted:
            self._stop()
            return {}
        for number in batch.members:
            is_taken = number in batch.withdrawing
            self._partitions[number].is_confirmed = is_taken
            if is_taken:
                self._partitions[number].inserted_up_to = None
        return self._void_pending()

    def insert_failed(self) -> None:
        """Record that an insert of the pending batch failed, or may not have taken effect."""
        if self.pending is not None:
            self.pending.is_repeat = True

    def abandon(self) -> None:
        """Give up the batch of a recreated topic that could be inserted only by reading it again."""
        if self.restart_reason is not None:
            self.pending = None

    def recoveries(self) -> list[Intent]:
        """Return the pending batches of previous owners, each once.

        Each must be read again, inserted as a repeat under its token, and reported by `inserted`.
        """
        own = None if self.pending is None else self.pending.intent
        found = {p.waits_for: None for p in self._partitions.values() if p.waits_for is not None}
        return [intent for intent in found if intent != own]

    def completing(self, intent: Intent) -> set[int]:
        """Return the partitions that this worker completes once the batch is inserted."""
        batch = self.pending
        own = batch.members if batch is not None and batch.intent == intent else set()
        return own | {number for number, p in self._partitions.items() if p.waits_for == intent}

    def inserted(self, intent: Intent) -> None:
        """Record that every row of the batch is in ClickHouse or in the dead-letter topic."""
        batch = self.pending
        if batch is not None and batch.intent == intent:
            if not batch.is_announced:
                raise ValueError("a batch was inserted that is not announced")
            for item in intent.ranges:
                if item.partition in batch.members:
                    self._partitions[item.partition].inserted_up_to = item.end
            self.pending = None
        for item in intent.ranges:
            found = self._partitions.get(item.partition)
            if found is not None and found.waits_for == intent:
                found.position = found.inserted_up_to = item.end
                found.waits_for = None

    # Nothing pending.

    def completion(self, partitions: Iterable[int] | None = None) -> list[Commit]:
        """Return the commit that leaves partitions (all by default) with nothing pending.

        It includes the first commit of a partition after its assignment. Partitions that do not fit are
        left to the next commit; empty if none needs one.
        """
        return self._completions(self._partitions if partitions is None else partitions)

    def completed(self, outcome: CommitOutcome) -> None:
        """Record the result of `completion`."""
        if not self._note(outcome):
            self._note_completions(outcome.accepted)

    def _completions(self, partitions: Iterable[int]) -> list[Commit]:
        room = (
            (MAX_COMMIT_BYTES + _COMMIT_ROOM_BYTES) if self.pending is None else _COMMIT_ROOM_BYTES
        )
        commits: list[Commit] = []
        nothing = ""
        for number in sorted(partitions):
            found = self._partitions.get(number)
            if found is None or found.waits_for is not None:
                continue
            if found.inserted_up_to is None and found.is_confirmed:
                continue
            offset = found.inserted_up_to
            if offset is None:
                offset = self._open.get(number, found.position)
            nothing = nothing or self._nothing()  # once: 5 µs
            room -= len(nothing) + _ENTRY_BYTES
            if room < 0:
                break
            commits.append(self._commit(number, offset, nothing))
        return commits

    def _note_completions(self, accepted: Iterable[int]) -> None:
        for number in accepted:
            found = self._partitions[number]
            found.is_confirmed, found.inserted_up_to = True, None

    def _note(self, outcome: CommitOutcome) -> bool:
        """Return whether the outcome requires a restart."""
        if outcome.is_unknown:
            self._restart_from_committed()
        return outcome.is_unknown

    def _restart_from_committed(self) -> None:
        self.restart_reason = "outcome of a commit is unknown"

    def _commit(self, partition: int, offset: int, metadata: str) -> Commit:
        return Commit(TopicPartition(self.topic, partition), offset, metadata)

    def _nothing(self) -> str:
        assert self.log is not None, "there is one since the first assignment"
        return completed(self.topic, self.log)

    def _void_pending(self) -> dict[int, int]:
        """Give up a batch that was not announced, and the open one, which may follow its ranges."""
        assert self.pending is not None, "called for a pending batch"
        rewound = self._void_open()
        for item in self.pending.intent.ranges:
            if item.partition in self.pending.members:
                rewound[item.partition] = self._partitions[item.partition].position = item.first
        self.pending = None
        return rewound

    def _void_open(self) -> dict[int, int]:
        for number, first in self._open.items():
            self._partitions[number].position = first
        rewound = dict(self._open)
        self._clear_open()
        return rewound

    def _clear_open(self) -> None:
        self._open, self._room = {}, None

    def _stop(self) -> None:
        self.stop_reason = (
            "the coordinator accepted only some intents of a batch, and taking them back failed; "
            "nothing was inserted: set the group's offsets with `octane-analytics offsets`, then start "
            "again"
        )
