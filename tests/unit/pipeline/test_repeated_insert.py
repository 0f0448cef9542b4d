"""Repeated inserts are exact whatever failed before."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import ConfigError, DataRejected, NeedsOperator, Unavailable
from octane_analytics.pipeline.repeated_insert import (
    ATTEMPTS,
    insert_in_parts,
    insert_repeated,
    numbered_token,
)
from octane_analytics.types import RepeatRules
from tests.fakes.block_table import FakeBlockSink, FakeBlockTable
from tests.fakes.clickhouse import StoredRow

NOW = 1_700_000_000
MONTH = 31 * 86_400
USERS = "abcd"


def event(user: str, months_ago: int = 0) -> StoredRow:
    return StoredRow(NOW - months_ago * MONTH, "app", "play", user, "{}")


EVENTS = st.lists(
    st.builds(event, st.sampled_from(USERS), st.integers(0, 2)), min_size=1, max_size=8
)
FAULTS = st.lists(st.sampled_from(["before", "after", "count", "month 0", "month 1"]), max_size=6)


def columns(events: Sequence[StoredRow]) -> Sequence[Sequence[object]]:
    return list(zip(*events, strict=True))


def new_table() -> tuple[FakeBlockTable, FakeBlockSink]:
    table = FakeBlockTable(lambda: NOW)
    return table, FakeBlockSink(table)


def apply(table: FakeBlockTable, fault: str, events: Sequence[StoredRow]) -> None:
    """Make the next insert fail: before or after it takes effect, or between token and part."""
    table.loses_part = lambda month: False
    if fault.startswith("month"):
        lost: list[int] = []

        def is_lost(month: int) -> bool:
            lost.append(month)
            return len(lost) == int(fault[-1]) + 1

        table.loses_part = is_lost
    else:
        operation = "count" if fault == "count" else "insert"
        table.faults.push(operation, Unavailable(fault), is_done=fault == "after")


def part_token(first: int, end: int) -> str:
    return f"t/{first}-{end}"


@given(EVENTS, FAULTS, st.booleans())
def test_repeats_insert_each_row_once(
    events: list[StoredRow], faults: list[str], prefers_token: bool
) -> None:
    table, sink = new_table()
    for fault in faults[: ATTEMPTS - 1]:
        apply(table, fault, events)
        try:
            insert_repeated(sink, columns(events), "t", prefers_token=prefers_token)
        except Unavailable:
            continue
    table.loses_part = lambda month: False
    table.faults.clear()
    insert_repeated(sink, columns(events), "t", prefers_token=prefers_token)
    assert Counter(table.rows) == Counter(events)


@given(EVENTS, FAULTS, st.lists(st.text(USERS, max_size=2), min_size=8, max_size=8))
def test_repeats_through_changed_constraints_are_exact(
    events: list[StoredRow], faults: list[str], refusals: list[str]
) -> None:
    table, sink = new_table()
    for number, (fault, users) in enumerate(zip(faults[: ATTEMPTS - 1], refusals, strict=False)):
        table.refuses = lambda row, users=users: row.user_id in users  # type: ignore[misc]
        apply(table, fault, events)
        try:
            insert_repeated(sink, columns(events), "t")
        except DataRejected:
            try:
                insert_in_parts(
                    sink, columns(events), "t", part_token, is_repeat=number > 0, refused={}
                )
            except Unavailable:
                continue
        except Unavailable:
            continue
    table.refuses = lambda row: False
    table.loses_part = lambda month: False
    table.faults.clear()
    insert_repeated(sink, columns(events), "t")
    assert Counter(table.rows) == Counter(events)


@given(EVENTS, st.text(USERS, max_size=2))
def test_uncountable_table_gets_parts_once(events: list[StoredRow], users: str) -> None:
    table, sink = new_table()
    table.rules = RepeatRules(inserts_whole=True, counts_rows=False)
    table.refuses = lambda row: row.user_id in users
    for _ in range(2):
        refused: dict[int, str] = {}
        insert_in_parts(sink, columns(events), "t", part_token, is_repeat=False, refused=refused)
        assert Counter(table.rows) == Counter(row for row in events if row.user_id not in users)
        assert set(refused) == {n for n, row in enumerate(events) if row.user_id in users}


def test_equal_row_of_another_block_hides_none() -> None:
    table, sink = new_table()
    table.rows.append(event("a"))
    insert_repeated(sink, columns([event("a")]), "t", prefers_token=True)
    assert table.rows == [event("a")] * 2


class VanishingSink(FakeBlockSink):
    """Table from which all rows are deleted after each insert."""

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> bool | None:
        is_stored = super().insert_block(columns, token, query_id)
        self.table.rows.clear()
        return is_stored


def test_rows_that_vanish_are_not_inserted_again() -> None:
    sink = VanishingSink(FakeBlockTable(lambda: NOW))
    with pytest.raises(ConfigError, match="has stored 1 rows of a batch and does not show them"):
        insert_repeated(sink, columns([event("a")]), "t")
    assert [token for _, token in sink.table.tokens] == ["t"]


def test_repeat_goes_on_after_many_used_tokens() -> None:
    table, sink = new_table()
    month = 202311
    table.tokens = {(month, numbered_token("t", number)): None for number in range(50)}
    events = [event(user) for user in "abca"]
    table.rows = [events[0], events[1]]
    counted: list[int] = []
    count = table.missing

    def count_rows(rows: Sequence[StoredRow]) -> list[int]:
        counted.append(len(rows))
        return count(rows)

    table.missing = count_rows  # type: ignore[method-assign]
    insert_repeated(sink, columns(events), "t")
    assert Counter(table.rows) == Counter(events)
    assert counted[0] == 4
    assert set(counted[1:]) == {3}, "rows equal to a missing one, and no others"
    assert list(table.tokens)[-1] == (month, "t/again50")


def test_refused_repair_names_its_reason() -> None:
    table, sink = new_table()
    table.rules = RepeatRules(inserts_whole=True, repair_refusal="a view would count them twice")
    insert_repeated(sink, columns([event("a")]), "t")
    table.rows.clear()
    with pytest.raises(NeedsOperator, match=r"1 rows .* a view would count them twice"):
        insert_repeated(sink, columns([event("a")]), "t")
    assert table.rows == []
