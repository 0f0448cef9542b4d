"""In-memory table that deduplicates by token, and its shards; contract tests compare with real ones.

A fault of `insert` fails the insert, one of `half insert` kills the server between token and part, and
one of `missing` fails the count of missing rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from octane_analytics.errors import DataRejected, NeedsOperator, Unavailable
from octane_analytics.interfaces import BlockSink
from octane_analytics.types import RepeatRules
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
        self.rules = RepeatRules()

    def count(self) -> Counter[str]:
        """Return the number of rows by user_id."""
        return Counter(row.user_id for row in self.rows)

    def missing(self, columns: Sequence[Sequence[object]]) -> list[int]:
        """Return the indices of missing rows: of equal rows, as many as the table has too few of."""
        self.faults.run("missing", lambda: None)
        present = Counter(self.rows)
        lacking = []
        for index, values in enumerate(zip(*columns, strict=True)):
            row = stored_row(values)
            present[row] -= 1
            if present[row] < 0:
                lacking.append(index)
        return lacking

    def insert(self, columns: Sequence[Sequence[object]], token: str | None) -> bool | None:
        self.clock.sleep(self.insert_seconds)
        rows = [stored_row(values) for values in zip(*columns, strict=True)]
        assert len(columns) == len(StoredRow._fields)

        is_stored = True

        def act() -> None:
            nonlocal is_stored
            if any(map(self.refuses, rows)):
                raise DataRejected("the server refuses a row")
            if token is not None and token in self.tokens:
                is_stored = False
                return
            self.rows.extend(rows)
            if token is not None:
                self.tokens.append(token)
                del self.tokens[: -self.window]

        self.journal.append(Entry("insert", InsertEntry(token, len(rows))))
        half = self.faults.take("half insert")
        if half is not None:
            if token is not None and token not in self.tokens:
                self.tokens.append(token)
            raise half.error
        self.faults.run("insert", act)
        return is_stored


class FakeSink:
    """Implements `interfaces.BlockSink`."""

    def __init__(self, server: FakeClickHouse) -> None:
        self._server = server
        self.is_closed = False

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> bool | None:
        return self._server.insert(columns, token)

    def missing_rows(self, columns: Sequence[Sequence[object]]) -> Sequence[int]:
        return self._server.missing(columns)

    def partitions(self, columns: Sequence[Sequence[object]]) -> Sequence[object]:
        return [""] * len(columns[0])

    def repeat_rules(self, not_before: float | None = None) -> RepeatRules:
        return self._server.rules

    def close(self) -> None:
        self.is_closed = True


class FakeShards:
    """Implements `interfaces.Shards` for sinks by identity, in the order of the settings."""

    def __init__(self, sinks: Mapping[str, BlockSink], *, first: int = 0) -> None:
        """A single sink with the identity "" is the only shard of a table, which needs no name."""
        self.sinks = sinks
        self._turn = first
        self.unreachable: set[str] = set()

    def choose(self) -> str:
        names = list(self.sinks)
        first, self._turn = self._turn % len(names), self._turn + 1
        for name in names[first:] + names[:first]:
            if name not in self.unreachable:
                return name
        raise Unavailable("no shard can be reached")

    def sink(self, shard: str) -> BlockSink:
        if not shard and len(self.sinks) == 1:
            return next(iter(self.sinks.values()))
        if shard in self.sinks and shard not in self.unreachable:
            return self.sinks[shard]
        if shard and self.unreachable:
            raise Unavailable("a shard cannot be reached")
        raise NeedsOperator(f"shard {shard!r} is not configured")

    def close(self) -> None:
        for sink in self.sinks.values():
            sink.close()


def one_shard(sink: BlockSink) -> FakeShards:
    """Return the only shard of a table, whose batches name none."""
    return FakeShards({"": sink})


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
