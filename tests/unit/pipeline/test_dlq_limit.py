"""When bad records are too many to be the odd ones."""

import pytest

from octane_analytics.errors import TooManyRejected
from octane_analytics.pipeline.dlq_limit import DlqLimit, DlqLimitConfig


def test_breaker_lets_the_odd_bad_record_through() -> None:
    breaker = DlqLimit(DlqLimitConfig(max_ratio=0.1, max_consecutive=50))
    for _ in range(10_000):
        breaker.record(records=100, rejected=10)


def test_breaker_trips_when_the_share_is_too_large() -> None:
    breaker = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    breaker.record(records=500, rejected=0)
    breaker.record(records=500, rejected=450)
    with pytest.raises(TooManyRejected, match=r"DLQ_MAX_RATIO is 0\.5"):
        breaker.record(records=500, rejected=450)


def test_breaker_judges_no_share_of_a_few_records() -> None:
    breaker = DlqLimit(DlqLimitConfig(max_ratio=0.0, max_consecutive=0))
    breaker.record(records=999, rejected=999)
    with pytest.raises(TooManyRejected):
        breaker.record(records=1, rejected=0)


def test_breaker_notices_a_change_after_long_good_times() -> None:
    breaker = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    for _ in range(1000):
        breaker.record(records=1000, rejected=0)
    for _ in range(5):
        breaker.record(records=1000, rejected=1000)
    with pytest.raises(TooManyRejected):
        breaker.record(records=10_000, rejected=10_000)


def test_breaker_counts_bad_records_in_a_row() -> None:
    breaker = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=10))
    breaker.record(records=9, rejected=9)
    breaker.record(records=1, rejected=0)
    breaker.record(records=9, rejected=9)
    with pytest.raises(TooManyRejected, match="10 records in a row"):
        breaker.record(records=1, rejected=1)


def test_breaker_without_limits_never_trips() -> None:
    breaker = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=0))
    for _ in range(100):
        breaker.record(records=1000, rejected=1000)


def test_breaker_counts_refused_rows_in_a_row() -> None:
    breaker = DlqLimit(DlqLimitConfig(max_ratio=1.0, max_consecutive=10))
    breaker.record(records=100, rejected=0)
    breaker.saw_refused(9, is_counted=True)
    breaker.saw_inserted(0)
    breaker.saw_refused(9, is_counted=True)
    breaker.record(records=100, rejected=0)
    with pytest.raises(TooManyRejected, match="10 rows in a row were refused by ClickHouse"):
        breaker.saw_refused(1, is_counted=True)


@pytest.mark.parametrize("is_counted", [True, False])
def test_breaker_counts_each_refused_record_once_in_the_share(is_counted: bool) -> None:
    breaker = DlqLimit(DlqLimitConfig(max_ratio=0.5, max_consecutive=0))
    if is_counted:
        breaker.record(records=2000, rejected=0)
    for _ in range(1000):
        breaker.saw_inserted(0 if is_counted else 1)
        breaker.saw_refused(1, is_counted=is_counted)
    with pytest.raises(TooManyRejected, match="50% of the last 200"):
        breaker.saw_refused(1, is_counted=is_counted)
