import pytest

from octane_analytics.api.raw_sql.quoted_names import Probed, check, unquoted, without_probe
from octane_analytics.errors import QueryError


def probed(*, names: tuple[str, ...] = (), patterns: tuple[str, ...] = ()) -> Probed:
    return Probed(
        "123",
        [name.encode().hex().upper() for name in names],
        [],
        [pattern.encode().hex() for pattern in patterns],
        False,
    )


@pytest.mark.parametrize(
    "name", ["a", "a b", "Ünï", "a,b", "p50:ms", "it's", "a(b)", "", "日本", "x.y"]
)
def test_harmless_name_is_allowed(name: str) -> None:
    found = probed(names=(f'"{name}"',))
    check(found)
    assert unquoted(found) == [name]


@pytest.mark.parametrize(
    "name",
    [
        "a\nb", "a\rb", "a\tb", "a\0b", "a\x0bb", "a\x1cb", "a\x85b", "a\u2028b", "a\u2029b",
        "a\u200bb", "a\u202eb", "a\xa0b", "a\ufeff", "a\x7f", "a\\nb", "a\\x0ab", "a\\", "a, b",
        "a: b", ", ", ": ",
    ],
)  # fmt: skip
def test_name_readable_as_structure_is_rejected(name: str) -> None:
    with pytest.raises(QueryError, match="quoted name") as raised:
        check(probed(names=(f"`{name}`",)))
    assert raised.value.status == 403
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("pattern", "is_allowed"),
    [
        ("'^a'", True),
        (r"'\\d+'", True),
        (r"'it\'s'", True),
        (r"'a\nb'", False),
        ("'a\u2028'", False),
    ],
)
def test_pattern_must_be_one_line(pattern: str, is_allowed: bool) -> None:
    if is_allowed:
        check(probed(patterns=(pattern,)))
    else:
        with pytest.raises(QueryError, match="pattern"):
            check(probed(patterns=(pattern,)))


def test_name_that_is_not_utf8_is_rejected() -> None:
    with pytest.raises(QueryError, match="UTF-8"):
        check(Probed("1", [], ["60FF60"], [], False))


def test_identifier_parameter_is_rejected() -> None:
    with pytest.raises(QueryError, match="Identifier"):
        check(Probed("1", [], [], [], True))


def test_probe_is_removed_from_a_message() -> None:
    message = "Syntax error: x: In scope WITH 'a' AS statement, b."
    assert without_probe(message) == "Syntax error: x"
