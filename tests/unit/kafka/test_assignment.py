"""Lag of the assigned partitions, by the ends that the client knows."""

import random
from typing import cast

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.kafka.assignment import PartitionAssignment
from octane_analytics.kafka.stall_detector import StallDetector
from octane_analytics.types import Commit, Committed, TopicPartition, UncommittedLag

_UNKNOWN = -1001


class _Client:
    """Stands for a consumer whose last fetches ended there: a real one knows no end without a broker."""

    def __init__(self, ends: list[int]) -> None:
        self._ends = ends

    def assignment(self) -> list[RawPartition]:
        return [RawPartition("t", number) for number in range(len(self._ends))]

    def resume(self, partitions: list[RawPartition]) -> None: ...

    def incremental_assign(self, partitions: list[RawPartition]) -> None: ...

    def get_watermark_offsets(self, partition: RawPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        return _UNKNOWN, self._ends[partition.partition]


@pytest.mark.parametrize("seed", range(50))
def test_lag_is_that_of_other_commands(seed: int) -> None:
    chance = random.Random(seed)
    offsets = [0, 1, 5, 2**60]
    partitions = [
        (
            chance.choice(offsets),
            chance.choice([None, *offsets]),
            chance.choice([*offsets * 2, _UNKNOWN]),
        )
        for _ in range(seed % 5)
    ]
    client = cast(Consumer, _Client([end for _, _, end in partitions]))
    assignment = PartitionAssignment(StallDetector(20.0, 5.0, 5.0))
    starts = [RawPartition("t", n, start) for n, (start, _, _) in enumerate(partitions)]
    assignment.add(client, starts, is_paused=False)
    expected = 0
    for number, (start, offset, end) in enumerate(partitions):
        if offset is not None:
            assignment.committed([Commit(TopicPartition("t", number), offset, "")])
        committed = Committed(start if offset is None else offset, "")
        expected += UncommittedLag(committed, 0, end, end).messages
    is_known = all(end != _UNKNOWN for _, _, end in partitions)
    assert assignment.lag(lambda: client) == (expected if is_known else None)
