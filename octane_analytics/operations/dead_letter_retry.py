"""Puts dead letters through the decoder once more and inserts those that are events now.

Never inserts a record twice: letters are announced in their own partition before they go in under the
announcement's token, and what a crash left announced is inserted again under the same token before
anything else. That rests on what the worker rests on: ClickHouse remembers the token until then.

What a `replay` has filled in from the topic is not in those announcements, and a row does not tell where
it came from. So the table is asked first: where it has rows equal to letters' events, nothing is
inserted until the operator says which it is (`Present`).
"""

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from octane_analytics.errors import ConfigError, DataRejected, DecodeError, OctaneError
from octane_analytics.events.event import Row
from octane_analytics.interfaces import Sink
from octane_analytics.operations.dead_letters import (
    DeadLetter,
    DeadLetterIndex,
    MessageKind,
    RetryMarker,
    RetryState,
    Selection,
    position_of,
)
from octane_analytics.types import OffsetRange, Record, TopicPartition

CHUNK_LETTERS = 5_000
CHUNK_BYTES = 16 << 20


class DeadLetterSource(Protocol):
    """`kafka.letters.LetterLog`, as far as it is needed here."""

    topic: str

    def spans(self) -> dict[TopicPartition, OffsetRange]: ...
    def read(self, spans: Mapping[TopicPartition, OffsetRange]) -> Iterator[Sequence[Record]]: ...
    def mark(
        self, partition: TopicPartition, headers: Sequence[tuple[str, bytes]], value: bytes
    ) -> None: ...


class EventsTable(Sink, Protocol):
    def count_equal(self, columns: Sequence[Sequence[object]]) -> Sequence[int]:
        """For each of the rows how many equal ones the table has. Raises Unavailable."""
        ...


class StoredRows(StrEnum):
    """What to do about letters whose events have equal rows in the table."""

    REFUSE = "refuse"
    """Insert nothing at all."""
    SKIP = "skip"
    """They are in: settle as many letters as there are equal rows."""
    INSERT = "insert"
    """Those rows are other events: insert these too."""


class AlreadyPresent(OctaneError):
    """Nothing of this run has been inserted."""


@dataclass(slots=True)
class RetryOutcome:
    """What became of the letters; holds at any time, also after an exception."""

    chosen: int = 0
    inserted: int = 0
    finished: int = 0
    """Of those, what an earlier retry had announced."""
    failed: Counter[str] = field(default_factory=Counter)
    """Letters that are no events to this decoder either, by reason; they stay."""
    refused: int = 0
    """Events that ClickHouse refuses; they stay."""
    duplicates: int = 0
    """Further letters of a record that is inserted already."""
    present: int = 0
    """Settled without inserting, for the table has them."""
    not_retryable: int = 0

    @property
    def stayed(self) -> int:
        return sum(self.failed.values()) + self.refused + self.not_retryable

    @property
    def done(self) -> int:
        return self.inserted - self.finished + self.stayed + self.present


def read_index(
    log: DeadLetterSource,
    spans: Mapping[TopicPartition, OffsetRange],
    tell: Callable[[int], None] = lambda _: None,
) -> DeadLetterIndex:
    """All letters and marks of the spans; about 300 bytes of memory for each letter. Blocks."""
    shelf = DeadLetterIndex()
    for records in log.read(spans):
        shelf.take(records)
        tell(len(shelf.letters))
    return shelf


def select(
    found: RetryState, choice: Selection
) -> tuple[list[DeadLetter], list[DeadLetter], list[DeadLetter]]:
    """The letters to retry, further letters of a record that goes in anyway, and hopeless ones."""
    retryable, hopeless = {}, []
    duplicates = [letter for letter in found.duplicates if choice.includes(letter)]
    for letter in filter(choice.includes, found.left):
        if not letter.is_retryable:
            hopeless.append(letter)
        elif letter.digest in retryable:
            duplicates.append(letter)
        else:
            retryable[letter.digest] = letter
    return list(retryable.values()), duplicates, hopeless


class DeadLetterRetry:
    """One run over an opened log."""

    def __init__(
        self,
        log: DeadLetterSource,
        sink: EventsTable,
        decode: Callable[[bytes | None], Row],
        shelf: DeadLetterIndex,
        *,
        on_progress: Callable[[RetryOutcome], None] = lambda _: None,
        is_stopping: Callable[[], bool] = lambda: False,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        chunk_letters: int = CHUNK_LETTERS,
    ) -> None:
        """`shelf` holds all that the log held once it was opened."""
        self.outcome = RetryOutcome()
        self._log = log
        self._sink = sink
        self._decode = decode
        self._shelf = shelf
        self._on_progress = on_progress
        self._is_stopping = is_stopping
        self._new_id = new_id
        self._chunk_letters = chunk_letters

    def recover(self) -> None:
        """Finishes what an earlier run had announced. Raises as `run` does."""
        for (number, _), intent in list(self._shelf.pending.items()):
            partition = TopicPartition(self._log.topic, number)
            events = []
            for record in self._records(partition, intent.offsets):
                try:
                    events.append((record, self._decode(record.value())))
                except DecodeError as error:
                    raise ConfigError(
                        f"letter {position_of(record)} was announced by a retry that took it for an "
                        f"event, and is none to this version ({error}): run that version's retry"
                    ) from error
            self._insert(partition, intent, events, is_repeat=True)
        self.outcome.finished = self.outcome.inserted
        self.outcome.refused = 0  # those are among what is left again

    def run(self, choice: Selection, present: StoredRows = StoredRows.REFUSE) -> None:
        """Retries the chosen letters, in chunks; stops between two of them when told to.

        Raises AlreadyPresent as `present` has it.

        Raises Unavailable where Kafka or ClickHouse cannot be reached, AssignmentLost when another
        retry has begun: run again, and what was announced is finished first.
        """
        outcome = self.outcome
        retryable, duplicates, hopeless = select(self._shelf.sorted(), choice)
        outcome.chosen = len(retryable) + len(hopeless)
        outcome.duplicates, outcome.not_retryable = len(duplicates), len(hopeless)
        if present is not StoredRows.INSERT:
            found = self.find_present(retryable)
            if found and present is StoredRows.REFUSE:
                raise AlreadyPresent(
                    f"{len(found):,} of {len(retryable):,} letters have equal rows in the table, as "
                    "after a replay of their range: --present skip settles these without inserting "
                    "them, --present insert inserts them too"
                )
            self._settle(found)
            places = {letter.place for letter in found}
            retryable = [letter for letter in retryable if letter.place not in places]
        for chunk in self._chunks(retryable):
            if self._is_stopping():
                return
            self._retry(chunk)
            self._on_progress(outcome)

    def find_present(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those whose events have equal rows in the table, each row counted for one letter."""
        found: list[DeadLetter] = []
        taken: Counter[bytes] = Counter()
        for chunk in self._chunks(letters):
            by_offset = {letter.place.offset: letter for letter in chunk}
            events, _ = self._decoded(chunk)
            if not events:
                continue
            counts = self._sink.count_equal(_columns(events))
            for (record, row), count in zip(events, counts, strict=True):
                if count:
                    key = hashlib.blake2b(repr(row).encode(), digest_size=16).digest()
                    if taken[key] < count:
                        taken[key] += 1
                        found.append(by_offset[position_of(record).offset])
        return found

    def _settle(self, letters: Sequence[DeadLetter]) -> None:
        for chunk in self._chunks(letters):
            number = chunk[0].place.partition
            done = RetryMarker(
                MessageKind.DONE, self._new_id(), tuple(x.place.offset for x in chunk)
            )
            self._log.mark(TopicPartition(self._log.topic, number), done.headers(), done.value())
            self._shelf.complete(number, done)
            self.outcome.present += len(chunk)

    def _chunks(self, letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
        chunk: list[DeadLetter] = []
        size = 0
        for letter in sorted(letters, key=lambda x: x.place):
            is_full = len(chunk) >= self._chunk_letters or size + letter.size > CHUNK_BYTES
            if chunk and (is_full or chunk[0].place.partition != letter.place.partition):
                yield chunk
                chunk, size = [], 0
            chunk.append(letter)
            size += letter.size
        if chunk:
            yield chunk

    def _retry(self, chunk: Sequence[DeadLetter]) -> None:
        partition = TopicPartition(self._log.topic, chunk[0].place.partition)
        events, reasons = self._decoded(chunk)
        self.outcome.failed.update(reasons)
        if not events:
            return
        offsets = tuple(position_of(record).offset for record, _ in events)
        intent = RetryMarker(MessageKind.INTENT, self._new_id(), offsets)
        self._log.mark(partition, intent.headers(), intent.value())
        self._insert(partition, intent, events, is_repeat=False)

    def _decoded(self, chunk: Sequence[DeadLetter]) -> tuple[list[tuple[Record, Row]], list[str]]:
        """The letters that are events, and why each of the others is none."""
        partition = TopicPartition(self._log.topic, chunk[0].place.partition)
        events, reasons = [], []
        for record in self._records(partition, [letter.place.offset for letter in chunk]):
            try:
                events.append((record, self._decode(record.value())))
            except DecodeError as error:
                reasons.append(error.reason)
        return events, reasons

    def _records(self, partition: TopicPartition, offsets: Sequence[int]) -> list[Record]:
        wanted = set(offsets)
        span = OffsetRange(min(offsets), max(offsets) + 1)
        return [
            record
            for records in self._log.read({partition: span})
            for record in records
            if record.offset() in wanted
        ]

    def _insert(
        self,
        partition: TopicPartition,
        intent: RetryMarker,
        events: Sequence[tuple[Record, Row]],
        *,
        is_repeat: bool,
    ) -> None:
        """The announced letters under their token, and the mark that says so."""
        inserted = self._insert_parts(intent.token, list(events), is_repeat) if events else []
        done = RetryMarker(
            MessageKind.DONE, intent.id, tuple(position_of(r).offset for r, _ in inserted)
        )
        self._log.mark(partition, done.headers(), done.value())
        self._shelf.complete(partition.partition, done)
        self.outcome.inserted += len(inserted)
        self.outcome.refused += len(events) - len(inserted)

    def _insert_parts(
        self,
        token: str,
        events: list[tuple[Record, Row]],
        is_repeat: bool,
        *,
        is_part: bool = False,
    ) -> list[tuple[Record, Row]]:
        """Halves what ClickHouse refuses until the bad rows are alone; answers what went in."""
        columns = _columns(events)
        try:
            # The last run may have inserted them as a whole, before the table refused one of them.
            self._sink.insert(
                columns, token, is_repeat=is_repeat, may_overlap=is_repeat and is_part
            )
        except DataRejected:
            if len(events) == 1:
                return []
            middle = len(events) // 2
            inserted = []
            for half in (events[:middle], events[middle:]):
                first, last = position_of(half[0][0]).offset, position_of(half[-1][0]).offset
                inserted += self._insert_parts(
                    f"{token}/{first}-{last}", half, is_repeat, is_part=True
                )
            return inserted
        return events


def _columns(events: Sequence[tuple[Record, Row]]) -> list[list[object]]:
    return [list(column) for column in zip(*(row for _, row in events), strict=True)]
