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
    "name",
    ["a", "a b", "Ünï", "a,b", "p50:ms", "it's", "a(b)", "", "日本", "x.y", "toDate(day)"],
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


@pytest.mark.parametrize("name", ["DateTime('file:/x')", "Array(datetime64 (3,'UTC'))"])
def test_name_with_type_of_zone_is_rejected(name: str) -> None:
    with pytest.raises(QueryError, match="looks like a type"):
        check(probed(names=(f"`{name}`",)))


def parameter_type(text: str) -> Probed:
    return Probed("1", [], [], [], False, [text.encode().hex()])


def test_plain_parameter_type_is_allowed() -> None:
    check(parameter_type("Array(Tuple(a UInt8, t DateTime64(3, 'Europe/Berlin')))"))


@pytest.mark.parametrize(
    "text", ["DateTime('file:/x')", "AggregateFunction(sum, UInt64)", "Array("]
)
def test_other_parameter_type_is_rejected(text: str) -> None:
    with pytest.raises(QueryError, match="of a parameter"):
        check(parameter_type(text))


def test_expression_before_asterisk_is_rejected() -> None:
    with pytest.raises(QueryError, match="before"):
        check(Probed("1", [], [], [], False, [], True))


def test_clause_that_the_formatter_drops_is_rejected() -> None:
    with pytest.raises(QueryError, match="UUID"):
        check(Probed("1", [], [], [], False, [], False, True))
