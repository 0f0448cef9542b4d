import pytest

from octane_analytics.cli.dlq.counts import counts_table

ROW = {
    "messages": 1_234_567,
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
def test_counts_drop_columns_to_fit_the_terminal(width: int | None) -> None:
    heading, row = counts_table([ROW], width)
    assert width is None or max(len(heading), len(row)) <= width
    for text in ("1,234,567", "1,234,000", "567", "refused_by_clickhouse"):
        assert text in row
    assert ("2026-02-02T02:40:00Z" in row) is (width is None)
    assert ("12 not retryable, 3,456 duplicates of retried ones" in row) is (width is None)


def test_counts_without_messages_are_an_empty_table() -> None:
    assert list(counts_table([], 80)) == []
