"""Recovery of stalled partitions: reassignment at their position, then a new client.

librdkafka ignores leader epochs below one that it has seen, also after the topic was recreated and its
epochs start at zero again (its issue 4898): it then reads no further, without any error.
"""

from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaException

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka import offsets
from octane_analytics.kafka.assignment import PartitionAssignment
from octane_analytics.kafka.client import error_of, translate
from octane_analytics.kafka.conversions import from_confluent, to_confluent
from octane_analytics.kafka.recreatable_consumer import RecreatableConsumer
from octane_analytics.kafka.unread_tail import TailSearch
from octane_analytics.types import EndOfPartition, OffsetRange, TopicPartition

_CHECK_SECONDS = 1.0
_SETTLED_SECONDS = 1.0
_ENDS_SECONDS = 1.0


class StallRecovery:
    """Checks the assigned partitions for stalls once for each second of waiting in polls."""

    def __init__(
        self,
        assignment: PartitionAssignment,
        client: RecreatableConsumer,
        check_identity: Callable[[], object],
        search_tails: Callable[[Mapping[int, OffsetRange]], TailSearch],
        on_stall: Callable[[TopicPartition, int], None] | None,
    ) -> None:
        """`check_identity` fetches the topic's identity, which outdates the client of a recreated
        topic; raises Unavailable. `search_tails` is that of
        `unread_tail`. `on_stall` is called with each reassigned partition and position."""
        self._assignment = assignment
        self._client = client
        self._check_identity = check_identity
        self._search_tails = search_tails
        self._on_stall = on_stall
        self._check_at = _CHECK_SECONDS
        self._checked_version = 0

    def is_due(self) -> bool:
        """Return whether to check now; the next check is due a second of waiting later."""
        if self._assignment.waited_seconds < self._check_at:
            return False
        self._check_at = self._assignment.waited_seconds + _CHECK_SECONDS
        return True

    def check(self) -> list[EndOfPartition]:
        """Reassign stalled partitions; outdate the client if that had no effect, or if the topic was
        recreated. Return offsets before which no further record is to be returned.

        Blocks for up to some seconds. Raises as `client.translate` does.
        """
        detector, now = self._assignment.detector, self._assignment.waited_seconds
        consumer = self._client.get()
        if late := detector.beyond_revival(now):
            for partition, offset in offsets.known_ends(consumer, late, _ENDS_SECONDS).items():
                if offset == detector.position(partition):
                    detector.reached_end(partition, offset, now)
            if detector.beyond_revival(now):
                self._client.request_recreation()
                return []
        try:
            if self._checked_version != self._assignment.version:
                self._checked_version = self._assignment.version
                positions = consumer.position([to_confluent(p) for p in detector.partitions()])
                detector.moved({from_confluent(r): r.offset for r in positions}, now)
            quiet = detector.quiet(now, lambda partition: _last_end(consumer, partition))
            ended_early = (
                detector.compare_ends(
                    quiet, offsets.known_ends(consumer, quiet, _ENDS_SECONDS), now
                )
                if quiet
                else []
            )
            stalled = detector.stalled(now)
            if (ended_early or stalled) and self._is_topic_recreated():
                return []
            empty: list[EndOfPartition] = []
            if stalled:
                empty, unknown = self._search(detector.unread(stalled))
                for end in empty:
                    self._assignment.reached_end(end)
                detector.postpone(unknown, now)
                stalled = detector.stalled(now)
            if stalled:
                self._assignment.reassign(
                    consumer,
                    [to_confluent(p, position) for p, position in stalled.items()],
                    is_paused=False,
                )
                detector.reassigned(stalled, now)
        except KafkaException as exception:
            raise translate(error_of(exception), "reassigning partitions") from exception
        if self._on_stall is not None:
            for partition, position in stalled.items():
                self._on_stall(partition, position)
        settled = detector.settled(now, _SETTLED_SECONDS)
        return [*empty, *(EndOfPartition(p, position) for p, position in settled.items())]

    def _search(
        self, unread: Mapping[TopicPartition, OffsetRange]
    ) -> tuple[list[EndOfPartition], list[TopicPartition]]:
        """Return the ends of partitions without an unread record, and the partitions that cannot be
        read now."""
        if not unread:
            return [], []
        try:
            search = self._search_tails({p.partition: span for p, span in unread.items()})
        except Unavailable:
            return [], list(unread)
        except OctaneError:
            return [], []  # retention has removed the position; a reassigned partition reports that
        ends = [EndOfPartition(p, unread[p].end) for p in unread if p.partition in search.empty]
        known = search.empty | search.with_records
        return ends, [p for p in unread if p.partition not in known]

    def _is_topic_recreated(self) -> bool:
        try:
            self._check_identity()
        except Unavailable:
            return False  # other calls report the outage
        return self._client.is_outdated


def _last_end(consumer: Consumer, partition: TopicPartition) -> int | None:
    """Return the end that the last fetch has shown; sends no request."""
    try:
        end = consumer.get_watermark_offsets(to_confluent(partition), cached=True)[1]
    except KafkaException:
        return None
    return int(end) if end >= 0 else None
