"""Decodes dead-letter messages once more and inserts those that are valid events now.

Never inserts a record twice: messages are announced in their own partition before they are inserted
under the announcement's token, and messages that a crash left announced are inserted again under the
same token before anything else, into the shard that the announcement names. Once ClickHouse may have
forgotten the token, their rows are counted first.

Rows that a `replay` has inserted from the topic are not covered by those announcements, and a row does
not name its source. So the table is queried first: if it has rows equal to the events of the messages,
nothing is inserted until the operator decides (`StoredRows`).
"""

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from octane_analytics.errors import ConfigError, DataRejected, DecodeError, OctaneError
from octane_analytics.events.event import Row
from octane_analytics.interfaces import BlockSink, Shards
from octane_analytics.operations.dead_letters import (
    DeadLetter,
    DeadLetterIndex,
    MessageKind,
    RetryMarker,
    RetryState,
    Selection,
    position_of,
)
from octane_analytics.pipeline.repeated_insert import insert_in_parts, insert_repeated
from octane_analytics.types import OffsetRange, Record, TopicPartition

CHUNK_MESSAGES = 5_000
CHUNK_BYTES = 16 << 20
_TOKEN_SECONDS = 300.0
"""Age of an announcement up to which the table certainly has its token: it remembers a number of
inserts, 10,000 by default, of all workers together."""


class DeadLetterSource(Protocol):
    """Methods of `kafka.dlq_topic.DeadLetterTopic` that a retry needs."""

    topic: str

    def spans(self) -> dict[TopicPartition, OffsetRange]: ...
    def read(self, spans: Mapping[TopicPartition, OffsetRange]) -> Iterator[Sequence[Record]]: ...
    def mark(
        self, partition: TopicPartition, headers: Sequence[tuple[str, bytes]], value: bytes
    ) -> None: ...


class EventsTable(Shards, Protocol):
    def count_equal(self, columns: Sequence[Sequence[object]]) -> Sequence[int]:
        """Return, for each row, the number of equal rows in all shards. Raise Unavailable."""
        ...


class StoredRows(StrEnum):
    """Treatment of messages whose events have equal rows in the table."""

    REFUSE = "refuse"
    """Insert nothing at all."""
    SKIP = "skip"
    """The rows are these events: settle as many messages as there are equal rows."""
    INSERT = "insert"
    """The rows are other events: insert these too."""


class AlreadyPresent(OctaneError):
    """The table has equal rows; nothing of this run was inserted."""


@dataclass(slots=True)
class RetryOutcome:
    """Counts of messages by outcome; valid at any time, also after an exception."""

    chosen: int = 0
    inserted: int = 0
    finished: int = 0
    """Part of `inserted` that an earlier retry had announced."""
    failed: Counter[str] = field(default_factory=Counter)
    """Messages that this decoder rejects too, by reason; they stay."""
    refused: int = 0
    """Events that ClickHouse refuses; they stay."""
    duplicates: int = 0
    """Further messages of a record that is inserted already."""
    present: int = 0
    """Messages settled without an insert, because the table has their events."""
    not_retryable: int = 0

    @property
    def remaining(self) -> int:
        return sum(self.failed.values()) + self.refused + self.not_retryable

    @property
    def processed(self) -> int:
        return self.inserted - self.finished + self.remaining + self.present


def read_index(
    log: DeadLetterSource,
    spans: Mapping[TopicPartition, OffsetRange],
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    table: str = "",
) -> DeadLetterIndex:
    """Read all messages of the ranges and the markers of the table. Blocks.

    Takes about 300 bytes for each message. `on_progress` receives the number of messages read so far.
    """
    index = DeadLetterIndex(table=table)
    for records in log.read(spans):
        index.add_records(records)
        on_progress(len(index.messages))
    return index


def select(
    found: RetryState, choice: Selection
) -> tuple[list[DeadLetter], list[DeadLetter], list[DeadLetter]]:
    """Return the messages to retry, duplicates of records that are inserted anyway, and messages that
    cannot be retried."""
    retryable, hopeless = {}, []
    duplicates = [message for message in found.duplicates if choice.includes(message)]
    for message in filter(choice.includes, found.left):
        if not message.is_retryable:
            hopeless.append(message)
        elif message.digest in retryable:
            duplicates.append(message)
        else:
            retryable[message.digest] = message
    return list(retryable.values()), duplicates, hopeless


class DeadLetterRetry:
    """One retry of an opened dead-letter topic."""

    def __init__(
        self,
        log: DeadLetterSource,
        table: EventsTable,
        decode: Callable[[bytes | None], Row],
        index: DeadLetterIndex,
        *,
        on_progress: Callable[[RetryOutcome], None] = lambda _: None,
        is_stopping: Callable[[], bool] = lambda: False,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        now: Callable[[], float] = time.time,
        chunk_messages: int = CHUNK_MESSAGES,
    ) -> None:
        """`index` covers everything that the topic held after it was opened. `now` returns epoch
        seconds."""
        self.outcome = RetryOutcome()
        self._log = log
        self._table = table
        self._decode = decode
        self._index = index
        self._on_progress = on_progress
        self._is_stopping = is_stopping
        self._new_id = new_id
        self._now = now
        self._chunk_messages = chunk_messages

    def recover(self) -> None:
        """Insert the messages that an earlier run had announced. Raises like `run`.

        Rows of an announcement that is old are counted first, and only missing ones are inserted. Of
        equal events in several announcements one may then stay missing, but none is there twice.
        Raise ConfigError if this version's decoder rejects one of them.
        """
        for (number, _), intent in list(self._index.pending.items()):
            partition = TopicPartition(self._log.topic, number)
            events = []
            for record in self._records(partition, intent.offsets):
                try:
                    events.append((record, self._decode(record.value())))
                except DecodeError as error:
                    raise ConfigError(
                        f"dead-letter message {position_of(record)} was announced by a retry that "
                        f"decoded it, and this version rejects it ({error}): run that version's retry"
                    ) from error
            self._insert(partition, intent, events, is_repeat=True)
        self.outcome.finished = self.outcome.inserted
        self.outcome.refused = 0  # those are among what is left again

    def run(self, choice: Selection, present: StoredRows = StoredRows.REFUSE) -> None:
        """Retry the selected messages, in chunks; stops between two chunks if `is_stopping`.

        Raise AlreadyPresent if `present` is REFUSE and the table has equal rows, Unavailable if Kafka
        or ClickHouse cannot be reached, AssignmentLost if another retry has started. The next run first
        inserts what was announced.
        """
        outcome = self.outcome
        retryable, duplicates, hopeless = select(self._index.by_state(), choice)
        outcome.chosen = len(retryable) + len(hopeless)
        outcome.duplicates, outcome.not_retryable = len(duplicates), len(hopeless)
        if present is not StoredRows.INSERT:
            found = self.find_stored(retryable)
            if found and present is StoredRows.REFUSE:
                raise AlreadyPresent(
                    f"{len(found):,} of {len(retryable):,} dead-letter messages have equal rows in the "
                    "table, as after a replay of their range: --present skip settles these without "
                    "inserting them, --present insert inserts them too"
                )
            self._settle(found)
            stored = {message.position for message in found}
            retryable = [message for message in retryable if message.position not in stored]
        for chunk in self._chunks(retryable):
            if self._is_stopping():
                return
            self._retry(chunk)
            self._on_progress(outcome)

    def find_stored(self, messages: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Return the messages whose events have equal rows in the table; a row counts for one."""
        found: list[DeadLetter] = []
        matched: Counter[bytes] = Counter()
        for chunk in self._chunks(messages):
            by_offset = {message.position.offset: message for message in chunk}
            events, _ = self._decoded(chunk)
            if not events:
                continue
            counts = self._table.count_equal(_columns(events))
            for (record, row), count in zip(events, counts, strict=True):
                if count:
                    key = hashlib.blake2b(repr(row).encode(), digest_size=16).digest()
                    if matched[key] < count:
                        matched[key] += 1
                        found.append(by_offset[position_of(record).offset])
        return found

    def _settle(self, messages: Sequence[DeadLetter]) -> None:
        for chunk in self._chunks(messages):
            number = chunk[0].position.partition
            offsets = tuple(message.position.offset for message in chunk)
            done = self._marker(MessageKind.DONE, self._new_id(), offsets)
            self._log.mark(TopicPartition(self._log.topic, number), done.headers(), done.value())
            self._index.complete(number, done)
            self.outcome.present += len(chunk)

    def _chunks(self, messages: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
        chunk: list[DeadLetter] = []
        size = 0
        for message in sorted(messages, key=lambda x: x.position):
            is_full = len(chunk) >= self._chunk_messages or size + message.size > CHUNK_BYTES
            if chunk and (is_full or chunk[0].position.partition != message.position.partition):
                yield chunk
                chunk, size = [], 0
            chunk.append(message)
            size += message.size
        if chunk:
            yield chunk

    def _retry(self, chunk: Sequence[DeadLetter]) -> None:
        partition = TopicPartition(self._log.topic, chunk[0].position.partition)
        events, reasons = self._decoded(chunk)
        self.outcome.failed.update(reasons)
        if not events:
            return
        offsets = tuple(position_of(record).offset for record, _ in events)
        shard = self._table.choose()
        intent = self._marker(MessageKind.INTENT, self._new_id(), offsets, shard)
        self._log.mark(partition, intent.headers(), intent.value())
        self._insert(partition, intent, events, is_repeat=False)

    def _marker(
        self, kind: MessageKind, name: str, offsets: tuple[int, ...], shard: str = ""
    ) -> RetryMarker:
        return RetryMarker(kind, name, offsets, shard, self._index.table)

    def _decoded(self, chunk: Sequence[DeadLetter]) -> tuple[list[tuple[Record, Row]], list[str]]:
        """Return the records that are valid events, and the rejection reasons of the others."""
        partition = TopicPartition(self._log.topic, chunk[0].position.partition)
        events, reasons = [], []
        for record in self._records(partition, [message.position.offset for message in chunk]):
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
        """Insert the announced messages under their token, then append the done marker."""
        refused: Mapping[int, str] = {}
        if events:
            sink = self._table.sink(intent.shard)
            age_seconds = self._now() - intent.sent_ms / 1000
            is_recent = 0 <= age_seconds <= _TOKEN_SECONDS
            refused = _insert_rows(
                sink, intent.token, events, is_repeat=is_repeat, prefers_token=is_recent
            )
        offsets = tuple(
            position_of(record).offset
            for number, (record, _) in enumerate(events)
            if number not in refused
        )
        done = self._marker(MessageKind.DONE, intent.id, offsets)
        self._log.mark(partition, done.headers(), done.value())
        self._index.complete(partition.partition, done)
        self.outcome.inserted += len(offsets)
        self.outcome.refused += len(refused)


def _insert_rows(
    sink: BlockSink,
    token: str,
    events: Sequence[tuple[Record, Row]],
    *,
    is_repeat: bool,
    prefers_token: bool,
) -> Mapping[int, str]:
    """Return the reasons of the rows that ClickHouse refuses."""
    columns = _columns(events)
    refused: dict[int, str] = {}
    try:
        if is_repeat:
            # Dead-letter messages may hold equal events, each of them announced by its own token.
            insert_repeated(sink, columns, token, prefers_token=prefers_token)
        else:
            sink.insert_block(columns, token, token)
    except DataRejected:

        def part_token(first: int, end: int) -> str:
            offsets = (position_of(events[row][0]).offset for row in (first, end - 1))
            return f"{token}/{'-'.join(map(str, offsets))}"

        insert_in_parts(sink, columns, token, part_token, is_repeat=is_repeat, refused=refused)
    return refused


def _columns(events: Sequence[tuple[Record, Row]]) -> list[list[object]]:
    return [list(column) for column in zip(*(row for _, row in events), strict=True)]
