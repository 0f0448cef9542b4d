"""Inserts of a replay are exact through crashes, outages and changes of the table's constraints."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.replay.fill import MOVED, FillOutcome, FillReplay, ReplayControl
from octane_analytics.replay.interfaces import (
    Counts,
    JournalEntry,
    Staged,
    StagedChunk,
    StagedSlice,
)
from octane_analytics.replay.pacing import RateLimit
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan
from octane_analytics.types import LogIdentity
from tests.fakes.block_table import FakeBlockSink, FakeBlockTable
from tests.fakes.clickhouse import StoredRow
from tests.fakes.clock import FakeClock

NOW = 1_700_000_000
MONTH = 31 * 86_400
CHUNK = 5
USERS = "abcdef"


class Crash(Exception):
    """Simulated end of the process."""


class FakeStaging:
    """Staging tables of a range with these events, and the target."""

    def __init__(self, events: Sequence[StoredRow], target: FakeBlockTable) -> None:
        self._events = events
        self.target = target
        self._sink = FakeBlockSink(target)
        self._journal: list[JournalEntry] = []
        self._passes: dict[int, list[StoredRow]] = {}
        self.crash_after: int | None = None
        """Number of calls after which the process ends, half of the last one done."""
        self.takes_effect = False

    @contextlib.contextmanager
    def _call(self) -> Iterator[bool]:
        """Yield whether the call takes effect."""
        if self.crash_after is None:
            yield True
            return
        self.crash_after -= 1
        yield self.crash_after >= 0 or self.takes_effect
        if self.crash_after < 0:
            raise Crash

    def journal(self, kind: str, body: str) -> None:
        with self._call() as takes_effect:
            if takes_effect:
                self._journal.append(JournalEntry(0.0, kind, body))

    def place(self, chunk: str) -> None:
        pass

    def insert(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> None:
        with self._call() as takes_effect:
            if takes_effect:
                self._sink.insert_block(columns, token, query_id)

    def journal_entries(self) -> Sequence[JournalEntry]:
        return self._journal

    def slices(self) -> Sequence[StagedSlice]:
        return [StagedSlice(0, 0, 2 * NOW)]

    def find_missing(
        self, number: int, part: StagedSlice, limits: Mapping[int, int] | None, after: int | None
    ) -> None:
        lacking = Counter(self._events) - Counter(self.target.rows)
        self._passes[number] = list(lacking.elements())

    def select_all(self, number: int, part: StagedSlice) -> None:
        self._passes[number] = list(self._events)

    def chunks(self, number: int) -> Sequence[StagedChunk]:
        rows = len(self._passes[number])
        return [
            StagedChunk(number, 0, first, min(first + CHUNK, rows) - 1)
            for first in range(0, rows, CHUNK)
        ]

    def rows(self, chunk: StagedChunk) -> Sequence[Sequence[object]]:
        found = self._passes.get(chunk.number, [])[chunk.first : chunk.last + 1]
        return list(zip(*found, strict=True))

    def move(self, lost_entries: int) -> None:
        """Continue on another server, which lacks the passes and some of the newest journal entries."""
        self._passes.clear()
        del self._journal[max(0, len(self._journal) - lost_entries) :]
        self.crash_after = None
        self.journal(MOVED, "")

    def missing_rows(self, number: int) -> int:
        return len(self._passes[number])

    def positions(self) -> Mapping[int, int]:
        return {}

    def sync(self) -> None: ...
    def stage(self, staged: Staged) -> None: ...
    def counts(self) -> Counts:
        return Counts()

    def mark_undecided(
        self, number: int, after: int | None, limits: Mapping[int, int], ends: Mapping[int, int]
    ) -> int:
        return 0


def run(staging: FakeStaging, mode: Mode) -> FillOutcome:
    plan = ReplayPlan(
        "id", mode, Compare.RANGE, "t", "g", LogIdentity("", "", ""), "d", "t", False, {}, {}
    )
    clock = FakeClock()
    control = ReplayControl(report=lambda _: None, is_stopping=lambda: False)
    # Log and reader are not used without live workers.
    unused: Any = None
    fill = FillReplay(plan, staging, unused, unused, clock, RateLimit(None, clock), control)
    return fill.run()


def event(user: str, months_ago: int = 0) -> StoredRow:
    return StoredRow(NOW - months_ago * MONTH, "app", "play", user, "{}")


def refuse(table: FakeBlockTable, users: str) -> None:
    table.refuses = lambda row: row.user_id in users


EVENTS = st.lists(st.builds(event, st.sampled_from(USERS), st.integers(0, 1)), max_size=12)
REFUSED = st.text(USERS, max_size=3)
RUNS = st.lists(st.tuples(REFUSED, st.integers(0, 15), st.booleans()), max_size=4)


@given(EVENTS, EVENTS, RUNS, st.lists(st.booleans(), max_size=3))
@example(
    events=[event("a"), event("b"), event("c"), event("d")],
    present=[],
    runs=[("b", 10, True)],
    outages=[],
)
def test_fill_through_crashes_and_changed_constraints_is_exact(
    events: list[StoredRow],
    present: list[StoredRow],
    runs: list[tuple[str, int, bool]],
    outages: list[bool],
) -> None:
    table = FakeBlockTable(lambda: NOW)
    table.rows = list(present)
    staging = FakeStaging(events, table)
    for is_done in outages:
        table.faults.push("insert", Unavailable("cut"), is_done=is_done)
    for users, crash_after, takes_effect in runs:
        refuse(table, users)
        staging.crash_after, staging.takes_effect = crash_after, takes_effect
        with contextlib.suppress(Crash):
            run(staging, Mode.FILL)
    refuse(table, "")
    staging.crash_after = None
    run(staging, Mode.FILL)
    assert Counter(table.rows) == Counter(events) | Counter(present)


@given(
    EVENTS,
    EVENTS,
    st.lists(st.tuples(REFUSED, st.integers(0, 15), st.booleans(), st.integers(0, 4)), max_size=4),
)
@example(events=[event("a")], present=[], runs=[("", 2, True, 4)])
@example(events=[event("a"), event("b")], present=[], runs=[("", 3, True, 1)])
def test_fill_is_exact_after_staging_is_lost(
    events: list[StoredRow],
    present: list[StoredRow],
    runs: list[tuple[str, int, bool, int]],
) -> None:
    table = FakeBlockTable(lambda: NOW)
    table.rows = list(present)
    staging = FakeStaging(events, table)
    for users, crash_after, takes_effect, lost_entries in runs:
        refuse(table, users)
        staging.crash_after, staging.takes_effect = crash_after, takes_effect
        with contextlib.suppress(Crash):
            run(staging, Mode.FILL)
        staging.move(lost_entries)
    refuse(table, "")
    run(staging, Mode.FILL)
    assert Counter(table.rows) == Counter(events) | Counter(present)


@given(EVENTS, EVENTS, st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=4), REFUSED)
@example(
    events=[event("a"), event("b"), event("c"), event("d")],
    present=[],
    crashes=[(10, True)],
    refused="b",
)
def test_append_through_crashes_and_removed_constraint_is_exact(
    events: list[StoredRow],
    present: list[StoredRow],
    crashes: list[tuple[int, bool]],
    refused: str,
) -> None:
    table = FakeBlockTable(lambda: NOW)
    table.rows = list(present)
    staging = FakeStaging(events, table)
    refuse(table, refused)
    for crash_after, takes_effect in crashes:
        staging.crash_after, staging.takes_effect = crash_after, takes_effect
        try:
            run(staging, Mode.APPEND)
        except Crash:
            refuse(table, refused[1:])
    staging.crash_after = None
    run(staging, Mode.APPEND)
    added = Counter(table.rows) - Counter(present)
    accepted = Counter(row for row in events if row.user_id not in refused)
    assert added >= accepted
    assert added <= Counter(events)


def test_append_stops_at_unknown_result_that_is_refused() -> None:
    table = FakeBlockTable(lambda: NOW)
    staging = FakeStaging([event("a"), event("b")], table)
    table.faults.push("insert", Unavailable("cut"), is_done=True)

    def refuse_stored(row: StoredRow) -> bool:
        return row in table.rows

    table.refuses = refuse_stored
    with pytest.raises(OctaneError, match="undo the change of the table"):
        run(staging, Mode.APPEND)
    assert len(table.rows) == 2


def test_fill_restores_rows_lost_between_token_and_part() -> None:
    table = FakeBlockTable(lambda: NOW)
    staging = FakeStaging([event("a"), event("b", 1)], table)
    months: list[int] = []

    def is_first(month: int) -> bool:
        months.append(month)
        return len(months) == 1

    table.loses_part = is_first
    assert run(staging, Mode.FILL).inserted >= 2
    assert sorted(row.user_id for row in table.rows) == ["a", "b"]
