"""Read positions of partitions: at the assignment, after a position left the log, and after the topic's
log was replaced.

Keeps the known identities of the logs, and seeks accordingly; does not depend on when batches are
written. Raises Unavailable if the broker does not answer; the caller then repeats the call.
"""

from collections.abc import Iterable, MutableMapping, Sequence

from octane_analytics.interfaces import Clock, Observer, Source
from octane_analytics.pipeline.batch import Batch
from octane_analytics.pipeline.batch_writer import BatchWriter
from octane_analytics.pipeline.delivery_ledger import DeliveryLedger, StartPosition
from octane_analytics.pipeline.outages import KAFKA, Outages
from octane_analytics.types import Committed, LogIdentity, OffsetGone, TopicPartition

_CONFIRM_SECONDS = 1.0


class Positions:
    """Positions of one member's partitions. Opens an empty batch at each new position."""

    def __init__(
        self,
        topic: str,
        source: Source,
        ledger: DeliveryLedger,
        batches: MutableMapping[TopicPartition, Batch],
        writer: BatchWriter,
        clock: Clock,
        observer: Observer,
        outages: Outages,
    ) -> None:
        """`batches` are the open batches, one of each partition, shared with the loop."""
        self._topic = topic
        self._source = source
        self._ledger = ledger
        self._batches = batches
        self._writer = writer
        self._clock = clock
        self._observer = observer
        self._outages = outages
        self.replaced: set[TopicPartition] = set()
        """Partitions whose log was replaced, or lost its tail: to be restarted once everything read from
        the old log is inserted."""
        self._reported_log: LogIdentity | None = None
        """Identity of the log whose replacement of another one is already reported to the observer."""
        self._unproven: dict[TopicPartition, int] = {}
        """Committed offsets that may belong to another log, until a record at or after one is read."""
        self._confirmed_at: float | None = None
        """Time at which the log was last known to be the one of the assignment."""

    def assign(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Take the partitions over; return the start offset of each."""
        with self._outages.track(KAFKA, "assign"):
            log = self._source.log_identity(self._topic)
            positions = {}
            for partition, committed in self._source.committed(partitions).items():
                start = self._ledger.assign(partition, committed, log)
                first = start.offset
                self._unproven.pop(partition, None)
                if first is None:
                    first = self._source.earliest(partition)
                    if committed.offset is not None and log != self._reported_log:
                        self._observer.log_replaced(partition, committed.offset)
                elif not start.is_of_log:
                    first = self._within_log(partition, start)
                fixed_end = None if start.recovering is None else start.recovering.end
                self._batches[partition] = Batch(partition, first, fixed_end=fixed_end)
                positions[partition] = first
        self._reported_log = log
        return positions

    def _within_log(self, partition: TopicPartition, start: StartPosition) -> int:
        """Return the start offset for a committed offset whose log is not known."""
        offset = start.offset
        assert offset is not None, "a partition without a committed offset starts at its beginning"
        if start.recovering is None and offset > (end := self._source.latest(partition)):
            earliest = self._source.earliest(partition)
            self._observer.foreign_offset(partition, offset, earliest, end)
            return earliest
        self._unproven[partition] = offset
        return offset

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        self.replaced.difference_update(partitions)
        for partition in partitions:
            self._unproven.pop(partition, None)

    def recover(self, gone: OffsetGone) -> None:
        """Continue after the missing offsets of a lost position, or prepare a restart; report it."""
        partition, batch = gone.partition, self._batches.get(gone.partition)
        if batch is None:
            return
        with self._outages.track(KAFKA, "position"):
            log = self._source.log_identity(self._topic)
            earliest = self._source.earliest(partition)
            latest = self._source.latest(partition)
        is_another = _is_another(log, self._ledger.log(partition))
        if is_another or latest < batch.end:
            if is_another or not log.topic_id:
                self._observer.log_replaced(partition, batch.end)
            elif self._is_proven(batch):
                self._observer.log_truncated(partition, batch.end, latest)
            else:
                self._observer.foreign_offset(partition, batch.end, earliest, latest)
            self.replaced.add(partition)
            self._reported_log = log
            if batch.fixed_end is not None:
                if not self._is_proven(batch):
                    self._unproven[partition] = batch.fixed_end
                batch.advance(batch.fixed_end)  # the rest of the announced range is gone
            return
        if earliest > batch.end:
            before = batch.end
            batch.skip_to(earliest, self._clock.now())
            self._observer.offsets_gone(partition, before, batch.end)
        # Also for an error about an earlier position: librdkafka may repeat one.
        self._source.seek(partition, batch.end)

    def confirm_log(self) -> None:
        """Verify that the records read are of the log for which they will be announced.

        A recreated topic may have grown past the position before anything is fetched there. Then no
        offset is out of range, and its first records would be skipped.
        """
        now = self._clock.now()
        if self._confirmed_at is not None and now - self._confirmed_at < _CONFIRM_SECONDS:
            return
        with self._outages.track(KAFKA, "identity"):
            log = self._source.log_identity(self._topic)
        owned = self._ledger.partitions()
        others = [p for p in owned if _is_another(log, self._ledger.log(p))]
        for partition in others:
            if partition not in self.replaced:
                self._observer.log_replaced(partition, self._batches[partition].end)
                self.replaced.add(partition)
                self._reported_log = log
            self._batches[partition] = Batch(partition, self._batches[partition].end)
        self._writer.discard(others)
        if not others:
            self._confirmed_at = now

    def restart_replaced(self) -> bool:
        """Restart partitions whose log lost its tail at its end; call without pending batches.

        A position that may be of another log does not prove a lost tail: the log is then read from its
        beginning.

        Return whether the topic was recreated: then all partitions must be assigned again, to a new
        client. The old one caches state of them, such as a later leader epoch.
        """
        partitions = [p for p in self.replaced if self._batches[p].is_empty]
        if not partitions:
            return False
        with self._outages.track(KAFKA, "position"):
            log = self._source.log_identity(self._topic)
            if any(_is_another(log, self._ledger.log(p)) for p in partitions):
                return True
            for partition in partitions:
                is_same = log.topic_id and log == self._ledger.log(partition)
                has_lost_tail = is_same and self._is_proven(self._batches[partition])
                bound = self._source.latest if has_lost_tail else self._source.earliest
                position = bound(partition)
                self._source.seek(partition, position)
                self._unproven.pop(partition, None)
                self._ledger.assign(partition, Committed(position, ""), log)
                self._batches[partition] = Batch(partition, position)
                self.replaced.discard(partition)
        return False

    def _is_proven(self, batch: Batch) -> bool:
        """Return whether the batch's end is a position in this log: committed for it or read from it."""
        return self._unproven.get(batch.partition) != batch.end


def _is_another(log: LogIdentity, known: LogIdentity) -> bool:
    # A broker that has just begun to report topic ids does not indicate another topic.
    return bool(log.topic_id and known.topic_id and log.topic_id != known.topic_id)
