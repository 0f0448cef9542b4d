"""Rules of the delivery protocol; test_delivery_protocol checks their combination."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from octane_analytics.pipeline.delivery_ledger import (
    DeliveryLedger,
    Intent,
    StartPosition,
    parse_intent,
    part_token,
    token,
)

from octane_analytics.types import Commit, Committed, LogIdentity, OffsetRange, TopicPartition

LOG = LogIdentity("cluster", "topic-1", "")
P0 = TopicPartition("octane.events", 0)
P1 = TopicPartition("octane.events", 1)


def intent(first: int, end: int, log: LogIdentity = LOG) -> str:
    return Intent(OffsetRange(first, end), log).metadata()


def announced(*spans: tuple[TopicPartition, OffsetRange]) -> DeliveryLedger:
    ledger = DeliveryLedger()
    for partition, span in spans:
        ledger.assign(partition, Committed(span.first, ""), LOG)
    ledger.announce(dict(spans))
    ledger.accept(dict(spans))
    return ledger


def test_assign_without_commit_starts_at_earliest() -> None:
    ledger = DeliveryLedger()
    assert ledger.assign(P0, Committed(None, ""), LOG) == StartPosition(None)
    assert ledger.token(P0) is None
    assert P0 in ledger
    assert P1 not in ledger


def test_assign_without_pending_range_starts_at_offset() -> None:
    assert DeliveryLedger().assign(P0, Committed(7, ""), LOG) == StartPosition(7)


@pytest.mark.parametrize(
    "metadata",
    [
        "by somebody else",
        "octane1",
        "octane1;",
        "octane1;7-9",
        "octane1;7-9;cluster;topic-1",
        "octane1;7;cluster;topic-1;",
        "octane1;9-7;cluster;topic-1;",
        "octane1;-7-9;cluster;topic-1;",
        "octane1;7-9 ;cluster;topic-1;",
        "octane1;seven-9;cluster;topic-1;",
        "octane2;7-9;cluster;topic-1;",
        " octane1;7-9;cluster;topic-1;",
    ],
)
def test_assign_with_foreign_metadata_starts_at_offset(metadata: str) -> None:
    assert parse_intent(metadata) is None
    assert DeliveryLedger().assign(P0, Committed(7, metadata), LOG) == StartPosition(7)


def test_assign_recovers_announced_range_under_its_token() -> None:
    ledger = DeliveryLedger()
    assert ledger.assign(P0, Committed(7, intent(7, 19)), LOG) == StartPosition(
        7, OffsetRange(7, 19)
    )
    assert ledger.token(P0) == token(P0, Intent(OffsetRange(7, 19), LOG))
    assert ledger.token(P0) == announced((P0, OffsetRange(7, 19))).token(P0)


def test_assign_with_moved_offset_ignores_intent() -> None:
    ledger = DeliveryLedger()
    assert ledger.assign(P0, Committed(3, intent(7, 19)), LOG) == StartPosition(3)
    assert ledger.token(P0) is None
    assert ledger.assign(P1, Committed(None, intent(7, 19)), LOG) == StartPosition(None)


def test_assign_reads_recreated_topic_from_beginning() -> None:
    ledger = DeliveryLedger()
    committed = Committed(7, intent(7, 19, LOG._replace(topic_id="topic-0")))
    assert ledger.assign(P0, committed, LOG) == StartPosition(None)
    assert ledger.token(P0) is None


def test_assign_in_other_cluster_starts_at_offset() -> None:
    committed = Committed(7, intent(7, 19, LOG._replace(cluster_id="elsewhere")))
    assert DeliveryLedger().assign(P0, committed, LOG) == StartPosition(7)


def test_assign_in_other_cluster_ignores_topic_id() -> None:
    # The group's offsets were copied there, with this one set on purpose.
    committed = Committed(7, intent(7, 19, LogIdentity("elsewhere", "topic-0", "")))
    assert DeliveryLedger().assign(P0, committed, LOG) == StartPosition(7)


def test_assign_after_epoch_change_starts_at_offset() -> None:
    committed = Committed(7, intent(7, 19, LOG._replace(epoch="before")))
    assert DeliveryLedger().assign(P0, committed, LOG) == StartPosition(7)


def test_recreated_topic_with_new_epoch_starts_at_beginning() -> None:
    committed = Committed(7, intent(7, 19, LogIdentity("cluster", "topic-0", "before")))
    assert DeliveryLedger().assign(P0, committed, LOG) == StartPosition(None)


@pytest.mark.parametrize(("then", "now"), [("", "topic-1"), ("topic-1", "")])
def test_assign_recovers_under_identity_of_intent(then: str, now: str) -> None:
    ledger = DeliveryLedger()
    log = LOG._replace(topic_id=then)
    start = ledger.assign(P0, Committed(7, intent(7, 19, log)), LOG._replace(topic_id=now))
    assert start == StartPosition(7, OffsetRange(7, 19))
    assert ledger.token(P0) == token(P0, Intent(OffsetRange(7, 19), log))


def test_assign_replaces_state_of_partition() -> None:
    ledger = announced((P0, OffsetRange(0, 5)))
    ledger.inserted(P0, OffsetRange(0, 5))
    ledger.assign(P0, Committed(0, ""), LOG)
    assert ledger.completions([P0]) == []


def test_announce_commits_first_offset_with_range() -> None:
    ledger = DeliveryLedger()
    ledger.assign(P0, Committed(0, ""), LOG)
    ledger.assign(P1, Committed(4, ""), LOG)
    commits = ledger.announce({P0: OffsetRange(0, 5), P1: OffsetRange(4, 6)})
    assert commits == [Commit(P0, 0, intent(0, 5)), Commit(P1, 4, intent(4, 6))]
    assert ledger.token(P0) is None, "nothing is announced before the coordinator has accepted"


def test_announce_completes_previous_range() -> None:
    ledger = announced((P0, OffsetRange(0, 5)))
    ledger.inserted(P0, OffsetRange(0, 5))
    assert ledger.announce({P0: OffsetRange(5, 8)}) == [Commit(P0, 5, intent(5, 8))]
    ledger.accept({P0: OffsetRange(5, 8)})
    assert ledger.completions([P0]) == [], "the announced range is not inserted"


def test_announce_can_be_repeated_until_accepted() -> None:
    ledger = DeliveryLedger()
    ledger.assign(P0, Committed(0, ""), LOG)
    assert ledger.announce({P0: OffsetRange(0, 5)}) == ledger.announce({P0: OffsetRange(0, 5)})


def test_announce_refuses_second_range_before_insert() -> None:
    ledger = announced((P0, OffsetRange(0, 5)))
    with pytest.raises(ValueError, match="0-5 is not inserted yet"):
        ledger.announce({P0: OffsetRange(5, 8)})


@pytest.mark.parametrize("first", [4, 6])
def test_announce_refuses_range_after_gap(first: int) -> None:
    ledger = announced((P0, OffsetRange(0, 5)))
    ledger.inserted(P0, OffsetRange(0, 5))
    with pytest.raises(ValueError, match="does not follow"):
        ledger.announce({P0: OffsetRange(first, 9)})


def test_inserted_refuses_unannounced_range() -> None:
    ledger = announced((P0, OffsetRange(0, 5)))
    with pytest.raises(ValueError, match="0-4 is not the announced 0-5"):
        ledger.inserted(P0, OffsetRange(0, 4))


def test_completions_cover_only_inserted_partitions() -> None:
    ledger = announced((P0, OffsetRange(0, 5)), (P1, OffsetRange(3, 4)))
    ledger.inserted(P0, OffsetRange(0, 5))
    commits = ledger.completions([P0, P1])
    assert commits == [Commit(P0, 5, intent(5, 5))]
    ledger.completed(commits)
    assert ledger.completions([P0, P1]) == []
    assert ledger.token(P1) is not None


def test_completed_keeps_later_insert() -> None:
    ledger = announced((P0, OffsetRange(0, 5)))
    ledger.inserted(P0, OffsetRange(0, 5))
    stale = ledger.completions([P0])
    ledger.accept({P0: OffsetRange(5, 8)})
    ledger.inserted(P0, OffsetRange(5, 8))
    ledger.completed(stale)
    assert ledger.completions([P0]) == [Commit(P0, 8, intent(8, 8))]


def test_inserted_without_announcement_is_completed() -> None:
    ledger = DeliveryLedger()
    ledger.assign(P0, Committed(2, ""), LOG)
    ledger.inserted(P0, OffsetRange(2, 6))
    assert ledger.completions([P0]) == [Commit(P0, 6, intent(6, 6))]


def test_forget_ignores_unknown_partition() -> None:
    ledger = announced((P0, OffsetRange(0, 5)), (P1, OffsetRange(0, 5)))
    ledger.forget(P0)
    ledger.forget(P0)
    assert ledger.partitions() == [P1]


def test_tokens_of_different_ranges_differ() -> None:
    base = Intent(OffsetRange(1, 23), LOG)
    others = [
        token(P1, base),
        token(TopicPartition("other", 0), base),
        token(P0, Intent(OffsetRange(12, 3 + 20), LOG)),
        token(P0, Intent(OffsetRange(1, 24), LOG)),
        *(token(P0, Intent(base.span, LOG._replace(**{name: "x"}))) for name in LOG._fields),
        # No character can move from one part of the identity into the next.
        token(P0, Intent(base.span, LogIdentity("clustert", "opic-1", ""))),
        part_token(token(P0, base), OffsetRange(1, 12)),
        part_token(token(P0, base), OffsetRange(1, 23)),
    ]
    assert len({token(P0, base), *others}) == len(others) + 1


words = st.text(st.characters(exclude_characters=";", exclude_categories=["Cs"]), max_size=30)
spans = st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)).map(sorted)


@given(spans, words, words, st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_intent_round_trips_through_metadata(
    span: list[int], cluster_id: str, topic_id: str, epoch: str
) -> None:
    original = Intent(OffsetRange(*span), LogIdentity(cluster_id, topic_id, epoch))
    assert parse_intent(original.metadata()) == original


@given(st.text(max_size=60) | st.text(max_size=60).map("octane1;".__add__))
def test_parse_intent_never_raises(metadata: str) -> None:
    found = parse_intent(metadata)
    assert found is None or found.span.first <= found.span.end


def test_completed_offset_of_recreated_topic_is_ignored() -> None:
    ledger = DeliveryLedger()
    ledger.assign(P0, Committed(0, ""), LOG)
    ledger.inserted(P0, OffsetRange(0, 9))
    (commit,) = ledger.completions([P0])
    left = Committed(commit.offset, commit.metadata)
    assert DeliveryLedger().assign(P0, left, LOG) == StartPosition(9)
    assert DeliveryLedger().assign(P0, left, LOG._replace(topic_id="topic-2")) == StartPosition(
        None
    )
