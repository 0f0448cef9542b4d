import pytest

from octane_analytics.operations.insert_rate import describe, highest_rate, window_span


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


def test_window_span_divides_window_by_highest_rate() -> None:
    minutes, text = window_span(10_000, 2.0, 40, 5.0)
    assert minutes == pytest.approx(20.83, abs=0.01)
    assert text == "21 minutes of this host's 8 inserts/s"
    assert window_span(10_000, 0.0, 4, 5.0) == (None, "INSERTS_PER_SECOND=0, no limit")
