"""Retried letters go in once, whatever call fails, whether or not it had taken effect."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import ConfigError, DataRejected, DecodeError, OctaneError, Unavailable
from octane_analytics.events.decode import decode
from octane_analytics.events.event import Row
from octane_analytics.operations.dead_letter_retry import (
    AlreadyPresent,
    DeadLetterRetry,
    RetryOutcome,
    StoredRows,
    read_index,
)
from octane_analytics.operations.dead_letters import Selection
from octane_analytics.types import OffsetRange, TopicPartition
from tests.fakes.kafka import FakeRecord

TOPIC = "octane.events.dlq"
POISON = b'"poison"'


class Crash(Exception):
    """The process ends here."""


class Faults:
    """Crashes at the nth call, before it takes effect or after."""

    def __init__(self, at: int | None = None, *, is_done: bool = False) -> None:
        self.left = at
        self.is_done = is_done

    def strikes(self, is_done: bool) -> None:
        if self.left is None or is_done is not self.is_done:
            return
        self.left -= 1
        if self.left < 0:
            raise Crash


class FakeLetters:
    def __init__(self, partitions: int = 2) -> None:
        self.topic = TOPIC
        self.records: list[list[FakeRecord]] = [[] for _ in range(partitions)]
        self.faults = Faults()

    def add(
        self, number: int, origin: int, value: bytes | None, *more: tuple[str, bytes | None]
    ) -> None:
        headers = (
            *more,
            ("octane.error", b"wrong_type: no"),
            ("octane.topic", b"octane.events"),
            ("octane.partition", b"0"),
            ("octane.offset", str(origin).encode()),
        )
        self._append(number, value, headers)

    def _append(
        self, number: int, value: bytes | None, headers: tuple[tuple[str, bytes | None], ...]
    ) -> None:
        log = self.records[number]
        log.append(FakeRecord(TopicPartition(TOPIC, number), len(log), value, None, headers))

    def spans(self) -> dict[TopicPartition, OffsetRange]:
        return {
            TopicPartition(TOPIC, n): OffsetRange(0, len(log)) for n, log in enumerate(self.records)
        }

    def read(self, spans: Mapping[TopicPartition, OffsetRange]) -> Iterator[Sequence[FakeRecord]]:
        for where, span in spans.items():
            yield self.records[where.partition][span.first : span.end]

    def mark(
        self, partition: TopicPartition, headers: Sequence[tuple[str, bytes]], value: bytes
    ) -> None:
        self.faults.strikes(is_done=False)
        self._append(partition.partition, value, tuple(headers))
        self.faults.strikes(is_done=True)


class FakeTable:
    """Drops a block whose token it has seen; refuses a block with a poisonous row."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.tokens: set[str | None] = set()
        self.faults = Faults()

    def insert(
        self,
        columns: Sequence[Sequence[object]],
        token: str | None,
        *,
        is_repeat: bool = False,
        not_before: float | None = None,
        may_overlap: bool = False,
    ) -> None:
        self.faults.strikes(is_done=False)
        if POISON in columns[4]:
            raise DataRejected("poison")
        if token not in self.tokens:
            self.tokens.add(token)
            self.rows.extend(str(user) for user in columns[3])
        self.faults.strikes(is_done=True)

    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]:
        return [self.rows.count(str(user)) for user in columns[3]]

    def close(self) -> None: ...


def event(user: int) -> bytes:
    return b"event %d" % user


def lenient(value: bytes | None) -> Row:
    """The decoder after the fix."""
    if value is None or value.startswith(b"bad"):
        raise DecodeError("wrong_type", "still wrong")
    properties = POISON if value.startswith(b"poison") else b"{}"
    return Row(0, "app", "name", value.decode().split()[1], properties)


def run(
    letters: FakeLetters,
    table: FakeTable,
    choice: Selection | None = None,
    chunk_letters: int = 3,
    present: StoredRows = StoredRows.REFUSE,
) -> RetryOutcome:
    shelf = read_index(letters, letters.spans())
    retry = DeadLetterRetry(letters, table, lenient, shelf, chunk_letters=chunk_letters)
    retry.recover()
    retry.run(choice or Selection(), present)
    return retry.outcome


def a_mixed_topic() -> tuple[FakeLetters, list[str]]:
    """With duplicates, letters that stay bad, one that ClickHouse refuses; and who is to arrive."""
    letters = FakeLetters()
    for number in range(20):
        letters.add(number % 2, number, event(number))
    for number in (3, 4, 5):
        letters.add(0, number, event(number))  # once more, in another partition even
    letters.add(0, 100, b"bad")
    letters.add(1, 101, b"poison 101")
    letters.add(1, 102, None, ("octane.value_bytes", b"99"))
    return letters, sorted(str(number) for number in range(20))


def test_letters_go_in_once_and_what_fails_stays() -> None:
    letters, users = a_mixed_topic()
    table = FakeTable()
    first = run(letters, table)
    assert sorted(table.rows) == users
    assert (first.inserted, first.duplicates, first.stayed) == (20, 3, 3)
    assert (dict(first.failed), first.refused, first.not_retryable) == ({"wrong_type": 1}, 1, 1)
    table.tokens.clear()  # as if long ago: nothing rests on them after a retry that has ended
    again = run(letters, table)
    assert sorted(table.rows) == users
    assert (again.inserted, again.duplicates, again.stayed) == (0, 3, 3)


@given(
    at=st.integers(0, 25),
    second=st.integers(0, 25),
    is_done=st.booleans(),
    in_table=st.booleans(),
)
def test_crash_at_any_call_inserts_nothing_twice_and_loses_nothing(
    at: int, second: int, is_done: bool, in_table: bool
) -> None:
    letters, users = a_mixed_topic()
    table = FakeTable()
    for place in (at, second):
        faults = Faults(place, is_done=is_done)
        table.faults, letters.faults = (faults, Faults()) if in_table else (Faults(), faults)
        try:
            run(letters, table)
        except Crash:
            continue
    table.faults = letters.faults = Faults()
    run(letters, table)
    assert sorted(table.rows) == users


@given(st.lists(st.sampled_from(["bad", "0", "1", "all"]), max_size=6))
def test_retries_by_parts_add_up(parts: list[str]) -> None:
    letters, users = a_mixed_topic()
    table = FakeTable()
    choices = {
        "bad": Selection(frozenset({"not_json"})),
        "0": Selection(ranges=[(0, 0, 5)]),
        "1": Selection(ranges=[(None, 4, 12)]),
        "all": Selection(),
    }
    for part in [*parts, "all"]:
        run(letters, table, choices[part])
    assert sorted(table.rows) == users


def test_letters_that_a_replay_has_put_in_are_not_inserted_again() -> None:
    letters, users = a_mixed_topic()
    table = FakeTable()
    table.rows = [str(number) for number in range(7)]
    with pytest.raises(AlreadyPresent, match="7 of 22 letters"):
        run(letters, table)
    assert len(table.rows) == 7
    outcome = run(letters, table, present=StoredRows.SKIP)
    assert (outcome.inserted, outcome.present) == (13, 7)
    assert sorted(table.rows) == users
    # They are settled: nobody is asked about them again.
    assert run(letters, table).inserted == 0
    assert sorted(table.rows) == users


def test_each_equal_row_stands_for_one_letter() -> None:
    letters = FakeLetters()
    for origin in range(5):
        letters.add(origin % 2, origin, event(7))
    table = FakeTable()
    table.rows = ["7", "7"]
    assert run(letters, table, present=StoredRows.SKIP).inserted == 3
    assert table.rows == ["7"] * 5


def test_equal_rows_may_be_other_events() -> None:
    letters, _ = a_mixed_topic()
    table = FakeTable()
    table.rows = ["3"]
    assert run(letters, table, present=StoredRows.INSERT).inserted == 20
    assert table.rows.count("3") == 2


def test_second_letter_of_a_record_is_retried_where_only_it_is_chosen() -> None:
    letters = FakeLetters()
    letters.add(0, 1, event(1))
    letters.add(0, 1, event(1))
    table = FakeTable()
    assert run(letters, table, Selection(ranges=[(0, 1, 1)])).inserted == 1
    assert run(letters, table).inserted == 0
    assert table.rows == ["1"]


def test_equal_events_of_different_records_all_go_in() -> None:
    letters = FakeLetters()
    for origin in range(4):
        letters.add(0, origin, event(7))
    table = FakeTable()
    run(letters, table)
    assert table.rows == ["7"] * 4


def test_what_was_announced_goes_in_first_whatever_is_chosen() -> None:
    letters, _ = a_mixed_topic()
    table = FakeTable()
    table.faults = Faults(0)
    with pytest.raises(Crash):
        run(letters, table)
    table.faults = Faults()
    outcome = run(letters, table, Selection(frozenset({"nothing"})))
    assert (outcome.finished, outcome.inserted, outcome.chosen) == (3, 3, 0)


def test_announced_letter_that_is_no_event_to_this_version_is_an_error() -> None:
    letters, _ = a_mixed_topic()
    table = FakeTable()
    table.faults = Faults(0)
    with pytest.raises(Crash):
        run(letters, table)
    shelf = read_index(letters, letters.spans())
    with pytest.raises(ConfigError, match="letter 0:0 was announced"):
        DeadLetterRetry(letters, FakeTable(), decode, shelf).recover()


def test_outage_is_told_and_the_next_run_goes_on() -> None:
    class Away(FakeTable):
        def insert(
            self,
            columns: Sequence[Sequence[object]],
            token: str | None,
            *,
            is_repeat: bool = False,
            not_before: float | None = None,
            may_overlap: bool = False,
        ) -> None:
            raise Unavailable("ClickHouse is away")

    letters, users = a_mixed_topic()
    with pytest.raises(OctaneError, match="away"):
        run(letters, Away())
    table = FakeTable()
    run(letters, table)
    assert sorted(table.rows) == users


def test_retry_stops_between_chunks() -> None:
    letters, _ = a_mixed_topic()
    table = FakeTable()
    shelf = read_index(letters, letters.spans())
    retry = DeadLetterRetry(
        letters, table, lenient, shelf, is_stopping=lambda: len(table.rows) >= 3, chunk_letters=3
    )
    retry.run(Selection())
    assert len(table.rows) == 3
