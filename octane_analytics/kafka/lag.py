"""Lag of the group by partition: in messages, and by the age of the oldest uncommitted record.

Requests committed offsets and ends from the brokers, so that it works while no worker runs. For the age
it reads the oldest record, through a consumer that never joins the group and commits nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException
from confluent_kafka import TopicPartition as RawPartition
from confluent_kafka.admin import AdminClient

from octane_analytics.kafka.client import REQUEST_SECONDS, error_of, translate
from octane_analytics.kafka.conversions import from_confluent, to_confluent
from octane_analytics.kafka.offsets import log_ends
from octane_analytics.kafka.standalone_client import StandaloneClient
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import TopicPartition, UncommittedLag

_READ_SECONDS = 2.0
_MOVING_PARTITIONS = 16
"""Limit, for each measurement, of the oldest records read from partitions in which the group
progresses, in turn: each costs half a millisecond of CPU and a fetch of its own. Half of the partitions
if these are more, because a wide topic is measured less often (`telemetry.lag_metrics`)."""


@dataclass(slots=True)
class _Oldest:
    offset: int
    at: float | None
    read_at: float
    """Monotonic time of the read."""


class LagProbe(StandaloneClient):
    """Measures lag; not thread-safe. Every method blocks on a broker, for up to some seconds."""

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        super().__init__(
            settings,
            client_id,
            **{
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                # The log's end and its oldest record count, also within an open transaction.
                "isolation.level": "read_uncommitted",
                # It reads one record: brokers send at least one batch, whatever its size.
                "fetch.message.max.bytes": 1024,
                "queued.min.messages": 1,
                "queued.max.messages.kbytes": 1024,
                "fetch.queue.backoff.ms": 10,
            },
        )
        self._oldest: dict[int, _Oldest] = {}
        self._last_positions: dict[int, int] = {}
        self._admin: AdminClient | None = None

    def close(self) -> None:
        super().close()
        self._admin = None

    def measure(self) -> Mapping[int, UncommittedLag]:
        """Return the lag by partition. Raise Unavailable (NeedsOperator if the topic does not exist)."""
        found = self.count(self._settings.topic)
        positions = {number: lag.position for number, lag in found.items() if lag.messages}
        try:
            self._update_oldest(positions, max(_MOVING_PARTITIONS, len(found) // 2))
        except KafkaException as exception:
            raise translate(error_of(exception), "reading the oldest records") from exception
        oldest = self._oldest
        return {
            number: replace(lag, oldest_at=oldest[number].at) if number in oldest else lag
            for number, lag in found.items()
        }

    def count(self, topic: str) -> dict[int, UncommittedLag]:
        """Return the lag as `measure` does, of any topic and without the ages of the oldest records."""
        partitions = [TopicPartition(topic, number) for number in self._partition_numbers(topic)]
        committed = self._committed(partitions)
        ends = self._ends(partitions, OFFSET_END)
        # The details of lag are requested only for partitions that have lag.
        lagging = [p for p in partitions if (committed[p].offset or 0) < ends[p]]
        firsts = self._ends(lagging, OFFSET_BEGINNING)
        stable = self._stable_ends(lagging)
        return {
            p.partition: UncommittedLag(
                committed[p],
                firsts.get(p, committed[p].offset or 0),
                ends[p],
                stable.get(p, ends[p]),
            )
            for p in partitions
        }

    def _ends(self, partitions: Sequence[TopicPartition], bound: int) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        requested = [to_confluent(partition, bound) for partition in partitions]
        doing = "asking for the ends of the partitions"
        try:
            found = self._connected().offsets_for_times(requested, timeout=REQUEST_SECONDS)
        except KafkaException as exception:
            raise translate(error_of(exception), doing) from exception
        for raw in found:
            if raw.error is not None:
                raise translate(raw.error, doing)
        return {from_confluent(raw): raw.offset for raw in found}

    def _stable_ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if not partitions or self._settings.rdkafka.get("isolation.level") == "read_uncommitted":
            return {}
        if self._admin is None:
            self._admin = self._broker.connect(AdminClient)
        return log_ends(self._admin, partitions, is_stable=True)

    def _update_oldest(self, positions: Mapping[int, int], max_moving: int) -> None:
        for number in self._oldest.keys() - positions.keys():
            del self._oldest[number]
        self._read_oldest(self._connected(), self._stale(positions, max_moving))
        self._last_positions = dict(positions)

    def _stale(self, positions: Mapping[int, int], max_moving: int) -> dict[int, int]:
        """Return the positions whose records must be read now."""
        known = self._oldest
        stale = [
            n for n, offset in positions.items() if n not in known or known[n].offset != offset
        ]
        moving = [n for n in stale if n in known and self._last_positions.get(n) != positions[n]]
        moving.sort(key=lambda n: known[n].read_at)
        postponed = set(moving[max_moving:])
        return {n: positions[n] for n in stale if n not in postponed}

    def _read_oldest(self, consumer: Consumer, positions: Mapping[int, int]) -> None:
        if not positions:
            return
        topic = self._settings.topic
        consumer.assign([RawPartition(topic, n, offset) for n, offset in positions.items()])
        left, deadline = dict(positions), time.monotonic() + _READ_SECONDS
        try:
            while left and (wait := deadline - time.monotonic()) > 0:
                # One at a time: further records would be discarded.
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
            # librdkafka keeps a partition paused when it is reassigned.
            consumer.resume([RawPartition(topic, number) for number in positions])
            consumer.unassign()
