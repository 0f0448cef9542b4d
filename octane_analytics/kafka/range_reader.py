"""Reader of a pending batch's offset ranges, outside the group; implements `interfaces.RangeReader`.

The batch may name partitions that its reader does not own. Its client is created for one reading and
closed after it: an idle client's threads wake several times a second.
"""

from collections.abc import Sequence

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.topic_reader import OffsetsRemoved, TopicReader
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import OffsetRange, PartitionRange, Record

_STALL_SECONDS = 10.0
"""Time without a record after which a reading fails, so that another batch has its turn."""


class KafkaRangeReader:
    """One reading at a time; not thread-safe."""

    def __init__(
        self, settings: KafkaSettings, *, client_id: str, stall_seconds: float = _STALL_SECONDS
    ) -> None:
        self._log = TopicReader(settings, client_id=client_id, stall_seconds=stall_seconds)
        self._is_done = True

    def begin(self, ranges: Sequence[PartitionRange]) -> Sequence[PartitionRange]:
        """Start reading; see `interfaces.RangeReader`. Blocks for some seconds at most."""
        self._is_done = False
        existing = set(self._log.partitions())
        held = self._log.held_ranges([r.partition for r in ranges if r.partition in existing])
        wanted, gone = {}, []
        for item in ranges:
            span = held.get(item.partition, OffsetRange(item.end, item.end))
            first = min(max(item.first, span.first), item.end)
            end = min(max(item.first, span.end), item.end)
            if first > item.first:
                gone.append(item._replace(end=first))
            if end < item.end and first < item.end:
                gone.append(item._replace(first=max(first, end)))
            if first < end:
                wanted[item.partition] = OffsetRange(first, end)
        self._log.start_reading(wanted)
        self._note_end()
        return gone

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record]:
        """Return the next records. Raise Unavailable if a partition cannot be read, or if retention has
        just removed records of a range: `begin` then reports which."""
        try:
            polled = self._log.poll(max_records, timeout_seconds)
        except OffsetsRemoved as error:
            raise Unavailable(
                f"the broker refuses offset {error.offset} of {error.partition} as out of range; "
                "reading again what its log holds"
            ) from error
        self._note_end()
        return polled.records

    @property
    def is_done(self) -> bool:
        return self._is_done

    def _note_end(self) -> None:
        if self._log.is_done and not self._is_done:
            self._is_done = True
            self._log.close()

    def close(self) -> None:
        self._log.close()
