from octane_analytics.cli.sandbox.replica_rows import ShardRows


def test_equal_replicas_are_one_number() -> None:
    shard = ShardRows(2, {"a:1": 1234, "b:1": 1234})
    assert shard.are_equal
    assert str(shard) == "shard 2: 1,234 rows on each of 2 replicas"


def test_single_server_of_a_shard_is_equal() -> None:
    shard = ShardRows(1, {"a:1": 0})
    assert shard.are_equal
    assert str(shard) == "shard 1: 0 rows"


def test_differing_replicas_are_listed() -> None:
    shard = ShardRows(1, {"a:1": 5, "b:1": 4})
    assert not shard.are_equal
    assert str(shard) == "shard 1: its replicas differ: a:1 has 5, b:1 has 4"
