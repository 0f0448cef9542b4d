"""How far the group is behind, seen from outside: by partition, in messages and by the oldest record.

Asks the brokers for what is committed and where the partitions end, so that it holds while no worker
runs. For the age of the oldest record it reads that record: through a consumer of its own that never
joins the group and commits nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.kafka.client import REQUEST_SECONDS, error_of, translate
from octane_analytics.kafka.outside import Outsider
from octane_analytics.settings.sections import KafkaSettings
from octane_analytics.types import PartitionLag, TopicPartition

_READ_SECONDS = 2.0
_MOVING_PARTITIONS = 16
"""Of the partitions that the group moves on in, so many are read at each look, in turn: each costs
half a millisecond of CPU, and a fetch of its own."""


@dataclass(slots=True)
class _Oldest:
    offset: int
    at: float | None
    read_at: float
    """Monotonic."""


class LagProbe(Outsider):
    """Not for use by several threads. Every method blocks on a broker, for seconds at most."""

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        super().__init__(
            settings,
            client_id,
            **{
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                # It reads one record: brokers send at least one batch whatever its size.
                "fetch.message.max.bytes": 1024,
                "queued.min.messages": 1,
                "queued.max.messages.kbytes": 1024,
                "fetch.queue.backoff.ms": 10,
            },
        )
        self._oldest: dict[int, _Oldest] = {}
        self._seen: dict[int, int] = {}

    def look(self) -> Mapping[int, PartitionLag]:
        """By partition; raises Unavailable (NeedsOperator where there is no such topic)."""
        try:
            return self._look()
        except KafkaException as exception:
            raise translate(error_of(exception), "asking for the group's lag") from exception

    def _look(self) -> Mapping[int, PartitionLag]:
        consumer, topic = self._connected(), self._settings.topic
        numbers = self._partition_numbers(topic)
        ends = self._bounds(consumer, numbers, OFFSET_END)
        committed = self._positions(consumer, numbers)
        behind = {n: at for n, at in committed.items() if at < ends[n]}
        for number in self._oldest.keys() - behind.keys():
            del self._oldest[number]
        self._read_oldest(consumer, self._stale(behind))
        self._seen = committed
        return {
            number: PartitionLag(
                max(0, ends[number] - committed[number]),
                self._oldest[number].at if number in self._oldest else None,
            )
            for number in numbers
        }

    def _bounds(self, consumer: Consumer, numbers: Sequence[int], bound: int) -> dict[int, int]:
        asked = [RawPartition(self._settings.topic, number, bound) for number in numbers]
        answer = consumer.offsets_for_times(asked, timeout=REQUEST_SECONDS) if asked else []
        for raw in answer:
            if raw.error is not None:
                raise translate(raw.error, f"asking for the ends of partition {raw.partition}")
        return {raw.partition: raw.offset for raw in answer}

    def _positions(self, consumer: Consumer, numbers: Sequence[int]) -> dict[int, int]:
        """What the group has committed; where that is nothing, the log's beginning."""
        asked = [TopicPartition(self._settings.topic, number) for number in numbers]
        found = {p.partition: at.offset for p, at in self._committed(asked).items()}
        committed = {number: offset for number, offset in found.items() if offset is not None}
        new = [number for number in numbers if number not in committed]
        return committed | self._bounds(consumer, new, OFFSET_BEGINNING)

    def _stale(self, behind: Mapping[int, int]) -> dict[int, int]:
        """The committed offsets whose records are to be read now."""
        known = self._oldest
        stale = [n for n, at in behind.items() if n not in known or known[n].offset != at]
        moving = [n for n in stale if n in known and self._seen.get(n) != behind[n]]
        moving.sort(key=lambda n: known[n].read_at)
        put_off = set(moving[_MOVING_PARTITIONS:])
        return {n: behind[n] for n in stale if n not in put_off}

    def _read_oldest(self, consumer: Consumer, positions: Mapping[int, int]) -> None:
        if not positions:
            return
        topic = self._settings.topic
        consumer.assign([RawPartition(topic, n, offset) for n, offset in positions.items()])
        left, deadline = dict(positions), time.monotonic() + _READ_SECONDS
        try:
            while left and (wait := deadline - time.monotonic()) > 0:
                # One at a time: what else is fetched is thrown away.
                message = consumer.poll(wait)
                if message is None or message.error() is not None:
                    continue
                number = message.partition()
                if number in left:
                    kind, milliseconds = message.timestamp()
                    at = milliseconds / 1000 if kind else None
                    self._oldest[number] = _Oldest(left.pop(number), at, time.monotonic())
                    consumer.pause([RawPartition(topic, number)])
        finally:
            # librdkafka keeps a partition paused through being assigned anew.
            consumer.resume([RawPartition(topic, number) for number in positions])
            consumer.unassign()
