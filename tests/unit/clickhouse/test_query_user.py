from octane_analytics.clickhouse.query_user import NO_HASH, hashed, statements
from octane_analytics.settings.loading import load


def test_hash_is_salted_and_not_in_repr() -> None:
    first, second = hashed("hunter2"), hashed("hunter2")
    assert first.digest != second.digest
    assert first.digest not in repr(first)
    assert any(first.digest in statement for statement in statements(load({}).settings, first))


def test_statements_without_password_have_placeholder() -> None:
    assert any(NO_HASH in statement for statement in statements(load({}).settings, None))


def test_user_may_read_distributed_table_of_several_shards() -> None:
    one, two = (
        " ".join(
            statements(
                load({"CLICKHOUSE_HOST": hosts, "CLICKHOUSE_CLUSTER": "octane"}).settings, None
            )
        )
        for hosts in ("a,b", "a;b")
    )
    assert "ON default.ai_analytics_events TO" in one
    assert "ai_analytics_events_all" not in one
    assert "ON default.ai_analytics_events TO" in two
    assert "ON default.ai_analytics_events_all TO" in two
    for fixed in ("distributed_product_mode = 'global'", "skip_unavailable_shards = 0"):
        assert fixed in two
