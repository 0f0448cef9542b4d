"""Wait until every sent record is in the table or in the dead-letter topic."""

from collections.abc import Callable
from dataclasses import dataclass

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import Unavailable
from octane_analytics.interfaces import Clock

STALL_SECONDS = 60.0
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Numbers of rows in the table and of dead-letter messages."""

    rows: int
    dead_letters: int

    @property
    def total(self) -> int:
        """Number of records in either of them."""
        return self.rows + self.dead_letters


class DeliveryWaiter:
    """Counts rows and dead-letter messages since `begin`."""

    def __init__(
        self, clickhouse: ClickHouse, dead_letters: Callable[[], float], clock: Clock
    ) -> None:
        self._clickhouse = clickhouse
        self._dead_letters = dead_letters
        self._clock = clock
        self._before = DeliveryCounts(0, 0)

    def begin(self) -> None:
        """Take the present counts as the start. Queries ClickHouse: blocks, raises Unavailable."""
        self._before = DeliveryCounts(0, 0)
        self._before = self.counts()

    def counts(self) -> DeliveryCounts:
        """Return the counts since `begin`. Queries ClickHouse: blocks, raises Unavailable."""
        table = self._clickhouse.table
        rows = self._clickhouse.select(
            "SELECT count() FROM {database:Identifier}.{table:Identifier}",
            {"database": table.database, "table": table.table},
        ).rows[0][0]
        return DeliveryCounts(
            rows - self._before.rows, int(self._dead_letters()) - self._before.dead_letters
        )

    def wait(
        self,
        expected: int,
        *,
        pause: Callable[[float], bool],
        on_progress: Callable[[DeliveryCounts], None],
    ) -> DeliveryCounts:
        """Block until the counts reach `expected`, or until `pause` returns True to stop.

        Raises Unavailable, with the number of missing records, if the counts have not changed for
        STALL_SECONDS.
        """
        last = self.counts()
        changed_at = self._clock.now()
        while last.total < expected and not pause(_PAUSE_SECONDS):
            counts = self.counts()
            now = self._clock.now()
            if counts != last:
                last, changed_at = counts, now
            elif now - changed_at > STALL_SECONDS:
                raise Unavailable(
                    f"{expected - last.total:,} of {expected:,} events are neither in ClickHouse nor "
                    f"dead-letter messages, without progress for {STALL_SECONDS:g} s: see the "
                    "worker's log"
                )
            on_progress(last)
        return last
