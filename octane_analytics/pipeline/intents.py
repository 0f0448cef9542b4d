"""Intents: the batch that a commit's metadata announces, its text form and its deduplication token.

An intent is carried by the commits of all partitions in the batch, and each carries all of it: the next
owner of one partition can recover the batch without the others. The text form (version 2) is

    octane2;RANGES;CLUSTER_ID;TOPIC_ID;EPOCH

with the identity percent-encoded and RANGES in base64url without padding: for each partition, in
ascending order, three LEB128 varints (partition number minus the one before, first offset, number of
offsets). No ranges mean that nothing is pending and everything before the offset is inserted; the
identity stays, because it reveals a topic that was recreated under a group's committed offsets.

A batch of a table with several shards has one more field, the percent-encoded identity of the only shard
that it is inserted into:

    octane2;RANGES;CLUSTER_ID;TOPIC_ID;EPOCH;SHARD

Releases that do not know this field refuse such a text as one of a newer version, and insert nothing.
Without the field, the batch belongs to the table's only shard.

Version 1 (`octane1;FIRST-END;CLUSTER_ID;TOPIC_ID;EPOCH`) announced one partition. It is read, never
written.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote

from octane_analytics.errors import ConfigError
from octane_analytics.types import Committed, LogIdentity, PartitionRange, TopicPartition

MAX_METADATA_BYTES = 2_000
"""Half of the default of the broker's `offset.metadata.max.bytes`."""
MAX_SHARD_BYTES = 200
"""Identity of the shard, percent-encoded, in addition to MAX_METADATA_BYTES."""
MAX_COMMIT_BYTES = 400_000
"""Metadata of all partitions of one commit: the broker stores them as one record batch."""
MAX_MEMBERS = MAX_COMMIT_BYTES // (MAX_METADATA_BYTES + 1 + MAX_SHARD_BYTES)
_MARK = "octane2"
_ANY_VERSION = re.compile(r"octane(\d+);", re.ASCII)
_VERSION_1 = re.compile(r"octane1;(\d{1,19})-(\d{1,19});([^;]*);([^;]*);(.*)", re.ASCII | re.DOTALL)
_MAX_OFFSET = 2**63 - 1
_MAX_PARTITION = 2**31 - 1
_LENGTH_BYTES = 5
"""Reserved for the number of offsets, which grows after a partition has joined: up to 2**35."""


@dataclass(frozen=True, slots=True)
class Intent:
    """Batch as the ranges that it consists of; without ranges, the statement that nothing is pending."""

    topic: str
    log: LogIdentity
    ranges: tuple[PartitionRange, ...]
    """Ranges, none empty, in ascending order of their partitions."""
    version: int = 2
    shard: str = ""
    """Identity of the shard, as its servers state it; empty for the only shard of the table."""
    _metadata: str = field(default="", init=False, repr=False, compare=False)
    """Text form, once it was needed: 40 µs for 64 partitions, and needed several times."""

    def __post_init__(self) -> None:
        if self.shard and not (self.ranges and self.version == 2):
            raise ValueError("only a batch of version 2 has a shard")
        previous = -1
        for number, first, end in self.ranges:
            if not (previous < number <= _MAX_PARTITION and 0 <= first < end <= _MAX_OFFSET):
                raise ValueError(f"invalid ranges of a batch: {self.ranges}")
            previous = number

    @property
    def is_pending(self) -> bool:
        return bool(self.ranges)

    @property
    def partitions(self) -> tuple[int, ...]:
        return tuple(item.partition for item in self.ranges)

    def range_of(self, partition: int) -> PartitionRange | None:
        return next((item for item in self.ranges if item.partition == partition), None)

    def on_shard(self, shard: str) -> "Intent":
        """Return the same batch for this shard. Raise ConfigError if its identity is too long."""
        if len(_encode_text(shard)) > MAX_SHARD_BYTES:
            raise ConfigError(
                f"the identity of shard {shard!r} takes more than {MAX_SHARD_BYTES} bytes of a commit's "
                "metadata: give its servers a shorter `shard` macro"
            )
        return self if shard == self.shard else replace(self, shard=shard)

    def metadata(self) -> str:
        """Format the intent (version 2): ASCII, the same text for every partition of the batch."""
        if not self._metadata:
            shard = f";{_encode_text(self.shard)}" if self.shard else ""
            text = f"{_MARK};{_encode_ranges(self.ranges)};{_encode_log(self.log)}{shard}"
            object.__setattr__(self, "_metadata", text)
        return self._metadata

    def token(self) -> str:
        """Return ClickHouse's deduplication token, the same for every worker that inserts the batch."""
        if self.version == 1:
            (only,) = self.ranges
            log = hashlib.blake2b("\0".join(self.log).encode(), digest_size=12).hexdigest()
            return f"octane/{log}/{self.topic}/{only.partition}/{only.first}-{only.end}"
        digest = hashlib.blake2b(self.metadata().encode(), digest_size=16).hexdigest()
        return f"octane2/{self.topic}/{digest}"

    def part_token(self, part: PartitionRange) -> str:
        """Return the token of a part of the batch that is inserted by itself."""
        if self.version == 1:
            return f"{self.token()}/{part.first}-{part.end}"
        return f"{self.token()}/{part.partition}/{part.first}-{part.end}"


def completed(topic: str, log: LogIdentity) -> str:
    """Metadata of an offset up to which everything is inserted, with nothing pending."""
    return Intent(topic, log, ()).metadata()


def parse_intent(topic: str, partition: int, metadata: str) -> Intent | None:
    """Return the intent in a commit's metadata, of any version; None if the metadata is not ours.

    Raise ConfigError for an intent that this version cannot read: to go on without it could insert
    its batch a second time.
    """
    version = _ANY_VERSION.match(metadata)
    if version is None:
        return None
    found = None
    if version[1] == "1":
        found = _parse_version_1(topic, partition, metadata)
    elif version[1] == "2":
        found = _parse_version_2(topic, metadata)
    if found is None:
        raise ConfigError(
            f"the committed metadata of {TopicPartition(topic, partition)} is not an intent that this "
            "version can read: it was written by a newer version, or damaged; drain the group with "
            "the version that wrote it (SIGTERM), or set the offset with `octane-analytics offsets`"
        )
    return found


def pending_intent(topic: str, partition: int, committed: Committed) -> Intent | None:
    """Return the batch that is pending for this partition according to its committed offset.

    None also for an intent whose offset was moved by other means. Raise as `parse_intent`.
    """
    found = parse_intent(topic, partition, committed.metadata)
    own = None if found is None else found.range_of(partition)
    return found if own is not None and own.first == committed.offset else None


class MetadataRoom:
    """Room for partitions in the metadata of one batch."""

    def __init__(self, log: LogIdentity) -> None:
        """Raises ConfigError where the log's identity alone fills the metadata."""
        fixed = len(f"{_MARK};;{_encode_log(log)}")
        self._bytes = (MAX_METADATA_BYTES - fixed) * 3 // 4
        self._members = 0
        if self._bytes < len(_reserved(_MAX_PARTITION, _MAX_OFFSET)):
            raise ConfigError(
                f"the identity of the topic takes {fixed} of {MAX_METADATA_BYTES} bytes of a commit's "
                "metadata, and leaves no room for offsets: choose a shorter KAFKA_LOG_EPOCH"
            )

    def take(self, partition: int, first: int) -> bool:
        """Reserve room for a range that begins at `first` and may still grow; False if it is full."""
        needed = len(_reserved(partition, first))
        if self._members >= MAX_MEMBERS or needed > self._bytes:
            return False
        self._members += 1
        self._bytes -= needed
        return True


def _reserved(partition: int, first: int) -> bytes:
    return _varint(partition) + _varint(first) + b"\0" * _LENGTH_BYTES


def _encode_log(log: LogIdentity) -> str:
    return ";".join(map(_encode_text, log))


def _encode_text(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def _decode_text(text: str) -> str:
    return unquote(text, errors="surrogatepass")


def _encode_ranges(ranges: Iterable[PartitionRange]) -> str:
    packed = bytearray()
    previous = 0
    for number, first, end in ranges:
        packed += _varint(number - previous) + _varint(first) + _varint(end - first)
        previous = number
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _parse_version_1(topic: str, partition: int, metadata: str) -> Intent | None:
    match = _VERSION_1.fullmatch(metadata)
    if match is None:
        return None
    first, end = int(match[1]), int(match[2])
    if first > end or end > _MAX_OFFSET:
        return None
    ranges = (PartitionRange(partition, first, end),) if first < end else ()
    return Intent(topic, LogIdentity(match[3], match[4], match[5]), ranges, version=1)


def _parse_version_2(topic: str, metadata: str) -> Intent | None:
    parts = metadata.split(";")
    if len(parts) not in (5, 6):
        return None
    try:
        log = LogIdentity(*map(_decode_text, parts[2:5]))
        shard = "".join(map(_decode_text, parts[5:]))
        packed = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), b"-_", validate=True)
        found = Intent(topic, log, tuple(_unpack_ranges(packed)), shard=shard)
        # Only the one text that this version writes: nothing else is known to mean the same batch.
        return found if found.metadata() == metadata else None
    except (ValueError, IndexError, binascii.Error):
        return None


def _unpack_ranges(packed: bytes) -> list[PartitionRange]:
    found = []
    at = number = 0
    while at < len(packed):
        step, at = _read_varint(packed, at)
        first, at = _read_varint(packed, at)
        length, at = _read_varint(packed, at)
        number += step
        found.append(PartitionRange(number, first, first + length))
    return found


def _varint(number: int) -> bytes:
    packed = bytearray()
    while number > 0x7F:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)
    return bytes(packed)


def _read_varint(packed: bytes, at: int) -> tuple[int, int]:
    """Raises IndexError where the bytes end within the number."""
    number = shift = 0
    while True:
        byte = packed[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
