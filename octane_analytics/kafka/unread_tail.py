"""Search for visible records in offsets that a group member has not returned.

Transaction markers, records of aborted transactions and gaps left by compaction are never returned, so
there may be nothing to return between a position and the log's end. librdkafka has events for the end of
a partition, but a member that keeps up would receive one with almost every record.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import OffsetRange

_FETCH_BYTES = 65_536
_POLL_SECONDS = 0.2


class TailSearch(NamedTuple):
    """Partitions by what was found; one that could not be read in time is in neither set."""

    with_records: frozenset[int]
    empty: frozenset[int]


def search_tails(
    settings: KafkaSettings, ranges: Mapping[int, OffsetRange], seconds: float
) -> TailSearch:
    """Read the ranges outside the group until each one has shown a record or its end.

    Blocks for about `seconds` at most. Raise Unavailable, and OctaneError if retention removed offsets.
    """
    with TopicReader(
        settings, client_id="octane-analytics-tail", fetch_bytes=_FETCH_BYTES
    ) as reader:
        reader.start_reading(ranges)
        found: set[int] = set()
        deadline = time.monotonic() + seconds
        while reader.unfinished - found and time.monotonic() < deadline:
            for record in reader.poll(1000, _POLL_SECONDS).records:
                number = record.partition()
                assert number is not None, "a record has a partition"
                found.add(number)
        empty = ranges.keys() - reader.unfinished - found
        return TailSearch(frozenset(found), frozenset(empty))
