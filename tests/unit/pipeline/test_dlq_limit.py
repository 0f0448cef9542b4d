"""Limit of rejected and refused records."""

import pytest

from octane_analytics.errors import TooManyRejected
from octane_analytics.pipeline.dlq_limit import DlqLimit, DlqLimitConfig


def count(limit: DlqLimit, records: int, rejected: int) -> None:
    """Count a poll with its rejected records at the end."""
    limit.record(records, rejected, trailing=rejected)


def test_occasional_bad_record_passes() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.1, max_consecutive=50))
    for _ in range(10_000):
        count(limit, 100, 10)


def test_large_share_of_bad_records_raises() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    count(limit, 500, 0)
    count(limit, 500, 450)
    with pytest.raises(TooManyRejected, match=r"DLQ_MAX_RATIO is 0\.5"):
        count(limit, 500, 450)


def test_share_of_few_records_passes() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.0, max_consecutive=0))
    count(limit, 999, 999)
    with pytest.raises(TooManyRejected):
        count(limit, 1, 0)


def test_share_limit_reacts_after_many_good_records() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    for _ in range(1000):
        count(limit, 1000, 0)
    for _ in range(5):
        count(limit, 1000, 1000)
    with pytest.raises(TooManyRejected):
        count(limit, 10_000, 10_000)


def test_consecutive_bad_records_raise() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=10))
    count(limit, 9, 9)
    count(limit, 1, 0)
    count(limit, 4, 3)
    count(limit, 6, 6)
    with pytest.raises(TooManyRejected, match="10 records in a row"):
        count(limit, 1, 1)


def test_disabled_limits_never_raise() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=0))
    for _ in range(100):
        count(limit, 1000, 1000)


def test_consecutive_refused_rows_raise() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=10))
    count(limit, 100, 0)
    limit.record_refused(9, is_counted=True)
    limit.record_inserted(0)
    limit.record_refused(9, is_counted=True)
    count(limit, 100, 0)
    with pytest.raises(TooManyRejected, match="10 rows in a row were refused by ClickHouse"):
        limit.record_refused(1, is_counted=True)


@pytest.mark.parametrize("is_counted", [True, False])
def test_refused_record_counts_once_in_share(is_counted: bool) -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    if is_counted:
        count(limit, 2000, 0)
    for _ in range(1000):
        limit.record_inserted(0 if is_counted else 1)
        limit.record_refused(1, is_counted=is_counted)
    with pytest.raises(TooManyRejected, match="50% of the last 200"):
        limit.record_refused(1, is_counted=is_counted)
