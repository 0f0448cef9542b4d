"""Inserts and repeats with a table that forgets tokens, loses parts and refuses rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octane_analytics.errors import DataRejected, Unavailable
from octane_analytics.events.decode import decode_all
from octane_analytics.pipeline.batch_writer import BatchWriter, WriteProgress
from octane_analytics.pipeline.dlq_limit import DlqLimit, DlqLimitConfig
from octane_analytics.pipeline.intents import Intent
from octane_analytics.pipeline.repeated_insert import Rows
from octane_analytics.pipeline.split_insert import PlacedRows, SplitInsert
from octane_analytics.types import (
    LogIdentity,
    PartitionRange,
    RejectedRecord,
    RepeatRules,
    TopicPartition,
)
from tests.fakes.clickhouse import one_shard
from tests.fakes.clock import FakeClock
from tests.fakes.dead_letters import FakeDeadLetters
from tests.fakes.kafka import TOPIC, FakeBroker, FakeRecord

LOG = LogIdentity("cluster", "topic-1", "")
Row = tuple[object, ...]


class Killed(Exception):
    """The worker dies here."""


@dataclass
class Table:
    """See `batch_writer.BlockSink`. `faults` are used up one per insert."""

    rows: Counter[Row] = field(default_factory=Counter)
    tokens: set[str] = field(default_factory=set)
    refuses: Callable[[Row], bool] = lambda row: False
    faults: list[str] = field(default_factory=list)
    inserts: list[tuple[str | None, int]] = field(default_factory=list)

    def insert_block(self, columns: Rows, token: str | None, query_id: str | None) -> bool | None:
        rows = list(zip(*columns, strict=True))
        assert rows
        if any(map(self.refuses, rows)):
            raise DataRejected("refused")
        self.inserts.append((token, len(rows)))
        fault = self.faults.pop() if self.faults else "none"
        if fault == "not done":
            raise Unavailable("cut off")
        is_known = token in self.tokens
        if token is not None:
            self.tokens.add(token)
        if fault == "between token and part":
            raise Unavailable("killed")
        if not is_known:
            self.rows.update(rows)
        if fault == "answer lost":
            raise Unavailable("cut off")
        if fault == "worker killed":
            raise Killed
        return not is_known

    def missing_rows(self, columns: Rows) -> Sequence[int]:
        wanted: Counter[Row] = Counter()
        missing = []
        for index, row in enumerate(zip(*columns, strict=True)):
            wanted[row] += 1
            if wanted[row] > self.rows[row]:
                missing.append(index)
        return missing

    def partitions(self, columns: Rows) -> Sequence[object]:
        return [""] * len(columns[0])

    def repeat_rules(self, not_before: float | None = None) -> RepeatRules:
        return RepeatRules()

    def close(self) -> None:
        raise AssertionError("the owner closes it")


def record(partition: int, offset: int, name: str) -> FakeRecord:
    payload = {
        "app_id": "a",
        "event_name": "e",
        "user_id": name,
        "timestamp": "2026-02-02T12:00:00Z",
    }
    value = b"not an event" if name == "invalid" else json.dumps(payload).encode()
    return FakeRecord(TopicPartition(TOPIC, partition), offset, value)


def batch_of(*names: Sequence[str]) -> tuple[Intent, list[FakeRecord]]:
    """One partition for each sequence, from offset 10 on."""
    records = [
        record(p, 10 + at, name) for p, own in enumerate(names) for at, name in enumerate(own)
    ]
    ranges = tuple(PartitionRange(p, 10, 10 + len(own)) for p, own in enumerate(names) if own)
    return Intent(TOPIC, LOG, ranges), records


class Rig:
    def __init__(self, table: Table) -> None:
        self.broker = FakeBroker(FakeClock())
        self.table = table
        self.writer = BatchWriter(one_shard(table), FakeDeadLetters(self.broker))

    @property
    def dead(self) -> list[tuple[int | None, int | None]]:
        return [(d.record.partition(), d.record.offset()) for d in self.broker.dead_letters]

    def insert_in_parts(
        self,
        rows: PlacedRows,
        intent: Intent,
        owned: set[int],
        progress: WriteProgress,
        *,
        is_repeat: bool = True,
    ) -> Sequence[RejectedRecord]:
        """Insert in parts with one call; return the refused rows sent by it."""
        split = SplitInsert(
            self.table,
            rows,
            intent,
            FakeClock(),
            DlqLimit(DlqLimitConfig()),
            is_repeat=is_repeat,
            is_counted=True,
        )
        assert split.run(deadline=1e9)
        return self.writer.send_refused(split.refused, owned, progress)

    def stored(self) -> Counter[str]:
        return Counter(
            {user.decode(): n for (_, _, _, user, _), n in self.table.rows.items()}  # type: ignore[attr-defined]
        )


def columns_of(records: Sequence[FakeRecord]) -> Rows:
    return decode_all([r.payload for r in records]).columns


def refuses(*names: str) -> Callable[[Row], bool]:
    return lambda row: row[3] in [name.encode() for name in names]


def test_batch_goes_in_once_under_its_token() -> None:
    intent, records = batch_of("ab", "c")
    rig = Rig(Table())
    rig.writer.insert(columns_of(records), intent, is_repeat=False)
    assert rig.table.inserts == [(intent.token(), 3)]
    rig.writer.insert(columns_of(records), intent, is_repeat=False)
    assert rig.stored() == Counter("abc")


def test_batch_without_rows_is_not_inserted() -> None:
    intent, _ = batch_of("ab")
    rig = Rig(Table())
    rig.writer.insert(columns_of([]), intent, is_repeat=True)
    assert rig.table.inserts == []


def test_repeat_counts_rows_of_a_forgotten_token() -> None:
    intent, records = batch_of("ab", "c")
    rig = Rig(Table())
    rig.writer.insert(columns_of(records), intent, is_repeat=False)
    rig.table.tokens.clear()
    rig.writer.insert(columns_of(records), intent, is_repeat=True)
    assert rig.stored() == Counter("abc")


def test_repeat_inserts_what_a_killed_server_lacks() -> None:
    intent, records = batch_of("ab", "c")
    rig = Rig(Table(faults=["between token and part"]))
    with pytest.raises(Unavailable):
        rig.writer.insert(columns_of(records), intent, is_repeat=False)
    assert not rig.stored()
    rig.writer.insert(columns_of(records), intent, is_repeat=True)
    assert rig.stored() == Counter("abc")


def test_repeat_counts_equal_rows() -> None:
    intent, records = batch_of("aab", "a")
    rig = Rig(Table(tokens={"x"}))
    rig.table.rows[next(iter(zip(*columns_of(records[:1]), strict=True)))] = 2
    rig.writer.insert(columns_of(records), intent, is_repeat=True)
    assert rig.stored() == Counter("aaab")
    assert rig.table.inserts == [(intent.token(), 2)]


def test_first_part_claims_token_of_refused_batch() -> None:
    intent, records = batch_of("abc", "de", "f")
    rig = Rig(Table(refuses=refuses("b")))
    with pytest.raises(DataRejected):
        rig.writer.insert(columns_of(records), intent, is_repeat=False)
    progress = WriteProgress()
    rows = PlacedRows(records, decode_all)
    sent = rig.insert_in_parts(rows, intent, {0, 1, 2}, progress)
    assert rig.stored() == Counter("acdef")
    assert rig.dead == [(0, 11)]
    assert [(r.reason, r.record.offset()) for r in sent] == [("refused_by_clickhouse", 11)]
    assert rig.table.inserts[0] == (intent.token(), 1)
    # Another worker, for which the column takes the row now, cannot insert the batch as a whole.
    rig.table.refuses = lambda row: False
    rig.writer.insert(columns_of(records), intent, is_repeat=False)
    assert rig.stored() == Counter("acdef")


def test_batch_inserted_whole_elsewhere_is_not_split() -> None:
    intent, records = batch_of("abc", "de")
    rig = Rig(Table())
    rig.writer.insert(columns_of(records), intent, is_repeat=False)
    rig.table.refuses = refuses("b")
    rows = PlacedRows(records, decode_all)
    rig.insert_in_parts(rows, intent, {0, 1}, WriteProgress())
    assert rig.stored() == Counter("abcde")


def test_owner_alone_dead_letters_bad_rows() -> None:
    intent, records = batch_of("ab", "cd", ["invalid", "e"])
    rig = Rig(Table(refuses=refuses("b", "c")))
    rows = PlacedRows(records, decode_all)
    progress = WriteProgress()
    assert rig.writer.send_rejected(rows.rejected, {0}, progress) == 0
    rig.insert_in_parts(rows, intent, {0}, progress)
    assert rig.dead == [(0, 11)]
    assert rig.writer.send_rejected(rows.rejected, {1, 2}, WriteProgress()) == 1
    rig.insert_in_parts(rows, intent, {1, 2}, WriteProgress())
    assert rig.dead == [(0, 11), (2, 10), (1, 10)]
    assert rig.stored() == Counter("ade")


def test_next_attempt_sends_no_dead_letter_again() -> None:
    intent, records = batch_of("ab", ["invalid", "c"])
    rig = Rig(Table(refuses=refuses("a"), faults=["not done"]))
    rows, progress = PlacedRows(records, decode_all), WriteProgress()
    rig.writer.send_rejected(rows.rejected, {0, 1}, progress)
    with pytest.raises(Unavailable):
        rig.insert_in_parts(rows, intent, {0, 1}, progress)
    rig.writer.send_rejected(rows.rejected, {0, 1}, progress)
    rig.insert_in_parts(rows, intent, {0, 1}, progress)
    assert rig.dead == [(1, 10), (0, 10)]
    assert rig.stored() == Counter("bc")


def test_invalid_records_of_later_partition_are_sent() -> None:
    _, records = batch_of(["invalid"], ["invalid"])
    rig, progress = Rig(Table()), WriteProgress()
    rows = PlacedRows(records, decode_all)
    for owned in ({0}, {0, 1}, {0, 1}):
        rig.writer.send_rejected(rows.rejected, owned, progress)
    assert rig.dead == [(0, 10), (1, 10)]


faults = st.lists(
    st.sampled_from(["none", "not done", "answer lost", "between token and part", "worker killed"]),
    max_size=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    names=st.lists(st.text("abcde", max_size=5), min_size=1, max_size=3),
    bad=st.lists(st.sampled_from("abc"), max_size=2),
    column_changes=st.booleans(),
    forgets=st.booleans(),
    struck=faults,
    owners=st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_workers_in_turn_insert_each_row_once(
    names: list[str],
    bad: list[str],
    column_changes: bool,
    forgets: bool,
    struck: list[str],
    owners: list[int],
) -> None:
    """Workers take over from each other wherever a server or a worker dies; equal rows included."""
    intent, records = batch_of(*names)
    if not records:
        return
    rig = Rig(Table(refuses=refuses(*bad), faults=struck))
    is_repeat = False
    for attempt in range(40):
        if column_changes and attempt == 2:
            rig.table.refuses = lambda row: False
        if forgets and attempt == 3:
            rig.table.tokens.clear()
        owned = {owners[attempt % len(owners)]}
        try:
            attempt_to_write(rig, intent, records, owned, is_repeat=is_repeat)
        except (Unavailable, Killed):
            is_repeat = True
        else:
            break
    refused = set() if column_changes and attempt >= 2 else set(bad)
    everything = Counter("".join(names))
    for name, count in everything.items():
        stored = rig.stored()[name]
        assert stored == count if name not in refused else stored in (0, count)


def attempt_to_write(
    rig: Rig, intent: Intent, records: list[FakeRecord], owned: set[int], *, is_repeat: bool
) -> None:
    try:
        rig.writer.insert(columns_of(records), intent, is_repeat=is_repeat)
    except DataRejected:
        rig.insert_in_parts(PlacedRows(records, decode_all), intent, owned, WriteProgress())


def test_rejected_rows_keep_their_records() -> None:
    _, records = batch_of(["a", "invalid", "b"])
    rows = PlacedRows(records, decode_all)
    assert rows.rejected == [RejectedRecord(records[1], *_reason(records[1]))]
    (index,) = rows.within(PartitionRange(0, 11, 13))
    assert rows.records[index] == records[2]
    assert rows.columns[3][index] == b"b"


def _reason(bad: FakeRecord) -> tuple[str, str]:
    ((_, reason, detail),) = decode_all([bad.payload]).invalid
    return reason, detail
