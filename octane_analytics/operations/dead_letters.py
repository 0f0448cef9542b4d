"""Contents of the dead-letter topic: dead-letter messages, and markers of those that were retried.

A retry keeps its progress in the topic itself: before it inserts messages of a partition, it appends a
record that names them (the *intent*), afterwards one that names those that were inserted (*done*). A
marker has a later offset than its messages, in the same partition, so retention removes the messages
first; and unlike a group's offsets it does not expire while no process runs. Does no input or output.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from octane_analytics.kafka.record_headers import headers_of
from octane_analytics.types import OffsetRange, Record

MARKER_HEADER = "octane.retry"
UNKNOWN = "unknown"
"""Reason of a record that no worker sent."""


class DeadLetterPosition(NamedTuple):
    """Partition and offset in the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Metadata of one dead-letter message, without its value."""

    position: DeadLetterPosition
    sent_ms: int
    """Time at which it was sent to the dead-letter topic, epoch milliseconds."""
    reason: str
    detail: str
    origin: tuple[str, int, int] | None
    """Topic, partition and offset of the original record; None if no worker sent the message."""
    digest: bytes
    """Equal for messages of the same record, which a crash may have sent twice."""
    size: int
    """Bytes of its value, or of the value that did not fit into the dead-letter topic."""
    is_cut: bool
    """True if it was sent without its value, which was too large."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the headers and of the key that were too large and are missing from the message."""

    @property
    def is_retryable(self) -> bool:
        return self.origin is not None and not self.is_cut


def parse_dead_letter(record: Record) -> DeadLetter:
    """Parse a message by the headers of the worker, which come after the record's own."""
    headers = _headers(record)
    value = record.value()
    reason, _, detail = _text(headers.get("octane.error")).partition(": ")
    topic, partition, offset = (
        _text(headers.get(f"octane.{name}")) for name in ("topic", "partition", "offset")
    )
    origin = None
    if topic and partition.isdecimal() and offset.isdecimal():
        origin = (topic, int(partition), int(offset))
    cut = _text(headers.get("octane.value_bytes"))
    is_cut = value is None and cut.isdecimal()
    digest = hashlib.blake2b(digest_size=16)
    # After a topic was recreated, the same offset is another record: include time and value.
    for part in (topic, partition, offset, _text(headers.get("octane.timestamp"))):
        digest.update(part.encode() + b"\0")
    digest.update(b"" if value is None else b"\1" + value)
    return DeadLetter(
        position_of(record),
        record.timestamp()[1],
        reason if origin and reason else UNKNOWN,
        detail,
        origin,
        digest.digest(),
        int(cut) if is_cut else len(value or b""),
        is_cut,
        {
            part: int(size)
            for part in ("headers", "key")
            if (size := _text(headers.get(f"octane.{part}_bytes"))).isdecimal()
        },
    )


def position_of(record: Record) -> DeadLetterPosition:
    partition, offset = record.partition(), record.offset()
    assert partition is not None, "a record that was read has a partition"
    assert offset is not None, "a record that was read has an offset"
    return DeadLetterPosition(partition, offset)


class MessageKind(Enum):
    INTENT = "intent"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class RetryMarker:
    """Record that names messages of its own partition about to be inserted, or inserted already."""

    kind: MessageKind
    id: str
    """Common id of the intent and of the marker that completes it; part of the deduplication token."""
    offsets: tuple[int, ...]
    """Ascending."""
    shard: str = ""
    """Identity of the shard that an intent's events are inserted into; empty for the only one."""
    table: str = ""
    """Table that the events are inserted into; empty in markers of older releases."""
    sent_ms: int = field(default=0, compare=False)
    """Time at which it was appended, epoch milliseconds; 0 if not known."""

    @property
    def token(self) -> str:
        return f"octane/retry/{self.id}"

    def headers(self) -> list[tuple[str, bytes]]:
        return [(MARKER_HEADER, self.kind.value.encode())]

    def value(self) -> bytes:
        body = {"id": self.id, "offsets": format_ranges(self.offsets)}
        if self.shard:
            body["shard"] = self.shard
        if self.table:
            body["table"] = self.table
        return json.dumps(body).encode()


def parse_retry_marker(record: Record) -> RetryMarker | None:
    """Return None for a dead-letter message, even if its original record carried our header."""
    headers = _headers(record)
    kind = headers.get(MARKER_HEADER)
    if kind is None or "octane.offset" in headers:
        return None
    try:
        body = json.loads(record.value() or b"")
        return RetryMarker(
            MessageKind(kind.decode()),
            str(body["id"]),
            tuple(parse_ranges(body["offsets"])),
            str(body.get("shard", "")),
            str(body.get("table", "")),
            record.timestamp()[1],
        )
    except (ValueError, TypeError, KeyError):
        return None  # not written by a retry


def format_ranges(offsets: Iterable[int]) -> str:
    """Format ascending offsets as `3-5,9`."""
    ranges: list[list[int]] = []
    for offset in offsets:
        if ranges and ranges[-1][1] + 1 == offset:
            ranges[-1][1] = offset
        else:
            ranges.append([offset, offset])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def parse_ranges(text: str) -> Iterator[int]:
    """Parse the output of `format_ranges`. Raise ValueError for any other text."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@dataclass
class DeadLetterIndex:
    """All messages of the topic, in offset order within each partition, and the retry markers.

    Services with tables of their own may share the topic: markers of other tables do not count.
    """

    table: str = ""
    """Table of this service; empty to count the markers of all."""
    messages: list[DeadLetter] = field(default_factory=list)
    pending: dict[tuple[int, str], RetryMarker] = field(default_factory=dict)
    """Intents without a done marker, by partition and id."""
    inserted: set[DeadLetterPosition] = field(default_factory=set)

    def add_records(self, records: Iterable[Record]) -> None:
        for record in records:
            marker = parse_retry_marker(record)
            if marker is None:
                self.messages.append(parse_dead_letter(record))
                continue
            if marker.table and self.table and marker.table != self.table:
                continue
            partition = position_of(record).partition
            if marker.kind is MessageKind.INTENT:
                self.pending[partition, marker.id] = marker
            else:
                self.complete(partition, marker)

    def complete(self, partition: int, done: RetryMarker) -> None:
        self.pending.pop((partition, done.id), None)
        self.inserted.update(DeadLetterPosition(partition, offset) for offset in done.offsets)

    def by_state(self) -> "RetryState":
        """Group the messages by their state: inserted, pending, duplicate or left to retry."""
        announced = {
            DeadLetterPosition(partition, offset)
            for (partition, _), marker in self.pending.items()
            for offset in marker.offsets
        }
        inserted = {x.digest for x in self.messages if x.position in self.inserted}
        found = RetryState()
        for message in self.messages:
            if message.position in self.inserted:
                found.inserted.append(message)
            elif message.position in announced:
                found.pending.append(message)
            elif message.origin is not None and message.digest in inserted:
                found.duplicates.append(message)
            else:
                found.left.append(message)
        return found


@dataclass
class RetryState:
    inserted: list[DeadLetter] = field(default_factory=list)
    pending: list[DeadLetter] = field(default_factory=list)
    """Announced by a retry that did not finish; the next retry inserts them first."""
    duplicates: list[DeadLetter] = field(default_factory=list)
    """Messages whose record was inserted through another message."""
    left: list[DeadLetter] = field(default_factory=list)
    """Messages still to be retried; several may be of one record."""

    def settled_before(self, spans: Mapping[int, OffsetRange]) -> dict[int, int]:
        """Return, for each partition, the offset before which every message is settled."""
        found = {number: span.end for number, span in spans.items()}
        for message in (*self.left, *self.pending):
            number, offset = message.position
            found[number] = min(found[number], offset)
        return found


@dataclass(frozen=True, slots=True)
class Selection:
    """Messages that a command applies to; all of them by default."""

    reasons: frozenset[str] = frozenset()
    ranges: Sequence[tuple[int | None, int, int]] = ()
    """Partition (None: every partition), first and last offset in the dead-letter topic."""

    def includes(self, message: DeadLetter) -> bool:
        if self.reasons and message.reason not in self.reasons:
            return False
        return not self.ranges or any(
            number in (None, message.position.partition)
            and first <= message.position.offset <= last
            for number, first, last in self.ranges
        )


def _headers(record: Record) -> dict[str, bytes]:
    return {
        name: value
        for name, value in headers_of(record)
        if isinstance(name, str) and isinstance(value, bytes)
    }


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
