import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import ConfigError
from octane_analytics.operations.offset_targets import (
    AtOffsets,
    AtTime,
    Bound,
    PartitionFacts,
    Target,
    consequences,
    parse_target,
    set_to,
)
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.pipeline.start_positions import start_position
from octane_analytics.replay.ranges import BadRange
from octane_analytics.types import Committed, LogIdentity, PartitionRange, TopicPartition

NOW = datetime(2026, 2, 2, 12, tzinfo=UTC)
LOG = LogIdentity("cluster", "topic-id", "")
P0, P1 = TopicPartition("octane.events", 0), TopicPartition("octane.events", 1)
FACTS = {
    P0: PartitionFacts(10, 100, Committed(40, "octane1;40-40;cluster;topic-id;"), 55),
    P1: PartitionFacts(0, 50, Committed(None, ""), None),
}


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("beginning", Bound.BEGINNING),
        ("earliest", Bound.BEGINNING),
        ("end", Bound.END),
        ("latest", Bound.END),
        ("0:5", AtOffsets({0: 5})),
        ("0:5, 3:0", AtOffsets({0: 5, 3: 0})),
        ("2026-02-02T11:00:00Z", AtTime(NOW.timestamp() - 3600)),
        ("-6h", AtTime(NOW.timestamp() - 6 * 3600)),
    ],
)
def test_target_is_a_word_offsets_or_a_time(text: str, target: Target) -> None:
    assert parse_target(text, NOW) == target


@pytest.mark.parametrize(
    "text", ["", "7", "20260202", "0:", "0:1,0:2", "0:-1", "x:1", "noon", "End"]
)
def test_malformed_target_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadRange) as raised:
        parse_target(text, NOW)
    assert "\n" not in str(raised.value)


@given(st.text(max_size=20))
def test_target_parsing_raises_only_bad_range(text: str) -> None:
    with contextlib.suppress(BadRange):
        parse_target(text, NOW)


@pytest.mark.parametrize(
    ("target", "offsets"),
    [
        (Bound.BEGINNING, {P0: 10, P1: 0}),
        (Bound.END, {P0: 100, P1: 50}),
        (AtTime(0.0), {P0: 55, P1: 50}),
        (AtOffsets({1: 7}), {P1: 7}),
    ],
)
def test_set_offsets_carry_identity_of_this_log(
    target: Target, offsets: dict[TopicPartition, int]
) -> None:
    commits = set_to(target, LOG, FACTS)
    assert {commit.partition: commit.offset for commit in commits} == offsets
    for commit in commits:
        where = commit.partition
        start = start_position(
            where.topic, where.partition, Committed(commit.offset, commit.metadata), LOG
        )
        assert (start.offset, start.pending, start.is_of_log) == (commit.offset, None, True)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (AtOffsets({0: 9}), "holds the offsets from 10 to 100"),
        (AtOffsets({0: 101}), "holds the offsets from 10 to 100"),
        (AtOffsets({2: 0}), "partition 2 does not exist: the topic has 0 to 1"),
    ],
)
def test_offset_outside_log_is_refused(target: Target, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        set_to(target, LOG, FACTS)


@pytest.mark.parametrize(
    ("metadata", "is_pending"),
    [
        ("octane1;40-60;cluster;topic-id;", True),
        ("octane1;40-60;cluster;;", True),
        ("octane1;41-60;cluster;topic-id;", False),
        ("octane1;40-60;elsewhere;topic-id;", False),
        ("octane1;40-60;cluster;other-id;", False),
        ("octane1;40-60;cluster;topic-id;another epoch", True),
    ],
)
def test_pending_range_is_refused_without_drop_intents(metadata: str, is_pending: bool) -> None:
    facts = FACTS | {P0: PartitionFacts(10, 100, Committed(40, metadata))}
    if not is_pending:
        assert set_to(AtOffsets({0: 40}), LOG, facts)
        return
    with pytest.raises(ConfigError, match="pending for partitions 0"):
        set_to(Bound.END, LOG, facts)
    assert set_to(AtOffsets({1: 0}), LOG, facts)
    (commit,) = set_to(AtOffsets({0: 60}), LOG, facts, drop_intents=True)
    assert commit.offset == 60


def test_batch_of_other_partition_refuses_named_ones() -> None:
    batch = Intent(P0.topic, LOG, (PartitionRange(0, 30, 40), PartitionRange(1, 5, 9)))
    facts = {
        P0: PartitionFacts(10, 100, Committed(40, completed(P0.topic, LOG))),
        P1: PartitionFacts(0, 50, Committed(5, batch.metadata())),
    }
    with pytest.raises(ConfigError, match="pending for partitions 0:"):
        set_to(AtOffsets({0: 60}), LOG, facts)
    commits = set_to(AtOffsets({0: 60}), LOG, facts, drop_intents=True)
    # Else the next owner of partition 1 would insert the range of partition 0 again.
    assert {c.partition: (c.offset, c.metadata) for c in commits} == {
        P0: (60, completed(P0.topic, LOG)),
        P1: (5, completed(P0.topic, LOG)),
    }


def test_unreadable_intent_is_refused_without_drop_intents() -> None:
    facts = {
        P0: PartitionFacts(10, 100, Committed(40, completed(P0.topic, LOG))),
        P1: PartitionFacts(0, 50, Committed(5, "octane3;what;ever")),
    }
    # Its batch may name any partition.
    with pytest.raises(ConfigError, match=r"octane\.events\[1\].*--drop-intents"):
        set_to(AtOffsets({0: 60}), LOG, facts)
    (commit,) = set_to(AtOffsets({1: 9}), LOG, facts, drop_intents=True)
    assert (commit.partition, commit.offset) == (P1, 9)


def test_consequences_count_skipped_and_repeated_offsets() -> None:
    text = consequences(set_to(Bound.BEGINNING, LOG, FACTS), FACTS)
    assert text == "0 offsets are skipped, 30 are read again"
    assert consequences(set_to(Bound.END, LOG, FACTS), FACTS).startswith(
        "110 offsets are skipped, 0"
    )
