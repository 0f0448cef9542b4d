"""Where each partition is read from: at its assignment, where its log no longer holds the position, and
where the log under the topic's name is another one than before.

Owns what is known of the logs, and the seeks that follow from it; refuses to know when a batch leaves.
Raises Unavailable where the broker cannot tell, and is asked again then.
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
    """Of one member's partitions. Puts an empty batch among the open ones wherever reading begins."""

    def __init__(
        self,
        topic: str,
        source: Source,
        ledger: DeliveryLedger,
        batches: MutableMapping[TopicPartition, Batch],
        outbox: BatchWriter,
        clock: Clock,
        observer: Observer,
        outages: Outages,
    ) -> None:
        """`batches` are the open ones, one of each partition, which the loop fills and sends out."""
        self._topic = topic
        self._source = source
        self._ledger = ledger
        self._batches = batches
        self._outbox = outbox
        self._clock = clock
        self._observer = observer
        self._outages = outages
        self.replaced: set[TopicPartition] = set()
        """Those whose log is another one, or has lost its tail: to be started anew once what was read
        before is inserted."""
        self._new_log: LogIdentity | None = None
        """The one of which the observer need not be told that it is another one than before."""
        self._unproven: dict[TopicPartition, int] = {}
        """Committed offsets that may belong to another log, until a record at or after one is read."""
        self._confirmed_at: float | None = None
        """When the log was last known to be the one that the partitions were taken over with."""

    def assign(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Takes the partitions over; answers with the offset that each is read from."""
        with self._outages.track(KAFKA, "assign"):
            log = self._source.log_identity(self._topic)
            positions = {}
            for partition, committed in self._source.committed(partitions).items():
                start = self._ledger.assign(partition, committed, log)
                first = start.offset
                self._unproven.pop(partition, None)
                if first is None:
                    first = self._source.earliest(partition)
                    if committed.offset is not None and log != self._new_log:
                        self._observer.log_replaced(partition, committed.offset)
                elif not start.is_of_log:
                    first = self._within_log(partition, start)
                until = None if start.recovering is None else start.recovering.end
                self._batches[partition] = Batch(partition, first, until=until)
                positions[partition] = first
        self._new_log = log
        return positions

    def _within_log(self, partition: TopicPartition, start: StartPosition) -> int:
        """The offset to read from where nobody knows which log the committed one counts."""
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

    def find(self, gone: OffsetGone) -> None:
        """The log does not hold what was to be read next: says what is missing, goes on behind it."""
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
            self._new_log = log
            if batch.fixed_end is not None:
                if not self._is_proven(batch):
                    self._unproven[partition] = batch.fixed_end
                batch.advance(batch.fixed_end)  # the rest of the announced range is no more
            return
        if earliest > batch.end:
            before = batch.end
            batch.skip_to(earliest, self._clock.now())
            self._observer.offsets_gone(partition, before, batch.end)
        # Also for a complaint about where the partition was read before: librdkafka may repeat one.
        self._source.seek(partition, batch.end)

    def confirm(self) -> None:
        """Makes sure that what was read is of the log that it is announced for.

        A topic that was deleted and made again may have outgrown the position before anything is
        fetched from there. Then no offset is out of range, and its first records would be skipped.
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
                self._new_log = log
            self._batches[partition] = Batch(partition, self._batches[partition].end)
        self._outbox.discard(others)
        if not others:
            self._confirmed_at = now

    def start_anew(self) -> bool:
        """Where a log lost its tail, reads on from its end; to be called with an empty outbox.

        A position that may be of another log proves no lost tail: this log is read from its beginning.

        Answers whether the topic was made anew: then all partitions are to be taken over once more, by
        a new client. The old one may know too much of them, as that there was a later leader epoch.
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
        """Whether the batch's end is a position in this log, as committed for it or as read from it."""
        return self._unproven.get(batch.partition) != batch.end


def _is_another(log: LogIdentity, known: LogIdentity) -> bool:
    # A broker that has only just learnt to tell topics' ids says nothing of the topic itself.
    return bool(log.topic_id and known.topic_id and log.topic_id != known.topic_id)
