"""Offsets of the workers' group that bound a comparison: what is inserted, and what may be."""

from collections.abc import Iterator, Mapping

from octane_analytics.pipeline.intents import parse_intent, pending_intent
from octane_analytics.types import Committed, PartitionRange


def announced_ends(topic: str, committed: Mapping[int, Committed]) -> dict[int, int]:
    """Return the offset of each partition from which on no worker has inserted anything.

    Partitions whose offset carries no intent are absent: their workers may have inserted everything. A
    batch may be pending for some of its partitions only, but names the ranges of all. Raise ConfigError
    for an unreadable intent.
    """
    ends = {}
    for partition, found in committed.items():
        if found.offset is not None and parse_intent(topic, partition, found.metadata) is not None:
            ends[partition] = found.offset
    for item in _pending_ranges(topic, committed):
        if item.partition in ends:
            ends[item.partition] = max(ends[item.partition], item.end)
    return ends


def settled_offsets(topic: str, committed: Mapping[int, Committed]) -> dict[int, int]:
    """Return the offset of each partition before which no batch is pending for any of its partitions.

    The offset of a partition passes a batch as soon as one of its owners has inserted it; a later owner
    of another partition still repeats the whole batch, and looks for the rows in the batch's shard only.
    Partitions without an offset are absent. Raise ConfigError for an unreadable intent.
    """
    settled = {p: found.offset for p, found in committed.items() if found.offset is not None}
    for item in _pending_ranges(topic, committed):
        if item.partition in settled:
            settled[item.partition] = min(settled[item.partition], item.first)
    return settled


def _pending_ranges(topic: str, committed: Mapping[int, Committed]) -> Iterator[PartitionRange]:
    for partition, found in committed.items():
        intent = pending_intent(topic, partition, found)
        if intent is not None:
            yield from intent.ranges
