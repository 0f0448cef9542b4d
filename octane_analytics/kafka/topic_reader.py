"""Bounded reading of a topic outside any group; also reports its ends and committed offsets.

Partitions are assigned manually and nothing is committed, so a reader affects no group.
"""

import time
from collections.abc import Mapping, Sequence, Set
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message
from confluent_kafka import TopicPartition as RawPartition
from confluent_kafka.admin import AdminClient

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka.client import translate
from octane_analytics.kafka.offsets import log_bounds, log_ends, offsets_at, watermarks
from octane_analytics.kafka.standalone_client import StandaloneClient
from octane_analytics.kafka.topic_identity import log_identity
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import Committed, LogIdentity, OffsetRange, Polled, TopicPartition

_STALL_SECONDS = 60.0
_GROUP_SUFFIX = "-replay"
"""Suffix of the group id that reading requires, though nothing is committed under it."""


class OffsetsRemoved(OctaneError):
    """Refusal of the next offset as out of range: mostly because retention has just removed it."""

    def __init__(self, partition: TopicPartition, offset: int | None) -> None:
        super().__init__(
            f"{partition} no longer holds the offsets being read: retention has removed them; start "
            "again with --clamp"
        )
        self.partition = partition
        self.offset = offset


class TopicReader(StandaloneClient):
    """Reader of the configured topic; not thread-safe.

    Every method blocks on a broker, for up to some seconds, and raises Unavailable if none answers,
    NeedsOperator for a missing topic or right.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        client_id: str,
        fetch_bytes: int | None = None,
        stall_seconds: float = _STALL_SECONDS,
    ) -> None:
        """`fetch_bytes` limits the bytes fetched of a partition at once; None for long ranges. A reading
        that receives nothing for `stall_seconds` fails."""
        super().__init__(settings, client_id)
        self._stall_seconds = stall_seconds
        self._fetch_properties = (
            {}
            if fetch_bytes is None
            else {
                "fetch.message.max.bytes": fetch_bytes,
                "queued.min.messages": 1,
                # A partition with a message in the queue is not fetched for so long, wherever it is
                # read from next: a second by default, for each place of which a few are read.
                "fetch.queue.backoff.ms": 10,
            }
        )
        self._reader: Consumer | None = None
        self._left: dict[int, int] = {}
        self._moved_at = 0.0

    @property
    def topic(self) -> str:
        return self._settings.topic

    @property
    def group(self) -> str:
        return self._settings.group_id

    def close(self) -> None:
        super().close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._left = {}

    def partitions(self) -> list[int]:
        return self._partition_numbers(self.topic)

    def retained_ranges(self, partitions: Sequence[int]) -> Mapping[int, OffsetRange]:
        """Return the retained offset range of each partition."""
        spans = {}
        for number in partitions:
            low, high = watermarks(self._connected(), TopicPartition(self.topic, number))
            spans[number] = OffsetRange(max(low, 0), max(high, low, 0))
        return spans

    def held_ranges(self, partitions: Sequence[int]) -> Mapping[int, OffsetRange]:
        """Return the offset range of each partition from its first offset to its log's end, also after
        an open transaction."""
        admin = self._broker.connect(AdminClient)
        found = log_bounds(admin, [TopicPartition(self.topic, number) for number in partitions])
        return {partition.partition: span for partition, span in found.items()}

    def log_ends(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the offset of each partition's next record, open transactions or not."""
        admin = self._broker.connect(AdminClient)
        found = log_ends(admin, [TopicPartition(self.topic, number) for number in partitions])
        return {partition.partition: end for partition, end in found.items()}

    def committed(self, partitions: Sequence[int]) -> Mapping[int, Committed]:
        """Return the committed offsets of the workers' group."""
        found = self._committed([TopicPartition(self.topic, number) for number in partitions])
        return {partition.partition: committed for partition, committed in found.items()}

    def at_time(self, epoch_seconds: float, partitions: Sequence[int]) -> Mapping[int, int | None]:
        """Return the first offset with that timestamp or a later one; None if there is none."""
        requested = [TopicPartition(self.topic, number) for number in partitions]
        found = offsets_at(self._connected(), requested, epoch_seconds)
        return {partition.partition: offset for partition, offset in found.items()}

    def identity(self) -> LogIdentity:
        """Return the identity of the topic's log."""
        admin = self._broker.connect(AdminClient)
        return log_identity(admin, self.topic, self._settings.log_epoch)

    def start_reading(self, spans: Mapping[int, OffsetRange]) -> None:
        """Start reading these ranges; abandons the ranges of an earlier call."""
        if self._reader is None:
            self._reader = self._broker.connect(
                Consumer,
                **{
                    "group.id": self.group + _GROUP_SUFFIX,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "error",
                    "enable.partition.eof": True,
                    "queued.max.messages.kbytes": self._broker.default(
                        "queued.max.messages.kbytes", 32_768
                    ),
                    **self._fetch_properties,
                },
            )
        self._left = {number: span.end for number, span in spans.items() if span.first < span.end}
        self._reader.assign(
            [RawPartition(self.topic, number, spans[number].first) for number in self._left]
        )
        self._moved_at = time.monotonic()

    @property
    def unfinished(self) -> Set[int]:
        """Partitions whose ranges have not been read to their ends."""
        return self._left.keys()

    @property
    def is_done(self) -> bool:
        """True once `poll` has returned every record of the ranges."""
        return not self._left

    def poll(self, max_records: int, timeout_seconds: float) -> Polled:
        """Return the next records of the ranges, in offset order within each partition.

        Raise Unavailable also if nothing was received for the stall time, OffsetsRemoved if the broker
        refuses an offset of a range as out of range.
        """
        assert self._reader is not None, "start_reading was not called"
        messages = self._reader.consume(max_records, timeout_seconds)
        if messages:
            self._moved_at = time.monotonic()
        elif self._left and time.monotonic() - self._moved_at > self._stall_seconds:
            raise self._stalled()
        return Polled(messages if self._are_within(messages) else self._filter(messages))

    def _are_within(self, messages: Sequence[Message]) -> bool:
        """Return whether all are records before the ends of their ranges: the common, cheap case."""
        if any(message.error() is not None for message in messages):
            return False
        # Offsets ascend within a partition, so the last one of each decides.
        lasts: dict[Any, Any] = {message.partition(): message.offset() for message in messages}
        return all(p in self._left and last + 1 < self._left[p] for p, last in lasts.items())

    def _filter(self, messages: Sequence[Message]) -> list[Message]:
        """Return the records within the ranges; removes partitions that are read to their end."""
        assert self._reader is not None, "start_reading was not called"
        left, records, finished = self._left, [], []
        for message in messages:
            partition, offset = message.partition(), message.offset()
            if message.error() is not None:
                finished += self._ended(message)
            elif partition is not None and offset is not None and partition in left:
                if offset < left[partition]:
                    records.append(message)
                if offset + 1 >= left[partition]:
                    finished.append(partition)
                    del left[partition]
        if finished:
            # Stop fetching records after the range.
            self._reader.incremental_unassign([RawPartition(self.topic, p) for p in finished])
        return records

    def _ended(self, message: Message) -> list[int]:
        error, partition, offset = message.error(), message.partition(), message.offset()
        assert error is not None
        if partition not in self._left or partition is None:
            return []
        if error.code() == KafkaError._PARTITION_EOF:
            # The last offsets of a range may hold no visible record.
            if offset is not None and offset >= self._left[partition]:
                del self._left[partition]
                return [partition]
            return []
        if error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
            raise OffsetsRemoved(TopicPartition(self.topic, partition), offset)
        raise translate(error, f"reading {TopicPartition(self.topic, partition)}")

    def _stalled(self) -> OctaneError:
        listed = ", ".join(str(TopicPartition(self.topic, number)) for number in sorted(self._left))
        text = f"reading {listed}: nothing was received for {self._stall_seconds:g} s"
        if self._broker.last_error is not None:
            return translate(self._broker.last_error, text)
        return Unavailable(text)
