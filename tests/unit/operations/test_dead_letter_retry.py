"""Retried messages are inserted once, whichever call fails, before or after it takes effect."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import (
    ConfigError,
    DecodeError,
    NeedsOperator,
    OctaneError,
    Unavailable,
)
from octane_analytics.events.decode import decode
from octane_analytics.events.event import Row
from octane_analytics.interfaces import BlockSink
from octane_analytics.operations.dead_letter_retry import (
    AlreadyPresent,
    DeadLetterRetry,
    EventsTable,
    RetryOutcome,
    StoredRows,
    read_index,
)
from octane_analytics.operations.dead_letters import Selection
from octane_analytics.types import OffsetRange, TopicPartition
from tests.fakes.block_table import FakeBlockSink, FakeBlockTable
from tests.fakes.clickhouse import FakeShards, StoredRow
from tests.fakes.kafka import FakeRecord

TOPIC = "octane.events.dlq"
POISON = b'"poison"'
MARKED_AT = 1_770_000_000.0
"""Timestamp of all records of the fakes, epoch seconds."""


class Crash(Exception):
    """Simulated end of the process."""


class Faults:
    """Raises Crash at the nth call, before it takes effect or after."""

    def __init__(self, at: int | None = None, *, takes_effect: bool = False) -> None:
        self.left = at
        self.takes_effect = takes_effect

    def strikes(self, takes_effect: bool) -> None:
        if self.left is None or takes_effect is not self.takes_effect:
            return
        self.left -= 1
        if self.left < 0:
            raise Crash


class FakeDeadLetterTopic:
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
        self.faults.strikes(takes_effect=False)
        self._append(partition.partition, value, tuple(headers))
        self.faults.strikes(takes_effect=True)


class FakeTable(FakeBlockSink):
    """In-memory table that refuses blocks with a poison row."""

    def __init__(self) -> None:
        super().__init__(FakeBlockTable(now=lambda: 0.0))
        self.table.refuses = lambda row: row.properties == POISON.decode()
        self.faults = Faults()

    @property
    def rows(self) -> list[str]:
        """Users of the rows."""
        return [row.user_id for row in self.table.rows]

    def add(self, *users: int) -> None:
        """Insert rows that are not of this topic."""
        self.table.rows += [StoredRow(0, "app", "name", str(user), "{}") for user in users]

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> bool | None:
        self.faults.strikes(takes_effect=False)
        is_stored = super().insert_block(columns, token, query_id)
        self.faults.strikes(takes_effect=True)
        return is_stored

    def choose(self) -> str:
        return ""

    def sink(self, shard: str) -> BlockSink:
        assert shard == ""
        return self

    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]:
        return [self.rows.count(str(user)) for user in columns[3]]


class FakeShardedTable(FakeShards):
    """Table with two shards, in the order in which a run's settings list them."""

    def __init__(self, tables: Mapping[str, FakeTable]) -> None:
        super().__init__(tables)
        self.tables = tables

    @property
    def rows(self) -> list[str]:
        return [row for table in self.tables.values() for row in table.rows]

    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]:
        return [self.rows.count(str(user)) for user in columns[3]]


def event(user: int) -> bytes:
    return b"event %d" % user


def lenient(value: bytes | None) -> Row:
    """Decode like the fixed version of the decoder."""
    if value is None or value.startswith(b"bad"):
        raise DecodeError("wrong_type", "still wrong")
    properties = POISON if value.startswith(b"poison") else b"{}"
    return Row(0, "app", "name", value.decode().split()[1], properties)


def run(
    topic: FakeDeadLetterTopic,
    table: EventsTable,
    selection: Selection | None = None,
    chunk_messages: int = 3,
    present: StoredRows = StoredRows.REFUSE,
    *,
    name: str = "",
    later_seconds: float = 0.0,
) -> RetryOutcome:
    index = read_index(topic, topic.spans(), table=name)
    retry = DeadLetterRetry(
        topic,
        table,
        lenient,
        index,
        chunk_messages=chunk_messages,
        now=lambda: MARKED_AT + later_seconds,
    )
    retry.recover()
    retry.run(selection or Selection(), present)
    return retry.outcome


def run_until_crash(
    topic: FakeDeadLetterTopic,
    table: FakeTable,
    at: int,
    takes_effect: bool,
    in_table: bool,
    **given: Any,
) -> None:
    """Run, with a crash at that call of the table or of the topic if there is one; then both work."""
    faults = Faults(at, takes_effect=takes_effect)
    table.faults, topic.faults = (faults, Faults()) if in_table else (Faults(), faults)
    with contextlib.suppress(Crash):
        run(topic, table, **given)
    table.faults = topic.faults = Faults()


def mixed_topic() -> tuple[FakeDeadLetterTopic, list[str]]:
    """Return a topic with duplicates, messages that stay invalid and one that ClickHouse refuses, and
    the users whose events must be inserted."""
    topic = FakeDeadLetterTopic()
    for number in range(20):
        topic.add(number % 2, number, event(number))
    for number in (3, 4, 5):
        topic.add(0, number, event(number))  # once more, in another partition even
    topic.add(0, 100, b"bad")
    topic.add(1, 101, b"poison 101")
    topic.add(1, 102, None, ("octane.value_bytes", b"99"))
    return topic, sorted(str(number) for number in range(20))


def test_retry_inserts_valid_messages_once() -> None:
    topic, users = mixed_topic()
    table = FakeTable()
    first = run(topic, table)
    assert sorted(table.rows) == users
    assert (first.inserted, first.duplicates, first.remaining) == (20, 3, 3)
    assert (dict(first.failed), first.refused, first.not_retryable) == ({"wrong_type": 1}, 1, 1)
    table.table.tokens.clear()  # as if long ago: a finished retry does not depend on the tokens
    again = run(topic, table)
    assert sorted(table.rows) == users
    assert (again.inserted, again.duplicates, again.remaining) == (0, 3, 3)


@given(
    at=st.integers(0, 25),
    second=st.integers(0, 25),
    takes_effect=st.booleans(),
    in_table=st.booleans(),
)
def test_retry_crash_at_any_call_keeps_exactly_once(
    at: int, second: int, takes_effect: bool, in_table: bool
) -> None:
    topic, users = mixed_topic()
    table = FakeTable()
    for nth in (at, second):
        run_until_crash(topic, table, nth, takes_effect, in_table)
    run(topic, table)
    assert sorted(table.rows) == users


@given(at=st.integers(0, 25), takes_effect=st.booleans(), in_table=st.booleans())
def test_retry_of_forgotten_token_keeps_exactly_once(
    at: int, takes_effect: bool, in_table: bool
) -> None:
    """The next run is so late that the table has had more inserts than it remembers."""
    topic, users = mixed_topic()
    table = FakeTable()
    run_until_crash(topic, table, at, takes_effect, in_table)
    table.table.tokens.clear()
    run(topic, table, later_seconds=3600.0)
    assert sorted(table.rows) == users


@given(
    crashes=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 25), st.booleans(), st.booleans()),
        max_size=4,
    )
)
def test_retries_into_two_tables_are_independent(
    crashes: list[tuple[str, int, bool, bool]],
) -> None:
    topic, users = mixed_topic()
    tables = {"a": FakeTable(), "b": FakeTable()}
    for name, at, takes_effect, in_table in crashes:
        run_until_crash(topic, tables[name], at, takes_effect, in_table, name=name)
    for name, table in tables.items():
        run(topic, table, name=name)
        assert sorted(table.rows) == users
    assert run(topic, tables["a"], name="a").inserted == 0


@given(
    crashes=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=3),
    orders=st.lists(st.sampled_from(["ab", "ba", "cab", "cba"]), min_size=4, max_size=4),
)
def test_retry_over_changed_shards_keeps_exactly_once(
    crashes: list[tuple[int, bool]], orders: list[str]
) -> None:
    """Each run lists the shards in another order, and may have one more."""
    topic, users = mixed_topic()
    tables = {name: FakeTable() for name in "abc"}
    for (at, takes_effect), order in zip(crashes, orders, strict=False):
        for table in tables.values():
            table.faults = Faults(at, takes_effect=takes_effect)
        # A run that does not list the shard of an announced chunk inserts nothing.
        with contextlib.suppress(Crash, NeedsOperator):
            run(topic, FakeShardedTable({name: tables[name] for name in order}))
    for table in tables.values():
        table.faults = Faults()
    everything = FakeShardedTable({name: tables[name] for name in f"{orders[-1]:c<3}"})
    run(topic, everything)
    assert sorted(everything.rows) == users
    if not crashes:
        assert all(table.rows for table in everything.tables.values())


def test_retry_finds_rows_of_any_shard() -> None:
    topic, _ = mixed_topic()
    tables = {name: FakeTable() for name in "ab"}
    tables["b"].add(5)
    with pytest.raises(AlreadyPresent, match="1 of 22"):
        run(topic, FakeShardedTable(tables))


@given(at=st.integers(0, 25), takes_effect=st.booleans(), in_table=st.booleans())
def test_retry_crash_of_refused_chunk_keeps_exactly_once(
    at: int, takes_effect: bool, in_table: bool
) -> None:
    """Between the runs the constraint that refused a row is removed."""
    topic, users = mixed_topic()
    table = FakeTable()
    run_until_crash(topic, table, at, takes_effect, in_table, chunk_messages=8)
    table.table.refuses = lambda row: False
    run(topic, table, chunk_messages=8)
    assert sorted(table.rows) == sorted([*users, "101"])


@given(st.integers(0, 25), st.booleans(), st.booleans())
def test_equal_events_survive_a_crash(at: int, takes_effect: bool, in_table: bool) -> None:
    topic = FakeDeadLetterTopic()
    for origin in range(9):
        topic.add(origin % 2, origin, event(7))
    table = FakeTable()
    table.add(7)
    faults = Faults(at, takes_effect=takes_effect)
    table.faults, topic.faults = (faults, Faults()) if in_table else (Faults(), faults)
    with contextlib.suppress(Crash):
        run(topic, table, present=StoredRows.INSERT)
    table.faults = topic.faults = Faults()
    run(topic, table, present=StoredRows.INSERT)
    assert table.rows == ["7"] * 10


def test_rows_lost_after_their_token_are_restored() -> None:
    topic, users = mixed_topic()
    table = FakeTable()
    table.faults = Faults(0, takes_effect=True)
    with pytest.raises(Crash):
        run(topic, table)
    table.faults = Faults()
    table.table.rows.pop()  # as if ClickHouse was killed between token and part
    run(topic, table)
    assert sorted(table.rows) == users


@given(st.lists(st.sampled_from(["bad", "0", "1", "all"]), max_size=6))
def test_partial_retries_together_insert_all(parts: list[str]) -> None:
    topic, users = mixed_topic()
    table = FakeTable()
    selections = {
        "bad": Selection(frozenset({"not_json"})),
        "0": Selection(ranges=[(0, 0, 5)]),
        "1": Selection(ranges=[(None, 4, 12)]),
        "all": Selection(),
    }
    for part in [*parts, "all"]:
        run(topic, table, selections[part])
    assert sorted(table.rows) == users


def test_replayed_messages_are_not_inserted_again() -> None:
    topic, users = mixed_topic()
    table = FakeTable()
    table.add(*range(7))
    with pytest.raises(AlreadyPresent, match="7 of 22 dead-letter messages have equal rows"):
        run(topic, table)
    assert len(table.rows) == 7
    outcome = run(topic, table, present=StoredRows.SKIP)
    assert (outcome.inserted, outcome.present) == (13, 7)
    assert sorted(table.rows) == users
    # They are settled: the table is not queried for them again.
    assert run(topic, table).inserted == 0
    assert sorted(table.rows) == users


def test_equal_row_counts_for_one_message() -> None:
    topic = FakeDeadLetterTopic()
    for origin in range(5):
        topic.add(origin % 2, origin, event(7))
    table = FakeTable()
    table.add(7, 7)
    assert run(topic, table, present=StoredRows.SKIP).inserted == 3
    assert table.rows == ["7"] * 5


def test_present_insert_inserts_equal_events_too() -> None:
    topic, _ = mixed_topic()
    table = FakeTable()
    table.add(3)
    assert run(topic, table, present=StoredRows.INSERT).inserted == 20
    assert table.rows.count("3") == 2


def test_duplicate_message_is_retried_when_selected_alone() -> None:
    topic = FakeDeadLetterTopic()
    topic.add(0, 1, event(1))
    topic.add(0, 1, event(1))
    table = FakeTable()
    assert run(topic, table, Selection(ranges=[(0, 1, 1)])).inserted == 1
    assert run(topic, table).inserted == 0
    assert table.rows == ["1"]


def test_equal_events_of_different_records_are_all_inserted() -> None:
    topic = FakeDeadLetterTopic()
    for origin in range(4):
        topic.add(0, origin, event(7))
    table = FakeTable()
    run(topic, table)
    assert table.rows == ["7"] * 4


def test_announced_messages_are_inserted_before_any_selection() -> None:
    topic, _ = mixed_topic()
    table = FakeTable()
    table.faults = Faults(0)
    with pytest.raises(Crash):
        run(topic, table)
    table.faults = Faults()
    outcome = run(topic, table, Selection(frozenset({"nothing"})))
    assert (outcome.finished, outcome.inserted, outcome.chosen) == (3, 3, 0)


def test_announced_message_rejected_by_this_version_raises() -> None:
    topic, _ = mixed_topic()
    table = FakeTable()
    table.faults = Faults(0)
    with pytest.raises(Crash):
        run(topic, table)
    index = read_index(topic, topic.spans())
    with pytest.raises(ConfigError, match="dead-letter message 0:0 was announced"):
        DeadLetterRetry(topic, FakeTable(), decode, index).recover()


def test_retry_after_outage_inserts_everything() -> None:
    class UnavailableTable(FakeTable):
        def insert_block(
            self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
        ) -> None:
            raise Unavailable("ClickHouse is away")

    topic, users = mixed_topic()
    with pytest.raises(OctaneError, match="away"):
        run(topic, UnavailableTable())
    table = FakeTable()
    run(topic, table)
    assert sorted(table.rows) == users


def test_retry_stops_between_chunks() -> None:
    topic, _ = mixed_topic()
    table = FakeTable()
    index = read_index(topic, topic.spans())
    retry = DeadLetterRetry(
        topic, table, lenient, index, is_stopping=lambda: len(table.rows) >= 3, chunk_messages=3
    )
    retry.run(Selection())
    assert len(table.rows) == 3
