"""Waits until everything that was sent is accounted for: in the table, or a dead letter."""

from collections.abc import Callable
from dataclasses import dataclass

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import Unavailable
from octane_analytics.interfaces import Clock

STALL_SECONDS = 60.0
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Stored:
    rows: int
    dead_letters: int

    @property
    def accounted(self) -> int:
        return self.rows + self.dead_letters


class DeliveryWaiter:
    """Counts from where table and dead letters stood at `begin`."""

    def __init__(
        self, clickhouse: ClickHouse, dead_letters: Callable[[], float], clock: Clock
    ) -> None:
        self._clickhouse = clickhouse
        self._dead_letters = dead_letters
        self._clock = clock
        self._before = Stored(0, 0)

    def begin(self) -> None:
        """Asks ClickHouse: blocks, raises Unavailable."""
        self._before = Stored(0, 0)
        self._before = self.stored()

    def stored(self) -> Stored:
        """What has arrived since `begin`. Asks ClickHouse: blocks, raises Unavailable."""
        table = self._clickhouse.table
        rows = self._clickhouse.select(
            "SELECT count() FROM {database:Identifier}.{table:Identifier}",
            {"database": table.database, "table": table.table},
        ).rows[0][0]
        return Stored(
            rows - self._before.rows, int(self._dead_letters()) - self._before.dead_letters
        )

    def wait(
        self,
        expected: int,
        *,
        pause: Callable[[float], bool],
        on_progress: Callable[[Stored], None],
    ) -> Stored:
        """Blocks until `expected` records are accounted for, or `pause` answers that it is to stop.

        Raises Unavailable when nothing has moved for STALL_SECONDS, with what is missing.
        """
        last = self.stored()
        moved_at = self._clock.now()
        while last.accounted < expected and not pause(_PAUSE_SECONDS):
            stored = self.stored()
            now = self._clock.now()
            if stored != last:
                last, moved_at = stored, now
            elif now - moved_at > STALL_SECONDS:
                raise Unavailable(
                    f"{expected - last.accounted:,} of {expected:,} events are neither in "
                    "ClickHouse nor dead letters, and nothing has moved for "
                    f"{STALL_SECONDS:g} s: look at the worker's log"
                )
            on_progress(last)
        return last
