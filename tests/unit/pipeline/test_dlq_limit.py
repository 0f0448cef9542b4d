"""Limit of rejected and refused records."""

import pytest

from octane_analytics.errors import TooManyRejected
from octane_analytics.pipeline.dlq_limit import DlqLimit, DlqLimitConfig


def test_occasional_bad_record_passes() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.1, max_consecutive=50))
    for _ in range(10_000):
        limit.record(records=100, rejected=10)


def test_large_share_of_bad_records_raises() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    limit.record(records=500, rejected=0)
    limit.record(records=500, rejected=450)
    with pytest.raises(TooManyRejected, match=r"DLQ_MAX_RATIO is 0\.5"):
        limit.record(records=500, rejected=450)


def test_share_of_few_records_passes() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.0, max_consecutive=0))
    limit.record(records=999, rejected=999)
    with pytest.raises(TooManyRejected):
        limit.record(records=1, rejected=0)


def test_share_limit_reacts_after_many_good_records() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    for _ in range(1000):
        limit.record(records=1000, rejected=0)
    for _ in range(5):
        limit.record(records=1000, rejected=1000)
    with pytest.raises(TooManyRejected):
        limit.record(records=10_000, rejected=10_000)


def test_consecutive_bad_records_raise() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=10))
    limit.record(records=9, rejected=9)
    limit.record(records=1, rejected=0)
    limit.record(records=9, rejected=9)
    with pytest.raises(TooManyRejected, match="10 records in a row"):
        limit.record(records=1, rejected=1)


def test_disabled_limits_never_raise() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=0))
    for _ in range(100):
        limit.record(records=1000, rejected=1000)


def test_consecutive_refused_rows_raise() -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=10))
    limit.record(records=100, rejected=0)
    limit.record_refused(9, is_counted=True)
    limit.record_inserted(0)
    limit.record_refused(9, is_counted=True)
    limit.record(records=100, rejected=0)
    with pytest.raises(TooManyRejected, match="10 rows in a row were refused by ClickHouse"):
        limit.record_refused(1, is_counted=True)


@pytest.mark.parametrize("is_counted", [True, False])
def test_refused_record_counts_once_in_share(is_counted: bool) -> None:
    limit = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    if is_counted:
        limit.record(records=2000, rejected=0)
    for _ in range(1000):
        limit.record_inserted(0 if is_counted else 1)
        limit.record_refused(1, is_counted=is_counted)
    with pytest.raises(TooManyRejected, match="50% of the last 200"):
        limit.record_refused(1, is_counted=is_counted)
