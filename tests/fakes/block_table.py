"""In-memory table that receives blocks; contract tests compare it with the real one.

Each month of a block is stored, and dropped under a known token, by itself, as in the real table.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from octane_analytics.errors import DataRejected, NeedsOperator, Unavailable
from octane_analytics.types import RepeatRules
from tests.fakes.clickhouse import StoredRow, stored_row
from tests.fakes.faults import Faults

TTL_SECONDS = 90 * 86_400
_ABOUT_TO_EXPIRE_SECONDS = 60


class FakeBlockTable:
    """Table with its tokens and the ids of running statements."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.rows: list[StoredRow] = []
        self.tokens: dict[tuple[int, str], None] = {}
        """Month and token, oldest first."""
        self.window = 10_000
        self.rules = RepeatRules()
        self.faults = Faults()
        self.refuses: Callable[[StoredRow], bool] = lambda row: False
        self.reports_drops = True
        self.running: set[str] = set()
        self.loses_part: Callable[[int], bool] = lambda month: False
        """Whether the server is killed after it has stored the token of this month, before its rows."""
        self._now = now

    def insert(self, rows: Sequence[StoredRow], token: str | None, query_id: str | None) -> bool:
        """Return whether every row was stored; otherwise the table has some of their tokens."""
        if query_id in self.running:
            raise Unavailable(f"another insert of this batch is running: {query_id}")
        if any(map(self.refuses, rows)):
            raise DataRejected("the server refuses a row")
        months: dict[int, list[StoredRow]] = {}
        for row in rows:
            months.setdefault(_month(row.timestamp), []).append(row)
        is_stored = True
        for month, part in months.items():
            if token is not None:
                if (month, token) in self.tokens:
                    is_stored = False
                    continue
                self.tokens[month, token] = None
            if self.loses_part(month):
                raise Unavailable("the server was killed between token and part")
            self.rows.extend(part)
        while len(self.tokens) > self.window:
            del self.tokens[next(iter(self.tokens))]
        return is_stored

    def missing(self, rows: Sequence[StoredRow]) -> list[int]:
        if not self.rules.counts_rows:
            raise NeedsOperator("merges replace rows: they cannot be counted")
        oldest = self._now() - TTL_SECONDS + _ABOUT_TO_EXPIRE_SECONDS
        present = Counter(self.rows)
        found = []
        for index, row in enumerate(rows):
            present[row] -= 1
            if present[row] < 0 and row.timestamp > oldest:
                found.append(index)
        return found


class FakeBlockSink:
    """Implements `interfaces.BlockSink`."""

    def __init__(self, table: FakeBlockTable) -> None:
        self.table = table
        self.is_closed = False

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> bool | None:
        rows = [stored_row(values) for values in zip(*columns, strict=True)]
        stored: list[bool] = []
        self.table.faults.run(
            "insert", lambda: stored.append(self.table.insert(rows, token, query_id))
        )
        return stored[-1] if self.table.reports_drops else None

    def missing_rows(self, columns: Sequence[Sequence[object]]) -> Sequence[int]:
        found: list[int] = []
        rows = [stored_row(values) for values in zip(*columns, strict=True)]
        self.table.faults.run("count", lambda: found.extend(self.table.missing(rows)))
        return found

    def partitions(self, columns: Sequence[Sequence[object]]) -> Sequence[object]:
        self.table.faults.run("count", lambda: None)
        return [_month(stored_row(values).timestamp) for values in zip(*columns, strict=True)]

    def repeat_rules(self, not_before: float | None = None) -> RepeatRules:
        return self.table.rules

    def close(self) -> None:
        self.is_closed = True


def _month(timestamp: int) -> int:
    at = datetime.fromtimestamp(timestamp, UTC)
    return at.year * 100 + at.month
