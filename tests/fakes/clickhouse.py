"""In-memory table that deduplicates by token; contract tests compare it with the real one."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from octane_analytics.errors import (
    DataRejected,
)
from tests.fakes.clock import FakeClock
from tests.fakes.faults import Faults
from tests.fakes.journal import Entry, InsertEntry


class StoredRow(NamedTuple):
    """Row of the table, in the order of its columns."""

    timestamp: int
    app_id: str
    event_name: str
    user_id: str
    properties: str


class FakeClickHouse:
    """Table with its remembered tokens."""

    def __init__(self, clock: FakeClock, journal: list[Entry] | None = None) -> None:
        self.clock = clock
        self.journal = [] if journal is None else journal
        self.rows: list[StoredRow] = []
        self.tokens: list[str] = []
        self.window = 10_000
        self.faults = Faults()
        self.refuses: Callable[[StoredRow], bool] = lambda row: False
        self.insert_seconds = 0.0

    def count(self) -> Counter[str]:
        """Return the number of rows by user_id."""
        return Counter(row.user_id for row in self.rows)

    def missing(self, columns: Sequence[Sequence[object]]) -> list[list[object]]:
        """The rows that the table lacks: of equal rows, as many as it has too few of."""
        present = Counter(self.rows)
        lacking = []
        for values in zip(*columns, strict=True):
            present[stored_row(values)] -= 1
            if present[stored_row(values)] < 0:
                lacking.append(values)
        return [[values[index] for values in lacking] for index in range(len(columns))]

    def insert(self, columns: Sequence[Sequence[object]], token: str | None) -> None:
        self.clock.sleep(self.insert_seconds)
        rows = [stored_row(values) for values in zip(*columns, strict=True)]
        assert len(columns) == len(StoredRow._fields)

        def act() -> None:
            if any(map(self.refuses, rows)):
                raise DataRejected("the server refuses a row")
            if token is not None and token in self.tokens:
                return
            self.rows.extend(rows)
            if token is not None:
                self.tokens.append(token)
                del self.tokens[: -self.window]

        self.journal.append(Entry("insert", InsertEntry(token, len(rows))))
        self.faults.run("insert", act)


class FakeSink:
    """Implements `interfaces.Sink`."""

    def __init__(self, server: FakeClickHouse) -> None:
        self._server = server
        self.is_closed = False

    def insert(
        self,
        columns: Sequence[Sequence[object]],
        token: str | None,
        *,
        is_repeat: bool = False,
        not_before: float | None = None,
        may_overlap: bool = False,
    ) -> None:
        self._server.insert(self._server.missing(columns) if may_overlap else columns, token)

    def close(self) -> None:
        self.is_closed = True


def stored_row(values: tuple[object, ...]) -> StoredRow:
    timestamp, *texts = values
    # clickhouse-driver refuses values that do not fit a DateTime before it sends anything.
    if not isinstance(timestamp, int) or not 0 <= timestamp < 2**32:
        raise DataRejected(f"{timestamp!r} is not a DateTime")
    return StoredRow(timestamp, *map(_text, texts))


def _text(value: object) -> str:
    if not isinstance(value, str | bytes):
        raise DataRejected(f"{value!r} is not a String")
    return value if isinstance(value, str) else value.decode()
