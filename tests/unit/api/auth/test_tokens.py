"""Tokens: their rates and their texts."""

import pytest

from octane_analytics.api.auth.tokens import PREFIX, TokenRate, generate, parse_rate


@pytest.mark.parametrize(
    ("text", "burst", "expected"),
    [
        ("20/s", None, TokenRate(20, 20)),
        ("20/s", 1, TokenRate(20, 1)),
        ("30/min", None, TokenRate(0.5, 1)),
        ("36/h", 3, TokenRate(0.01, 3)),
        (None, None, None),
    ],
)
def test_rate_is_parsed(text: str | None, burst: int | None, expected: TokenRate | None) -> None:
    assert parse_rate(text, burst) == expected


@pytest.mark.parametrize(
    ("text", "burst"),
    [
        ("20", None),
        ("0/s", None),
        ("٢/s", None),
        ("-1/s", None),
        ("1/s\n", None),
        (None, 5),
        ("1/s", 0),
    ],
)
def test_invalid_rate_is_refused(text: str | None, burst: int | None) -> None:
    with pytest.raises(ValueError, match=r"must be|needs a rate"):
        parse_rate(text, burst)


def test_generated_tokens_are_long_and_distinct() -> None:
    made = {generate() for _ in range(100)}
    assert len(made) == 100
    assert all(each.startswith(PREFIX) and len(each) == len(PREFIX) + 43 for each in made)
