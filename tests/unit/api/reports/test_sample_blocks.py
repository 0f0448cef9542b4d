"""Expansion of the parts of a template that read a sample."""

import pytest

from octane_analytics.api.reports.sample_blocks import expand

WHOLE = """WITH
    {sample:begin}
    event_name = 'a'
    OR event_name = 'b'
    {sample:end}
SELECT count() / {share:Sample} FROM t WHERE {users:Sample}
"""


def test_condition_is_bound_and_lines_stay() -> None:
    expanded = expand(WHOLE, is_sampled=True)
    assert expanded.count("\n") == WHOLE.count("\n")
    assert (
        "AND (\n    event_name = 'a'\n    OR event_name = 'b'\n    )) AS sample_events" in expanded
    )
    assert ":Sample}" not in expanded
    assert "{sample:begin}" not in expanded


@pytest.mark.parametrize("body", ["", "    -- all events\n"])
def test_empty_condition_counts_every_event(body: str) -> None:
    start, rest = WHOLE.split("    event_name = 'a'\n    OR event_name = 'b'\n")
    expanded = expand(start + body + rest, is_sampled=True)
    assert "AND (\n" not in expanded
    assert expanded.count("(") == expanded.count(")")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (WHOLE.replace("{sample:end}", ""), "and, after it, one line {sample:end}"),
        (WHOLE.replace("    {sample:begin}\n", ""), "one line {sample:begin}"),
        (WHOLE + WHOLE, "one line {sample:begin}"),
        (WHOLE.replace("{users:Sample}", "1"), "needs {users:Sample}"),
        (WHOLE.replace("{share:Sample}", "1"), "needs {share:Sample}"),
    ],
)
def test_incomplete_sampling_is_refused(sql: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"is_sampled needs") as refused:
        expand(sql, is_sampled=True)
    assert expected in str(refused.value)


def test_sampling_without_its_declaration_is_refused() -> None:
    with pytest.raises(ValueError, match="needs is_sampled = true"):
        expand(WHOLE, is_sampled=False)
    assert expand("SELECT 1", is_sampled=False) == "SELECT 1"
