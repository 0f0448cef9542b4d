"""Turns of shards follow their weights, and every shard is tried before a batch waits."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.clickhouse.shard_turns import ShardTurns

weights = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any)


@given(weights=weights, first=st.integers(0, 300))
def test_each_round_gives_turns_by_weight(weights: list[int], first: int) -> None:
    turns = ShardTurns(weights, first)
    for _ in range(3):
        chosen = Counter(turns.next_order()[0] for _ in range(sum(weights)))
        assert [chosen[number] for number in range(len(weights))] == weights


@given(weights=weights, first=st.integers(0, 300))
def test_every_order_has_all_weighted_shards(weights: list[int], first: int) -> None:
    order = ShardTurns(weights, first).next_order()
    assert sorted(order) == [number for number, weight in enumerate(weights) if weight]


@given(shards=st.integers(1, 6))
def test_workers_begin_with_different_shards(shards: int) -> None:
    firsts = [ShardTurns([1] * shards, slot).next_order()[0] for slot in range(shards)]
    assert sorted(firsts) == list(range(shards))


def test_equal_shards_take_turns() -> None:
    turns = ShardTurns([1, 1, 1])
    assert [turns.next_order()[0] for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_turns_of_heavy_shard_are_spread() -> None:
    turns = ShardTurns([2, 1])
    assert [turns.next_order()[0] for _ in range(6)] == [0, 1, 0, 0, 1, 0]


def test_shards_without_weight_are_refused() -> None:
    with pytest.raises(ValueError, match="weight 0"):
        ShardTurns([0, 0])
