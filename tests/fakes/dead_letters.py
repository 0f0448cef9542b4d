"""In-memory dead-letter topic."""

from collections.abc import Sequence

from octane_analytics.types import (
    RejectedRecord,
)
from tests.fakes.journal import Entry
from tests.fakes.kafka import FakeBroker


class FakeDeadLetters:
    """Implements `interfaces.DeadLetters`."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self.is_closed = False

    def send(self, rejected: Sequence[RejectedRecord]) -> None:
        def act() -> None:
            self._broker.dead_letters.extend(rejected)
            self._broker.journal.append(
                Entry("dead_letters", tuple(r.record.offset() for r in rejected))
            )

        self._broker.faults.run("dead_letters", act)

    def close(self) -> None:
        self.is_closed = True
