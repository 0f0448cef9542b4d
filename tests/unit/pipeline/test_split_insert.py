"""Workers that insert one batch, whole or in parts, while each is suspended at any insert."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import ConfigError, DataRejected, Unavailable
from octane_analytics.events.event import Columns, Decoded
from octane_analytics.events.packed_columns import SecondsColumn, TextColumn
from octane_analytics.pipeline.dlq_limit import DlqLimit, DlqLimitConfig
from octane_analytics.pipeline.intents import Intent
from octane_analytics.pipeline.repeated_insert import insert_repeated
from octane_analytics.pipeline.split_insert import PlacedRows, SplitInsert
from octane_analytics.types import LogIdentity, PartitionRange, TopicPartition
from tests.fakes.block_table import FakeBlockSink, FakeBlockTable
from tests.fakes.clickhouse import StoredRow
from tests.fakes.clock import FakeClock
from tests.fakes.kafka import FakeRecord

NOW = 1_700_000_000
MONTH = 31 * 86_400
TOPIC = "octane.events"
USERS = "abcd"


class Batch:
    """Batch of one partition; rows lie in two months, and some are equal."""

    def __init__(self, users: Sequence[str]) -> None:
        self.rows = [
            StoredRow(NOW - n % 2 * MONTH, "app", "play", user, "{}")
            for n, user in enumerate(users)
        ]
        log = LogIdentity("cluster", "topic", "")
        self.intent = Intent(TOPIC, log, (PartitionRange(0, 0, len(users)),))
        timestamps, *texts = zip(*self.rows, strict=True)
        self._packed: Columns = (
            SecondsColumn(timestamps),
            *(TextColumn(text.encode() for text in column) for column in texts),
        )
        self.columns: list[list[object]] = [list(column) for column in zip(*self.rows, strict=True)]

    def split(self, sink: FakeBlockSink, *, is_repeat: bool) -> SplitInsert:
        where = TopicPartition(TOPIC, 0)
        records = [FakeRecord(where, n, b"") for n in range(len(self.rows))]
        return SplitInsert(
            sink,
            PlacedRows(records, lambda values: Decoded(self._packed, [])),
            self.intent,
            FakeClock(),
            DlqLimit(DlqLimitConfig()),
            is_repeat=is_repeat,
            is_counted=True,
        )

    def insert(self, sink: FakeBlockSink, *, is_repeat: bool) -> None:
        """Insert the batch as a worker does, through outages."""
        token = self.intent.token()
        while True:
            try:
                if is_repeat:
                    insert_repeated(sink, self.columns, token)
                else:
                    sink.insert_block(self.columns, token, token)
            except Unavailable:
                is_repeat = True
            except DataRejected:
                break
            else:
                return
        split = self.split(sink, is_repeat=is_repeat)
        while True:
            try:
                assert split.run(deadline=1e9)
            except Unavailable:
                continue
            return


@given(
    users=st.lists(st.sampled_from(USERS), min_size=1, max_size=8),
    bad=st.sets(st.sampled_from(USERS), max_size=2),
    steps=st.lists(st.sampled_from(["go", "suspend", "fix", "break", "lost", "half"]), max_size=16),
    reports_drops=st.booleans(),
)
def test_suspended_inserts_take_effect_once(
    users: list[str], bad: set[str], steps: list[str], reports_drops: bool
) -> None:
    """Suspend workers before inserts; meanwhile another one inserts the batch, suspended in its turn."""
    table = FakeBlockTable(lambda: NOW)
    table.reports_drops = reports_drops
    batch = Batch(users)
    pending = list(steps)

    class SuspendedSink(FakeBlockSink):
        def insert_block(
            self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
        ) -> bool | None:
            step = pending.pop(0) if pending else "go"
            if step in ("fix", "break"):
                table.refuses = lambda row: step == "break" and row.user_id in bad
            if step in ("fix", "break", "suspend"):
                batch.insert(SuspendedSink(table), is_repeat=True)
            if step == "lost":
                table.faults.push("insert", Unavailable("answer lost"), is_done=True)
            table.loses_part = lambda month: step == "half"
            try:
                return super().insert_block(columns, token, query_id)
            finally:
                table.loses_part = lambda month: False

    table.refuses = lambda row: row.user_id in bad
    batch.insert(SuspendedSink(table), is_repeat=False)
    table.refuses = lambda row: False
    batch.insert(FakeBlockSink(table), is_repeat=True)
    assert Counter(table.rows) == Counter(batch.rows)


def test_parts_that_stay_invisible_stop_the_worker() -> None:
    """A row policy hides the rows from the user: they are not stored a second time."""
    table = FakeBlockTable(lambda: NOW)
    table.refuses = lambda row: row.user_id == "d"
    table.missing = lambda rows: list(range(len(rows)))  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="does not show them"):
        Batch("abcd").insert(FakeBlockSink(table), is_repeat=False)
    assert Counter(row.user_id for row in table.rows) == Counter("abc")
