"""What the dead-letter topic holds: letters, and marks that say which of them have been retried.

A retry keeps its progress where the letters are: before it inserts some of a partition's letters it
adds a record that names them (the *intent*), afterwards one that names those that went in (*done*). A
mark stands behind the letters it speaks of, in the same partition, so retention removes the letters
first; and unlike a group's offsets it does not expire while nobody runs. Does no input or output.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from octane_analytics.kafka.record_headers import headers_of
from octane_analytics.types import OffsetRange, Record

MARK_HEADER = "octane.retry"
UNKNOWN = "unknown"
"""The reason of a record that no worker sent."""


class DeadLetterPosition(NamedTuple):
    """Where a letter lies in the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is kept of a letter while all of them are looked at: not its value."""

    place: DeadLetterPosition
    made_ms: int
    """When it was sent to the dead-letter topic, epoch milliseconds."""
    reason: str
    detail: str
    origin: tuple[str, int, int] | None
    """Topic, partition and offset that it was read from; None where no worker sent it."""
    digest: bytes
    """The same for letters of one and the same record, which a crash may have sent twice."""
    size: int
    """Bytes of its value, or of the value that did not fit into the dead-letter topic."""
    is_cut: bool
    """Sent without its value, which was too large."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Bytes of its headers and its key, as far as they were too large and it was sent without them."""

    @property
    def is_retryable(self) -> bool:
        return self.origin is not None and not self.is_cut


def parse_dead_letter(record: Record) -> DeadLetter:
    """Reads the headers that the worker has added; its own come last, after the record's."""
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
    # Of a topic that was made anew the same offset is another record: time and value tell them apart.
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
    """Says of letters of its own partition that they are about to be inserted, or have been."""

    kind: MessageKind
    id: str
    """The same in the intent and in what completes it; names the deduplication token."""
    offsets: tuple[int, ...]
    """Ascending."""

    @property
    def token(self) -> str:
        return f"octane/retry/{self.id}"

    def headers(self) -> list[tuple[str, bytes]]:
        return [(MARK_HEADER, self.kind.value.encode())]

    def value(self) -> bytes:
        return json.dumps({"id": self.id, "offsets": format_ranges(self.offsets)}).encode()


def parse_retry_marker(record: Record) -> RetryMarker | None:
    """None for a letter, also where the record that it holds had carried our header."""
    headers = _headers(record)
    kind = headers.get(MARK_HEADER)
    if kind is None or "octane.offset" in headers:
        return None
    try:
        told = json.loads(record.value() or b"")
        return RetryMarker(
            MessageKind(kind.decode()), str(told["id"]), tuple(parse_ranges(told["offsets"]))
        )
    except (ValueError, TypeError, KeyError):
        return None  # not written by a retry


def format_ranges(offsets: Iterable[int]) -> str:
    """Ascending offsets as `3-5,9`."""
    ranges: list[list[int]] = []
    for offset in offsets:
        if ranges and ranges[-1][1] + 1 == offset:
            ranges[-1][1] = offset
        else:
            ranges.append([offset, offset])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def parse_ranges(text: str) -> Iterator[int]:
    """Raises ValueError for what `format_ranges` does not write."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@dataclass
class DeadLetterIndex:
    """All letters of the topic, in the order in which each partition holds them."""

    letters: list[DeadLetter] = field(default_factory=list)
    pending: dict[tuple[int, str], RetryMarker] = field(default_factory=dict)
    """Intents that nothing has completed, by partition and id."""
    inserted: set[DeadLetterPosition] = field(default_factory=set)

    def take(self, records: Iterable[Record]) -> None:
        for record in records:
            mark = parse_retry_marker(record)
            if mark is None:
                self.letters.append(parse_dead_letter(record))
                continue
            partition = position_of(record).partition
            if mark.kind is MessageKind.INTENT:
                self.pending[partition, mark.id] = mark
            else:
                self.complete(partition, mark)

    def complete(self, partition: int, done: RetryMarker) -> None:
        self.pending.pop((partition, done.id), None)
        self.inserted.update(DeadLetterPosition(partition, offset) for offset in done.offsets)

    def sorted(self) -> "RetryState":
        """The letters by what is still to be done about them."""
        announced = {
            DeadLetterPosition(partition, offset)
            for (partition, _), mark in self.pending.items()
            for offset in mark.offsets
        }
        inserted = {x.digest for x in self.letters if x.place in self.inserted}
        found = RetryState()
        for letter in self.letters:
            if letter.place in self.inserted:
                found.inserted.append(letter)
            elif letter.place in announced:
                found.pending.append(letter)
            elif letter.origin is not None and letter.digest in inserted:
                found.duplicates.append(letter)
            else:
                found.left.append(letter)
        return found


@dataclass
class RetryState:
    inserted: list[DeadLetter] = field(default_factory=list)
    pending: list[DeadLetter] = field(default_factory=list)
    """Announced by a retry that has not ended; the next one finishes them first."""
    duplicates: list[DeadLetter] = field(default_factory=list)
    """Their record went in with another letter of it."""
    left: list[DeadLetter] = field(default_factory=list)
    """Several letters of one record may be among them."""

    def settled_before(self, spans: Mapping[int, OffsetRange]) -> dict[int, int]:
        """For each partition the offset below which no letter waits for anything."""
        found = {number: span.end for number, span in spans.items()}
        for letter in (*self.left, *self.pending):
            number, offset = letter.place
            found[number] = min(found[number], offset)
        return found


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters a command is about; everything unless told otherwise."""

    reasons: frozenset[str] = frozenset()
    ranges: Sequence[tuple[int | None, int, int]] = ()
    """Partition (None: each), first and last offset in the dead-letter topic."""

    def includes(self, letter: DeadLetter) -> bool:
        if self.reasons and letter.reason not in self.reasons:
            return False
        return not self.ranges or any(
            number in (None, letter.place.partition) and first <= letter.place.offset <= last
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
