"""Reader of offset ranges outside the group."""

from collections.abc import Sequence

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import OffsetRange, PartitionRange, Record


class KafkaRangeReader:
    """Range reader (see `interfaces.RangeReader`); connects at the first reading. Not thread-safe."""

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        self._reader = TopicReader(settings, client_id=client_id)

    def begin(self, ranges: Sequence[PartitionRange]) -> Sequence[PartitionRange]:
        retained = self._reader.retained_ranges([item.partition for item in ranges])
        gone, spans = [], {}
        for number, first, end in ranges:
            low, high = retained[number].first, retained[number].end
            if first < low:
                gone.append(PartitionRange(number, first, min(low, end)))
            if max(first, low, high) < end:
                gone.append(PartitionRange(number, max(first, low, high), end))
            if max(first, low) < min(end, high):
                spans[number] = OffsetRange(max(first, low), min(end, high))
        self._reader.start_reading(spans)
        return gone

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record]:
        try:
            return self._reader.poll(max_records, timeout_seconds).records
        except Unavailable:
            raise
        except OctaneError as error:
            raise Unavailable(str(error)) from error

    @property
    def is_done(self) -> bool:
        return self._reader.is_done

    def close(self) -> None:
        self._reader.close()
