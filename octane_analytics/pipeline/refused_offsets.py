"""Positions that a broker refuses as out of range although its log reaches from before to after them.

No offset may be skipped then, and reading there again may fail for hours: Apache Kafka answers so for
offsets that a log's remote tier should have and has not (`RemoteLogManager.read`). The partition waits,
is read again with growing pauses, and the refusal counts as an outage of Kafka. Does not depend on a
client.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass

from octane_analytics.errors import Unavailable
from octane_analytics.pipeline.context import PipelineContext
from octane_analytics.pipeline.delivery_state import DeliveryState
from octane_analytics.pipeline.outages import KAFKA
from octane_analytics.runtime.timing import Backoff
from octane_analytics.types import OffsetRange, TopicPartition

_FIRST_PAUSE_SECONDS = 0.2
_PAUSE_SECONDS = 4.0
"""Longest pause. Shorter than the time after which a silent partition counts as stalled, which has
the client recreated: that would not help, and would cost the other partitions a rebalance."""


@dataclass(slots=True)
class _Refusal:
    partition: TopicPartition
    position: int
    pauses: Backoff
    retry_at: float = 0.0
    is_reported: bool = False


class RefusedOffsets:
    """Refused positions of one member's partitions."""

    def __init__(self, context: PipelineContext, backoff: Backoff) -> None:
        self._context = context
        self._backoff = backoff
        self._refusals: dict[int, _Refusal] = {}

    def add(self, partition: TopicPartition, position: int, log: OffsetRange) -> None:
        """Record that the position was refused; `log` is what the partition's log holds.

        The first refusal of a position is only read again: the log may have changed meanwhile, and a
        leader that has just been elected may not know its end yet.
        """
        found = self._refusals.get(partition.partition)
        if found is None or found.position != position:
            self.forget([partition.partition])
            pauses = self._backoff.fresh(_FIRST_PAUSE_SECONDS, _PAUSE_SECONDS)
            self._refusals[partition.partition] = _Refusal(partition, position, pauses)
            return
        found.retry_at = self._context.clock.now() + found.pauses.next_seconds()
        found.is_reported = True
        error = Unavailable(
            f"the broker refuses offset {position} of {partition} as out of range, although its log "
            f"holds {log.first} to {log.end}; reading it again, see that broker's log"
        )
        self._context.outages.failed(KAFKA, _call(partition), error)

    def waiting(self) -> Set[int]:
        """Return the partitions that are not to be read yet."""
        if not self._refusals:
            return frozenset()
        now = self._context.clock.now()
        return {number for number, found in self._refusals.items() if now < found.retry_at}

    def note_progress(self, state: DeliveryState) -> None:
        """Forget the partitions that have been read on."""
        if self._refusals:
            self.forget(
                [
                    number
                    for number, found in self._refusals.items()
                    if number not in state or state.position(number) != found.position
                ]
            )

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget partitions that were read on or given up."""
        for number in partitions:
            found = self._refusals.pop(number, None)
            if found is not None and found.is_reported:
                self._context.outages.served(KAFKA, _call(found.partition))


def _call(partition: TopicPartition) -> str:
    return f"read {partition}"
