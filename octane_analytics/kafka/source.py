"""The consumer group's member: see `types.Source` for what it promises."""

import json
import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
)
from confluent_kafka import (
    TopicPartition as RawPartition,
)
from confluent_kafka.admin import AdminClient

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka.client import REQUEST_SECONDS, Broker, error_of, translate
from octane_analytics.settings.sections import KafkaSettings
from octane_analytics.types import (
    Commit,
    Committed,
    EndOfPartition,
    LogIdentity,
    OffsetGone,
    Polled,
    RebalanceListener,
    TopicPartition,
)

_GONE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})
_PROBE_SECONDS = 5.0
_STATISTICS_MS = 5000
_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""Kafka's zero UUID, in its own spelling: a broker without topic ids."""


class KafkaSource:
    """Not for use by several threads. `slot` names the static member; None makes a dynamic one."""

    def __init__(
        self,
        settings: KafkaSettings,
        slot: int | None,
        *,
        on_queue: Callable[[int], None] | None = None,
    ) -> None:
        """`on_queue` is told every few seconds, from within `poll`, how many bytes are fetched and
        not handed out."""
        member = "" if slot is None else f"-{slot}"
        self._settings = settings
        self._slot = slot
        self._on_queue = on_queue
        self._broker = Broker(settings, f"octane-analytics{member}")
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None
        self._is_paused = False
        self._is_closing = False
        self._starts: dict[TopicPartition, int] = {}
        """Where reading began: librdkafka knows no position before the first record."""
        self._probe_at = 0.0
        self._unreachable: OctaneError | None = None

    def subscribe(self, listener: RebalanceListener) -> None:
        def on_assign(consumer: Consumer, raw: list[RawPartition]) -> None:
            # A client on its way down gets no answers any more, and would wait for the committed
            # offsets until it is killed. It gives these back at once, without having read any.
            starts = {} if self._is_closing else listener.assigned([_partition(r) for r in raw])
            self._starts.update(starts)
            for r in raw:
                r.offset = starts.get(_partition(r), 0)
            consumer.incremental_assign(raw)
            if self._is_paused or self._is_closing:
                consumer.pause(raw)

        def on_revoke(consumer: Consumer, raw: list[RawPartition]) -> None:
            try:
                listener.revoked([_partition(r) for r in raw])
            finally:
                self._forget(raw)
                consumer.incremental_unassign(raw)

        def on_lost(consumer: Consumer, raw: list[RawPartition]) -> None:
            try:
                listener.lost([_partition(r) for r in raw])
            finally:
                self._forget(raw)
                consumer.incremental_unassign(raw)

        self._member().subscribe(
            [self._settings.topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost
        )

    def _forget(self, raw: Sequence[RawPartition]) -> None:
        for r in raw:
            self._starts.pop(_partition(r), None)

    def poll(self, max_records: int, timeout_seconds: float) -> Polled:
        messages = self._member().consume(max_records, timeout_seconds)
        if messages:
            self._broker.trouble = self._unreachable = None
        elif self._broker.trouble is not None:
            self._probe()
        if not any(message.error() for message in messages):
            return Polled(messages)
        return self._sorted(messages)

    def _sorted(self, messages: Sequence[Message]) -> Polled:
        records, ends, gone = [], [], []
        trouble: KafkaError | None = None
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
                continue
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if topic is not None and partition is not None and offset is not None:
                where = TopicPartition(topic, partition)
                if error.code() == KafkaError._PARTITION_EOF:
                    ends.append(EndOfPartition(where, offset))
                    continue
                if error.code() in _GONE:
                    gone.append(OffsetGone(where, offset))
                    continue
            if error.code() == KafkaError._MAX_POLL_EXCEEDED:
                continue  # the callback for lost partitions follows
            trouble = error
        if trouble is not None:
            # librdkafka has moved on past what stands beside its complaint, and tells it only once.
            if not (records or ends or gone):
                raise translate(trouble, f"reading {self._settings.topic}")
            self._broker.trouble = trouble  # the next poll looks into it
        return Polled(records, ends, gone)

    def _probe(self) -> None:
        """Asks a broker whether librdkafka's complaint still holds, every few seconds."""
        complaint = self._broker.trouble
        if complaint is not None and complaint.fatal():
            raise translate(complaint, f"reading {self._settings.topic}")
        now = time.monotonic()
        if now >= self._probe_at:
            self._probe_at = now + _PROBE_SECONDS
            try:
                self._member().list_topics(self._settings.topic, timeout=1.0)
            except KafkaException as exception:
                self._unreachable = self._broker.unreachable(error_of(exception))
            else:
                self._broker.trouble = self._unreachable = None
        if self._unreachable is not None:
            raise self._unreachable

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        try:
            answer = self._member().committed([_raw(p) for p in partitions], REQUEST_SECONDS)
        except KafkaException as exception:
            raise translate(error_of(exception), "asking for committed offsets") from exception
        found = {}
        for raw in answer:
            if raw.error is not None:
                raise translate(raw.error, f"asking for the committed offset of {_partition(raw)}")
            offset = raw.offset if raw.offset >= 0 else None
            found[_partition(raw)] = Committed(offset, raw.metadata or "")
        return found

    def commit(self, commits: Sequence[Commit]) -> None:
        raw = [
            RawPartition(c.partition.topic, c.partition.partition, c.offset, c.metadata)
            for c in commits
        ]
        try:
            answer = self._member().commit(offsets=raw, asynchronous=False)
        except KafkaException as exception:
            raise translate(error_of(exception), "committing offsets") from exception
        for committed in answer or ():
            if committed.error is not None:
                raise translate(committed.error, f"committing {_partition(committed)}")

    def log_identity(self, topic: str) -> LogIdentity:
        if self._admin is None:
            self._admin = self._broker.connect(AdminClient)
        admin = self._admin
        try:
            cluster_id = admin.list_topics(topic, timeout=REQUEST_SECONDS).cluster_id or ""
            described = admin.describe_topics(
                TopicCollection([topic]), request_timeout=REQUEST_SECONDS
            )[topic].result(timeout=REQUEST_SECONDS + 1.0)
        except KafkaException as exception:
            raise translate(error_of(exception), f"asking what {topic} is") from exception
        except TimeoutError as error:
            raise Unavailable(f"asking what {topic} is: no answer in time") from error
        topic_id = str(described.topic_id)
        return LogIdentity(
            cluster_id, "" if topic_id == _NO_TOPIC_ID else topic_id, self._settings.log_epoch
        )

    def earliest(self, partition: TopicPartition) -> int:
        return self._watermarks(partition)[0]

    def latest(self, partition: TopicPartition) -> int:
        return self._watermarks(partition)[1]

    def _watermarks(self, partition: TopicPartition) -> tuple[int, int]:
        try:
            low, high = self._member().get_watermark_offsets(
                _raw(partition), timeout=REQUEST_SECONDS
            )
        except KafkaException as exception:
            raise translate(
                error_of(exception), f"asking for the ends of {partition}"
            ) from exception
        return int(low), int(high)

    def lag(self) -> int | None:
        """Messages between what was handed out and the ends that the last fetches told of.

        Asks nobody. None until the first fetch of each partition has been answered.
        """
        consumer, total = self._member(), 0
        try:
            for at in consumer.position(consumer.assignment()):
                _, end = consumer.get_watermark_offsets(at, cached=True)
                start = self._starts.get(_partition(at))
                position = start if at.offset < 0 else at.offset
                if position is None or end < 0:
                    return None
                total += max(0, end - position)
        except KafkaException:
            return None
        return total

    def seek(self, partition: TopicPartition, offset: int) -> None:
        consumer, raw = self._member(), [_raw(partition, offset)]
        try:
            try:
                consumer.seek(raw[0])
            except KafkaException as exception:
                if error_of(exception).code() != KafkaError._STATE:
                    raise
                # librdkafka has given the partition up since its position was out of range, and
                # takes it up again only where it is assigned anew.
                consumer.incremental_unassign(raw)
                consumer.incremental_assign(raw)
                if self._is_paused:
                    consumer.pause(raw)
        except KafkaException as exception:
            raise translate(error_of(exception), f"seeking in {partition}") from exception
        self._starts[partition] = offset

    def pause(self) -> None:
        self._is_paused = True
        consumer = self._member()
        consumer.pause(consumer.assignment())

    def resume(self) -> None:
        self._is_paused = False
        consumer = self._member()
        consumer.resume(consumer.assignment())

    def close(self) -> None:
        """Leaves the partitions where they are for a static member, to others for a dynamic one."""
        self._admin = None
        self._is_closing = True
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _read_statistics(self, statistics: str) -> None:
        if self._on_queue is not None:
            self._on_queue(_queue_bytes(statistics))

    def _member(self) -> Consumer:
        if self._consumer is None:
            properties: dict[str, object] = {
                "group.id": self._settings.group_id,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "partition.assignment.strategy": "cooperative-sticky",
                # A rebalance waits for every member to hear of it.
                "heartbeat.interval.ms": self._broker.default("heartbeat.interval.ms", 1000),
                "queued.max.messages.kbytes": self._broker.default(
                    "queued.max.messages.kbytes", 32_768
                ),
            }
            if self._on_queue is not None:
                properties["statistics.interval.ms"] = self._broker.default(
                    "statistics.interval.ms", _STATISTICS_MS
                )
                properties["stats_cb"] = self._read_statistics
            if self._settings.instance_prefix and self._slot is not None:
                properties["group.instance.id"] = f"{self._settings.instance_prefix}-{self._slot}"
            self._consumer = self._broker.connect(Consumer, **properties)
        return self._consumer


def _queue_bytes(statistics: str) -> int:
    """Out of librdkafka's statistics (STATISTICS.md): over all partitions."""
    return sum(
        partition["fetchq_size"]
        for topic in json.loads(statistics)["topics"].values()
        for partition in topic["partitions"].values()
    )


def _partition(raw: RawPartition) -> TopicPartition:
    return TopicPartition(raw.topic, raw.partition)


def _raw(partition: TopicPartition, offset: int = OFFSET_INVALID) -> RawPartition:
    return RawPartition(partition.topic, partition.partition, offset)
