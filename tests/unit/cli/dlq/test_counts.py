import pytest

from octane_analytics.cli.dlq.counts import counts_table

ROW = {
    "letters": 1_234_567,
    "retried": 1_234_000,
    "left": 567,
    "reason": "refused_by_clickhouse",
    "first_ms": 1_770_000_000_000,
    "last_ms": 1_770_009_999_000,
    "not_retryable": 12,
    "duplicates": 3456,
    "pending": 0,
}


@pytest.mark.parametrize("width", [None, 120, 80, 60])
def test_counts_fit_the_terminal_and_lose_columns_by_priority(width: int | None) -> None:
    heading, row = counts_table([ROW], width)
    assert width is None or max(len(heading), len(row)) <= width
    for whole in ("1,234,567", "1,234,000", "567", "refused_by_clickhouse"):
        assert whole in row
    assert ("2026-02-02T02:40:00Z" in row) is (width is None)
    assert ("12 not retryable, 3,456 duplicates of retried ones" in row) is (width is None)


def test_no_messages_are_no_table() -> None:
    assert list(counts_table([], 80)) == []
