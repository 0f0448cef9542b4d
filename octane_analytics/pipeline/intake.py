"""Intake of polled records: those that join the open batch, and the positions to go back to."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from octane_analytics.interfaces import GroupMember
from octane_analytics.pipeline.batch import Batch, partitions_of
from octane_analytics.pipeline.context import PipelineContext
from octane_analytics.pipeline.delivery_state import DeliveryState
from octane_analytics.types import Record, RejectedRecord, TopicPartition


class AcceptedRecords(NamedTuple):
    """Records of one poll by their destination."""

    records: Sequence[Record]
    """Records for the open batch, whose ranges cover them now."""
    partitions: Sequence[int]
    """Partition numbers of the accepted records."""
    held_back: Sequence[Record] = ()
    """Records for the next batch, because the open one has no room for ranges of more partitions."""
    passed: frozenset[int] = frozenset()
    """Partitions of which records were left out: the client must go back to the position before more of
    them is accepted."""


def accept_records(
    records: Sequence[Record], state: DeliveryState, passed: AbstractSet[int] = frozenset()
) -> AcceptedRecords:
    """Extend the open batch's ranges by records in offset order within each partition.

    Leave out records before their partition's position, which a seek may repeat, and those of
    partitions that are not read now (`passed` among them). The cost of each record counts here.
    """
    numbers = partitions_of(records)
    if numbers and _extends_by_run(records, numbers, state, passed):
        return AcceptedRecords(records, numbers)
    offsets = _offsets_of(records)
    firsts = dict(zip(reversed(numbers), reversed(offsets), strict=True))
    unread = {number for number in firsts if number in passed or not state.is_readable(number)}
    if unread or any(first < state.position(number) for number, first in firsts.items()):
        kept = [
            record
            for record, number, offset in zip(records, numbers, offsets, strict=True)
            if number not in unread and offset >= state.position(number)
        ]
        found = accept_records(kept, state) if kept else AcceptedRecords((), ())
        return found._replace(passed=frozenset(n for n in unread if n in state))
    lasts = dict(zip(numbers, offsets, strict=True))
    full = {number for number, last in lasts.items() if not state.extend(number, last + 1)}
    if not full:
        return AcceptedRecords(records, numbers)
    fitting = [(r, n) for r, n in zip(records, numbers, strict=True) if n not in full]
    return AcceptedRecords(
        [record for record, _ in fitting],
        [number for _, number in fitting],
        [record for record, number in zip(records, numbers, strict=True) if number in full],
    )


def _offsets_of(records: Iterable[Any]) -> list[int]:
    return [record.offset() for record in records]


def _extends_by_run(
    records: Sequence[Record],
    numbers: Sequence[int],
    state: DeliveryState,
    passed: AbstractSet[int],
) -> bool:
    """Extend the open batch's range by records of one partition, as under backlog, if all are accepted.

    Return whether it was done. Does not look at each record.
    """
    number = numbers[0]
    if numbers.count(number) < len(numbers) or number in passed or not state.is_readable(number):
        return False
    first, last = records[0].offset(), records[-1].offset()
    assert first is not None, "a record that was read has an offset"
    assert last is not None, "a record that was read has an offset"
    return first >= state.position(number) and state.extend(number, last + 1)


class RecordIntake:
    """Open batch of one worker, beside the delivery state that knows its ranges."""

    def __init__(self, topic: str, member: GroupMember, context: PipelineContext) -> None:
        self._topic = topic
        self._member = member
        self._context = context
        self.batch = Batch()
        self.held_back: Sequence[Record] = ()
        """Records of partitions whose ranges had no room in the open batch."""
        self._passed: set[int] = set()
        """Partitions in which the client must go back before more of them is accepted."""
        self._counted_up_to: dict[int, int] = {}
        """Offsets before which records were counted and will be read a second time."""

    def accept(self, records: Sequence[Record], state: DeliveryState) -> None:
        """Add records of a poll to the open batch. Raise TooManyRejected over the limit."""
        if self.held_back:
            # Of a partition that is held back, everything is: first what was read before.
            records, self.held_back = [*self.held_back, *records], ()
        if not records:
            return
        found, context = accept_records(records, state, self._passed), self._context
        self.held_back = found.held_back
        self._pass(found.passed)
        if not found.records:
            return
        rejected = self.batch.append(
            found.records, found.partitions, context.decode, context.clock.now()
        )
        if context.tracer is not None:
            self.batch.add_contexts(found.records, context.tracer)
        context.observer.consumed(len(found.records))
        if rejected:
            context.observer.rejected(rejected)
        self._count(found.records, rejected, state)

    def _count(
        self,
        records: Sequence[Record],
        rejected: Sequence[RejectedRecord],
        state: DeliveryState,
    ) -> None:
        """Count the records in the dead-letter limit, except those of a batch that was voided."""
        counted = self._counted_up_to
        if counted:
            records = [
                r for r in records if (r.offset() or 0) >= counted.get(r.partition() or 0, 0)
            ]
            kept = set(map(id, records))
            rejected = [item for item in rejected if id(item.record) in kept]
            self._counted_up_to = {
                n: end for n, end in counted.items() if n in state and state.position(n) < end
            }
        self._context.dlq_limit.record(len(records), len(rejected), _trailing(records, rejected))

    def pass_offsets(self, partition: int, end: int, state: DeliveryState) -> None:
        """Record that the log holds no record from the partition's position to `end`."""
        if partition not in state or partition in self._passed or end <= state.position(partition):
            return
        if state.is_readable(partition) and state.extend(partition, end):
            self.batch.open(self._context.clock.now())
        else:
            self._pass([partition])  # the client reports the end again after a seek

    def must_go_back(self, waiting: AbstractSet[int]) -> bool:
        """Return whether the client has passed the position of a partition that is not `waiting`."""
        return not self._passed <= waiting

    def go_back(self, state: DeliveryState, waiting: AbstractSet[int]) -> None:
        """Seek to the position of each readable partition that the client has passed, but those
        `waiting`.

        Raise Unavailable.
        """
        for number in sorted(self._passed - waiting):
            if state.is_readable(number):
                partition = TopicPartition(self._topic, number)
                self._member.seek(partition, state.position(number))
                self._passed.discard(number)
            elif number not in state:
                self._passed.discard(number)

    def read_from_position(self, partitions: Iterable[int]) -> None:
        """Have `go_back` seek in these partitions as soon as they are readable."""
        self._pass(partitions)

    def rewind(self, positions: Mapping[int, int]) -> None:
        """Read partitions a second time from their position; `positions` are those before."""
        self._pass(positions)
        for number, position in positions.items():
            self._counted_up_to[number] = max(position, self._counted_up_to.get(number, 0))

    def _pass(self, partitions: Iterable[int]) -> None:
        """Record that the client must go back; it reads there again what is held back."""
        passed = frozenset(partitions)
        self._passed |= passed
        self._release(passed)

    def _release(self, partitions: AbstractSet[int]) -> None:
        self.held_back = [r for r in self.held_back if r.partition() not in partitions]

    def forget(self, partitions: AbstractSet[int]) -> None:
        self._passed -= partitions
        self._release(partitions)
        for number in partitions:
            self._counted_up_to.pop(number, None)

    def forget_voided(self, state: DeliveryState) -> None:
        """Discard the open batch if the state has voided its ranges."""
        if not state.open_ranges:
            self.batch = Batch()
            self._pass(n for n in set(partitions_of(self.held_back)) if n in state)
            self.held_back = ()

    def close_batch(self, state: DeliveryState) -> Batch:
        """Return the batch that the state has frozen, and open the next one."""
        batch, self.batch = self.batch, Batch()
        self.accept((), state)
        return batch

    def clear(self) -> None:
        self.batch, self.held_back = Batch(), ()
        self._passed.clear()
        self._counted_up_to.clear()


def _trailing(records: Sequence[Record], rejected: Sequence[RejectedRecord]) -> int:
    """Return the number of rejected records at the end, with no accepted one after them."""
    count = 0
    for record, item in zip(reversed(records), reversed(rejected), strict=False):
        if item.record is not record:
            break
        count += 1
    return count
