"""Intents survive their text form, fit into it, and name one batch by one token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import ConfigError
from octane_analytics.pipeline.intents import (
    MAX_COMMIT_BYTES,
    MAX_METADATA_BYTES,
    MAX_SHARD_BYTES,
    Intent,
    MetadataRoom,
    completed,
    parse_intent,
    pending_intent,
)
from octane_analytics.types import (
    Committed,
    LogIdentity,
    OffsetRange,
    PartitionRange,
    TopicPartition,
)
from tests.support import version_1

TOPIC = "octane.events"
LOG = LogIdentity("MkU3OEVBNTcwNTJENDM2Qg", "sUrlbXlhQHeAh4LFmtkVJA", "")
LAST_OFFSET = 2**63 - 1

texts = st.text(max_size=30)
logs = st.builds(LogIdentity, texts, texts, texts)
kafka_logs = st.builds(
    LogIdentity,
    st.text("abcXYZ019_-", min_size=22, max_size=22),
    st.text("abcXYZ019_-", min_size=22, max_size=22),
    st.text(max_size=10),
)
firsts = st.one_of(st.integers(0, 300), st.integers(0, LAST_OFFSET - 1))


@st.composite
def ranges(draw: st.DrawFn, max_size: int = 12) -> tuple[PartitionRange, ...]:
    numbers = draw(
        st.sets(st.one_of(st.integers(0, 200), st.integers(0, 2**31 - 1)), max_size=max_size)
    )
    found = []
    for number in sorted(numbers):
        first = draw(firsts)
        end = draw(
            st.one_of(st.integers(first + 1, min(first + 300, LAST_OFFSET)), st.just(LAST_OFFSET))
        )
        found.append(PartitionRange(number, first, end))
    return tuple(found)


shards = st.one_of(
    st.just(""), st.text("abcXYZ019_-", max_size=20), st.text(max_size=10), st.just("/tables/01/e")
)


def intent(*items: tuple[int, int, int], log: LogIdentity = LOG) -> Intent:
    return Intent(TOPIC, log, tuple(PartitionRange(*item) for item in items))


@given(log=logs, items=ranges(), shard=shards)
def test_intent_is_what_its_metadata_says(
    log: LogIdentity, items: tuple[PartitionRange, ...], shard: str
) -> None:
    announced = Intent(TOPIC, log, items, shard=shard if items else "")
    metadata = announced.metadata()
    assert metadata.isascii()
    assert parse_intent(TOPIC, 0, metadata) == announced


@given(
    st.lists(
        st.tuples(logs, ranges(max_size=3), shards).filter(lambda batch: batch[1] or not batch[2]),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_different_batches_have_different_tokens(
    pair: list[tuple[LogIdentity, tuple[PartitionRange, ...], str]],
) -> None:
    one, other = (Intent(TOPIC, log, items, shard=shard) for log, items, shard in pair)
    assert one.metadata() != other.metadata()
    assert one.token() != other.token()


@given(metadata=st.text())
def test_metadata_of_other_programs_is_not_ours(metadata: str) -> None:
    if not metadata.startswith("octane"):
        assert parse_intent(TOPIC, 0, metadata) is None


@given(
    items=ranges(),
    at=st.integers(0, 500),
    change=st.sampled_from(["insert", "delete", "replace"]),
    character=st.one_of(st.characters(), st.just(";")),
    shard=shards,
)
def test_damaged_metadata_is_refused_or_names_another_batch(
    items: tuple[PartitionRange, ...], at: int, change: str, character: str, shard: str
) -> None:
    whole = Intent(TOPIC, LOG, items, shard=shard if items else "").metadata()
    at %= len(whole)
    rest = whole[at:] if change == "insert" else whole[at + 1 :]
    damaged = whole[:at] + ("" if change == "delete" else character) + rest
    try:
        found = parse_intent(TOPIC, 0, damaged)
    except ConfigError:
        return
    # What is accepted is the only text of what it means.
    assert found is None or found.version == 1 or found.metadata() == damaged


@pytest.mark.parametrize(
    "metadata",
    [
        "octane2;",
        "octane2;;cluster;topic",
        "octane2;;cluster;topic;;",
        "octane2;AA;cluster;topic;",
        "octane2;AAAA;cluster;topic;",  # an empty range
        "octane2;AACA;cluster;topic;",  # ends within a number
        "octane2;AAAB=;cluster;topic;",
        "octane2;AAAB\n;cluster;topic;",
        "octane2;AAAB;clu ster;topic;",
        "octane2;AAABAAAB;cluster;topic;",  # one partition twice
        "octane2;;cluster;topic;;shard",  # nothing pending, in a shard
        "octane2;AAAB;cluster;topic;;",  # an empty shard
        "octane2;AAAB;cluster;topic;;a;b",
        "octane2;AAAB;cluster;topic;;/path",
        "octane3;AAAB;cluster;topic;",
        "octane10;anything",
        "octane1;",
        "octane1;9-7;cluster;topic;",
        "octane1;seven-9;cluster;topic;",
        "octane1;7-99999999999999999999;cluster;topic;",
    ],
)
def test_unreadable_intent_is_refused_with_advice(metadata: str) -> None:
    with pytest.raises(ConfigError, match=r"octane\.events\[3\].*newer version") as caught:
        parse_intent(TOPIC, 3, metadata)
    assert "\n" not in str(caught.value)


@given(first=st.integers(0, 10**12), length=st.integers(1, 10**6), log=kafka_logs)
def test_version_1_intent_keeps_range_and_token(first: int, length: int, log: LogIdentity) -> None:
    span = OffsetRange(first, first + length)
    old = version_1.Intent(span, log)
    found = pending_intent(TOPIC, 5, Committed(first, old.metadata()))
    assert found is not None
    assert found.version == 1
    assert found.ranges == (PartitionRange(5, first, first + length),)
    whole = version_1.token(TopicPartition(TOPIC, 5), old)
    assert found.token() == whole
    part = OffsetRange(first, first + (length + 1) // 2)
    assert found.part_token(PartitionRange(5, part.first, part.end)) == version_1.part_token(
        whole, part
    )


@given(first=st.integers(0, 10**12), log=kafka_logs)
def test_version_1_completion_has_nothing_pending(first: int, log: LogIdentity) -> None:
    metadata = version_1.Intent(OffsetRange(first, first), log).metadata()
    found = parse_intent(TOPIC, 5, metadata)
    assert found is not None
    assert found.log == log
    assert not found.is_pending
    assert pending_intent(TOPIC, 5, Committed(first, metadata)) is None


def test_version_1_reads_completion_as_nothing_pending() -> None:
    # So a drained group can go back to the older version.
    assert version_1.parse_intent(completed(TOPIC, LOG)) is None


@given(log=kafka_logs, offset=st.integers(0, LAST_OFFSET))
def test_completion_has_nothing_pending(log: LogIdentity, offset: int) -> None:
    metadata = completed(TOPIC, log)
    found = parse_intent(TOPIC, 0, metadata)
    assert found == Intent(TOPIC, log, ())
    assert pending_intent(TOPIC, 0, Committed(offset, metadata)) is None


def test_batch_without_shard_keeps_its_text() -> None:
    # Written and read by releases that know one shard only.
    assert intent((0, 5, 9)).metadata() == (
        "octane2;AAUE;MkU3OEVBNTcwNTJENDM2Qg;sUrlbXlhQHeAh4LFmtkVJA;"
    )
    assert intent((0, 5, 9)).token() == "octane2/octane.events/5babee7fad8489c02cdbe242d1d6a019"


@given(shard=st.text(min_size=1, max_size=30))
def test_shard_is_part_of_the_token(shard: str) -> None:
    batch = intent((0, 5, 9))
    token = batch.token()  # encodes the batch before it has a shard
    placed = batch.on_shard(shard)
    assert placed.ranges == batch.ranges
    assert placed.token() != token
    assert placed.metadata().startswith(f"{batch.metadata()};")


def test_shard_with_long_identity_is_refused() -> None:
    assert intent((0, 5, 9)).on_shard("s" * MAX_SHARD_BYTES).shard
    with pytest.raises(ConfigError, match="shorter `shard` macro"):
        intent((0, 5, 9)).on_shard("s" * (MAX_SHARD_BYTES + 1))
    with pytest.raises(ConfigError, match="shorter `shard` macro"):
        intent((0, 5, 9)).on_shard("é" * (MAX_SHARD_BYTES // 6 + 1))


def test_intent_is_void_after_offset_moved() -> None:
    announced = intent((0, 5, 9), (2, 7, 8))
    metadata = announced.metadata()
    assert pending_intent(TOPIC, 0, Committed(5, metadata)) == announced
    assert pending_intent(TOPIC, 2, Committed(7, metadata)) == announced
    assert pending_intent(TOPIC, 0, Committed(6, metadata)) is None
    assert pending_intent(TOPIC, 1, Committed(5, metadata)) is None
    assert pending_intent(TOPIC, 0, Committed(None, metadata)) is None
    assert pending_intent(TOPIC, 0, Committed(5, "")) is None


@pytest.mark.parametrize(
    "items",
    [
        [(1, 0, 1), (0, 0, 1)],
        [(0, 0, 1), (0, 1, 2)],
        [(0, 5, 5)],
        [(0, 5, 4)],
        [(-1, 0, 1)],
        [(0, -1, 1)],
        [(0, 0, 2**63)],
        [(2**31, 0, 1)],
    ],
)
def test_intent_refuses_ranges_that_name_no_batch(items: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="invalid ranges"):
        intent(*items)


@given(
    log=kafka_logs,
    members=st.lists(
        st.tuples(st.integers(0, 2**31 - 1), firsts, st.integers(1, 2**35 - 1)),
        max_size=400,
        unique_by=lambda item: item[0],
    ),
)
def test_room_keeps_metadata_and_commit_below_their_limits(
    log: LogIdentity, members: list[tuple[int, int, int]]
) -> None:
    room = MetadataRoom(log)
    taken = [
        PartitionRange(number, first, min(first + length, LAST_OFFSET))
        for number, first, length in members
        if room.take(number, first)
    ]
    metadata = Intent(TOPIC, log, tuple(sorted(taken))).metadata()
    assert len(metadata) <= MAX_METADATA_BYTES
    if taken:
        metadata = Intent(TOPIC, log, tuple(sorted(taken)), shard="s" * MAX_SHARD_BYTES).metadata()
        assert len(metadata) <= MAX_METADATA_BYTES + 1 + MAX_SHARD_BYTES
    assert len(metadata) * len(taken) <= MAX_COMMIT_BYTES


def test_room_holds_128_partitions_of_busy_topic() -> None:
    room = MetadataRoom(LOG)
    assert all(room.take(number, 5_000_000_000) for number in range(128))


def test_room_refuses_an_epoch_that_fills_the_metadata() -> None:
    with pytest.raises(ConfigError, match="shorter KAFKA_LOG_EPOCH"):
        MetadataRoom(LOG._replace(epoch="e" * 1_950))
