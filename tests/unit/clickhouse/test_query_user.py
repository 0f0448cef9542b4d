from octane_analytics.clickhouse.query_user import NO_HASH, hashed, statements
from octane_analytics.settings.loading import load


def test_hash_is_salted_and_not_in_repr() -> None:
    first, second = hashed("hunter2"), hashed("hunter2")
    assert first.digest != second.digest
    assert first.digest not in repr(first)
    assert any(first.digest in statement for statement in statements(load({}).settings, first))


def test_statements_without_password_have_placeholder() -> None:
    assert any(NO_HASH in statement for statement in statements(load({}).settings, None))
