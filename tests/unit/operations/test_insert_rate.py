import pytest

from octane_analytics.operations.insert_rate import describe, highest_rate


@pytest.mark.parametrize(
    ("limit", "processes", "flush_seconds", "rate"),
    [(2.0, 8, 5.0, 2.0), (0.5, 8, 5.0, 1.6), (0.0, 8, 5.0, None), (2.0, 1, 5.0, 2.0)],
)
def test_age_of_batches_may_exceed_limit(
    limit: float, processes: int, flush_seconds: float, rate: float | None
) -> None:
    assert highest_rate(limit, processes, flush_seconds) == rate


def test_description_names_both_times() -> None:
    assert describe(2.0, 8, 5.0) == (
        "at most 2 inserts/s by 8 workers: each inserts every 4 s at most, a batch 5 s after its first "
        "event at the latest"
    )
    # A batch is never older than FLUSH_INTERVAL, whatever the limit.
    assert "every 5 s at most" in describe(0.1, 8, 5.0)
    assert describe(0.0, 8, 5.0).startswith(
        "no limit of inserts: a batch is inserted at BATCH_SIZE"
    )
