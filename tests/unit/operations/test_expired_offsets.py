"""Detection, with a log and a table in memory, of groups that would insert stored events again."""

import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.operations.expired_offsets import (
    MovedWithinBatch,
    StoredRecord,
    find_stored_record,
)
from octane_analytics.pipeline.intents import Intent as Batch
from octane_analytics.pipeline.intents import completed
from octane_analytics.types import (
    Committed,
    LogIdentity,
    OffsetRange,
    PartitionRange,
    Polled,
    TopicPartition,
)
from tests.fakes.kafka import TOPIC, FakeRecord
from tests.support.version_1 import Intent

LOG = LogIdentity("cluster", "topic-1", "")
NOTHING = Committed(None, "")


def event(partition: int, offset: int) -> bytes:
    return json.dumps(
        {
            "app_id": "openstream",
            "event_name": "play",
            "user_id": f"{partition}-{offset}",
            "timestamp": "2026-02-02T12:00:00Z",
        }
    ).encode()


class FakeRetainedLog:
    topic = TOPIC
    group = "workers"

    def __init__(
        self, held: Mapping[int, OffsetRange], committed: Mapping[int, Committed] | None = None
    ) -> None:
        self._held = held
        self._committed = dict.fromkeys(held, NOTHING) | dict(committed or {})
        self._spans: dict[int, OffsetRange] = {}
        self.begun: list[dict[int, OffsetRange]] = []
        self.payloads: dict[tuple[int, int], bytes | None] = {}
        self.is_stuck = False
        self.gone_at: list[int] = []

    @property
    def is_done(self) -> bool:
        return not self._spans

    def partitions(self) -> list[int]:
        return list(self._held)

    def retained_ranges(self, partitions: Sequence[int]) -> Mapping[int, OffsetRange]:
        return {number: self._held[number] for number in partitions}

    def log_ends(self, partitions: Sequence[int]) -> Mapping[int, int]:
        return {number: self._held[number].end for number in partitions}

    def committed(self, partitions: Sequence[int]) -> Mapping[int, Committed]:
        return self._committed

    def identity(self) -> LogIdentity:
        return LOG

    def start_reading(self, spans: Mapping[int, OffsetRange]) -> None:
        self._spans = dict(spans)
        self.begun.append(dict(spans))

    def poll(self, max_records: int, timeout_seconds: float) -> Polled:
        if self.is_stuck:
            return Polled([])
        if len(self.begun) - 1 in self.gone_at:
            raise OctaneError("no longer holds the offsets being read")
        spans, self._spans = self._spans, {}
        return Polled(
            [
                FakeRecord(
                    TopicPartition(TOPIC, number),
                    offset,
                    self.payloads.get((number, offset), event(number, offset)),
                )
                for number, span in spans.items()
                for offset in range(span.first, span.end)
            ]
        )


class FakeTable:
    table = "default.ai_analytics_events"

    def __init__(self, *users: str) -> None:
        self._users = set(users)

    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]:
        assert columns[0], "queried without rows"
        texts = (v.decode() if isinstance(v, bytes) else str(v) for v in columns[3])
        return [int(text in self._users) for text in texts]


def users(partition: int, first: int, end: int) -> list[str]:
    return [f"{partition}-{offset}" for offset in range(first, end)]


class LaterCommits(FakeRetainedLog):
    """Log of a group whose other workers commit, and insert, after the offsets were read first."""

    def __init__(self, held: Mapping[int, OffsetRange], later: Sequence[int]) -> None:
        super().__init__(held)
        self._later = later
        self._reads = 0

    def committed(self, partitions: Sequence[int]) -> Mapping[int, Committed]:
        self._reads += 1
        valid = Committed(5, completed(TOPIC, LOG))
        later = dict.fromkeys(self._later, valid) if self._reads > 1 else {}
        return self._committed | later


def test_rows_of_workers_that_start_meanwhile_are_ignored() -> None:
    log = LaterCommits({0: OffsetRange(0, 40), 1: OffsetRange(0, 40)}, later=[0, 1])
    assert find(log, *users(0, 0, 5), *users(1, 0, 5)) is None
    log = LaterCommits({0: OffsetRange(0, 40), 1: OffsetRange(0, 40)}, later=[0])
    found = find(log, *users(0, 0, 5), *users(1, 0, 5))
    assert isinstance(found, StoredRecord)
    assert found.partitions == (1,)
    assert found.partition.partition == 1


def find(log: FakeRetainedLog, *stored: str) -> StoredRecord | MovedWithinBatch | None:
    return find_stored_record(log, FakeTable(*stored), 10.0)


@given(
    first=st.integers(0, 5),
    length=st.integers(1, 300),
    share=st.floats(0.0, 1.0),
    partitions=st.integers(1, 5),
    data=st.data(),
)
def test_stored_beginning_of_log_is_found(
    first: int, length: int, share: float, partitions: int, data: st.DataObject
) -> None:
    end = first + length
    stored = first + max(1, round(length * share))
    which = data.draw(st.integers(0, partitions - 1))
    log = FakeRetainedLog({number: OffsetRange(first, end) for number in range(partitions)})
    found = find(log, *users(which, first, stored))
    assert isinstance(found, StoredRecord)
    assert (found.partitions, found.partition.partition) == (tuple(range(partitions)), which)
    assert first <= found.offset < stored


@given(gap=st.integers(0, 500), length=st.integers(100, 1000))
def test_stored_half_of_log_is_found_anywhere(gap: int, length: int) -> None:
    stored_from = min(gap, length // 2)
    log = FakeRetainedLog({0: OffsetRange(0, length)})
    assert find(log, *users(0, stored_from, stored_from + length // 2)) is not None


@pytest.mark.parametrize(
    ("held", "committed"),
    [
        ({0: OffsetRange(0, 0), 1: OffsetRange(9, 9)}, {}),
        ({0: OffsetRange(0, 9)}, {0: Committed(9, "")}),
        ({0: OffsetRange(0, 9)}, {0: Committed(4, completed(TOPIC, LOG))}),
        ({0: OffsetRange(0, 9)}, {0: Committed(12, Intent(OffsetRange(12, 12), LOG).metadata())}),
        ({0: OffsetRange(0, 9)}, {0: Committed(4, Intent(OffsetRange(4, 7), LOG).metadata())}),
    ],
)
def test_log_with_valid_offsets_is_not_sampled(
    held: Mapping[int, OffsetRange], committed: Mapping[int, Committed]
) -> None:
    log = FakeRetainedLog(held, committed)
    assert find(log, *users(0, 0, 9)) is None
    assert not log.begun


MOVED = st.sampled_from(
    [
        "",
        "another consumer's",
        completed(TOPIC, LOG._replace(cluster_id="elsewhere")),
        Intent(OffsetRange(90, 95), LOG).metadata(),  # moved away from its intent
    ]
)


@given(
    first=st.integers(0, 5),
    length=st.integers(1, 60),
    share=st.floats(0.0, 1.0),
    metadata=MOVED,
)
def test_offset_moved_before_stored_records_is_found(
    first: int, length: int, share: float, metadata: str
) -> None:
    end = first + length
    at = first + round((length - 1) * share)
    log = FakeRetainedLog(
        {0: OffsetRange(first, end), 1: OffsetRange(0, 9)},
        {0: Committed(at, metadata), 1: Committed(9, completed(TOPIC, LOG))},
    )
    found = find(log, *users(0, at, end))
    assert isinstance(found, StoredRecord)
    assert (found.moved, found.partitions) == ({0: at}, (0,))
    assert f"partition 0 to {at}" in found.explain("workers", "default.events")
    assert find(log, *users(0, first, at)) is None


@given(at=st.none() | st.integers(0, 20), end=st.integers(1, 20), is_named=st.booleans())
def test_offset_moved_within_pending_batch_is_found(
    at: int | None, end: int, is_named: bool
) -> None:
    """Partition 1 has the intent of a batch whose rows are not in the table yet."""
    ranges = [PartitionRange(0, 0, end)] * is_named + [PartitionRange(1, 3, 7)]
    batch = Batch(TOPIC, LOG, tuple(ranges))
    log = FakeRetainedLog(
        {number: OffsetRange(0, 20) for number in range(2)},
        {0: Committed(at, ""), 1: Committed(3, batch.metadata())},
    )
    found = find(log)
    if is_named and (at or 0) < end:
        assert found == MovedWithinBatch(TOPIC, {0: at or 0}, (0, 1))
        text = found.explain("workers", "default.events")
        assert f"partition 0 to {at or 0}" in text
        assert "offsets set --to end --drop-intents" in text
        assert "\n" not in text
    else:
        assert found is None


def test_foreign_offset_after_end_counts_as_absent() -> None:
    log = FakeRetainedLog(
        {0: OffsetRange(0, 9), 1: OffsetRange(0, 9)}, {0: Committed(12, ""), 1: Committed(9, "")}
    )
    found = find(log, "0-0")
    assert isinstance(found, StoredRecord)
    assert found.partitions == (0,)


def test_many_partitions_get_fewer_samples_each() -> None:
    log = FakeRetainedLog({number: OffsetRange(0, 1000) for number in range(200)})
    assert find(log) is None
    assert len(log.begun) == 2


def test_invalid_records_do_not_shift_sampled_rows() -> None:
    log = FakeRetainedLog({0: OffsetRange(0, 4)})
    log.payloads = {(0, 0): b"{", (0, 2): None}
    found = find(log, "0-3")
    assert isinstance(found, StoredRecord)
    assert found.offset == 3
    log.payloads = {(0, number): b"not an event" for number in range(4)}
    assert find(log, "0-3") is None


def test_sample_removed_by_retention_is_skipped() -> None:
    log = FakeRetainedLog({0: OffsetRange(0, 80)})
    log.gone_at = [0]
    found = find(log, *users(0, 0, 80))
    assert isinstance(found, StoredRecord)
    assert found.offset == 10


def test_sampling_without_records_raises_unavailable() -> None:
    log = FakeRetainedLog({0: OffsetRange(0, 4)})
    log.is_stuck = True
    times = iter(range(0, 1000, 6))
    with pytest.raises(Unavailable, match="could not read the retained records"):
        find_stored_record(log, FakeTable(), 10.0, lambda: next(times))


def test_explanation_is_one_line_with_all_options() -> None:
    text = StoredRecord((0, 3), TopicPartition(TOPIC, 3), 17).explain("workers", "default.events")
    assert "\n" not in text
    for part in ("group workers", "partitions 0, 3", "octane.events[3] offset 17", "--to end",
                 "replay --from-offset beginning", "--to beginning"):  # fmt: skip
        assert part in text
