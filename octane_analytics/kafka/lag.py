"""How far the group is behind, seen from outside: by partition, in messages and by the oldest record.

Asks the brokers for what is committed and where the partitions end, so that it holds while no worker
runs. For the age of the oldest record it reads that record: through a consumer of its own that never
joins the group and commits nothing.
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
"""Of the partitions that the group moves on in, so many are read at each look, in turn: each costs
half a millisecond of CPU, and a fetch of its own."""


@dataclass(slots=True)
class _Oldest:
    offset: int
    at: float | None
    read_at: float
    """Monotonic."""


class LagProbe(StandaloneClient):
    """Not for use by several threads. Every method blocks on a broker, for seconds at most."""

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        super().__init__(
            settings,
            client_id,
            **{
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                # The log's end and its oldest record, also where a transaction is open.
                "isolation.level": "read_uncommitted",
                # It reads one record: brokers send at least one batch whatever its size.
                "fetch.message.max.bytes": 1024,
                "queued.min.messages": 1,
                "queued.max.messages.kbytes": 1024,
                "fetch.queue.backoff.ms": 10,
            },
        )
        self._oldest: dict[int, _Oldest] = {}
        self._seen: dict[int, int] = {}
        self._admin: AdminClient | None = None

    def close(self) -> None:
        super().close()
        self._admin = None

    def measure(self) -> Mapping[int, UncommittedLag]:
        """By partition; raises Unavailable (NeedsOperator where there is no such topic)."""
        found = self.count(self._settings.topic)
        behind = {number: lag.position for number, lag in found.items() if lag.messages}
        try:
            self._look_for_oldest(behind)
        except KafkaException as exception:
            raise translate(error_of(exception), "reading the oldest records") from exception
        oldest = self._oldest
        return {
            number: replace(lag, oldest_at=oldest[number].at) if number in oldest else lag
            for number, lag in found.items()
        }

    def count(self, topic: str) -> dict[int, UncommittedLag]:
        """As `look`, of any topic and without the times of the oldest records."""
        partitions = [TopicPartition(topic, number) for number in self._partition_numbers(topic)]
        committed = self._committed(partitions)
        ends = self._ends(partitions, OFFSET_END)
        # What only tells how far a group is behind is asked only where it is.
        behind = [p for p in partitions if (committed[p].offset or 0) < ends[p]]
        firsts = self._ends(behind, OFFSET_BEGINNING)
        stable = self._stable_ends(behind)
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
        asked = [to_confluent(partition, bound) for partition in partitions]
        doing = "asking for the ends of the partitions"
        try:
            answer = self._connected().offsets_for_times(asked, timeout=REQUEST_SECONDS)
        except KafkaException as exception:
            raise translate(error_of(exception), doing) from exception
        for raw in answer:
            if raw.error is not None:
                raise translate(raw.error, doing)
        return {from_confluent(raw): raw.offset for raw in answer}

    def _stable_ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if not partitions or self._settings.rdkafka.get("isolation.level") == "read_uncommitted":
            return {}
        if self._admin is None:
            self._admin = self._broker.connect(AdminClient)
        return log_ends(self._admin, partitions, is_stable=True)

    def _look_for_oldest(self, behind: Mapping[int, int]) -> None:
        for number in self._oldest.keys() - behind.keys():
            del self._oldest[number]
        self._read_oldest(self._connected(), self._stale(behind))
        self._seen = dict(behind)

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
