"""Collectors of lag and of the deduplication window, with and without a measurement."""

from collections.abc import Callable, Mapping

import pytest

from octane_analytics.errors import Unavailable
from octane_analytics.runtime.periodic import PeriodicThread
from octane_analytics.telemetry.dedup_window import DedupWindowCollector
from octane_analytics.telemetry.lag_metrics import LagCollector
from octane_analytics.types import Committed, UncommittedLag
from tests.support.command import wait_until


def _values(collector: LagCollector | DedupWindowCollector) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("partition", "")): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def lag_of(messages: int, oldest_at: float | None, held_back: int = 0) -> UncommittedLag:
    return UncommittedLag(Committed(7, ""), 0, 7 + messages, 7 + messages - held_back, oldest_at)


def test_lag_in_seconds_grows_between_updates() -> None:
    now = [1000.0]
    lags = {0: lag_of(5, 990.0), 1: lag_of(0, None), 2: lag_of(3, None, 2)}
    collector = LagCollector(lambda: lags, lambda: now[0])
    collector.update()
    now[0] = 1030.0
    assert _values(collector) == {
        ("analytics_lag_messages", "0"): 5,
        ("analytics_lag_messages", "1"): 0,
        ("analytics_lag_messages", "2"): 3,
        ("analytics_lag_held_back_messages", "0"): 0,
        ("analytics_lag_held_back_messages", "1"): 0,
        ("analytics_lag_held_back_messages", "2"): 2,
        ("analytics_lag_seconds", "0"): 40.0,
        ("analytics_lag_seconds", "1"): 0.0,
        ("analytics_lag_updated_timestamp_seconds", ""): 1000.0,
    }


@pytest.mark.parametrize(
    ("partitions", "seconds"), [(0, 2.0), (32, 2.0), (64, 4.0), (128, 8.0), (9_000, 8.0)]
)
def test_lag_of_wide_topics_is_measured_less_often(partitions: int, seconds: float) -> None:
    lags = {number: lag_of(0, None) for number in range(partitions)}
    assert LagCollector(lambda: lags).update() == seconds


def _measured_by_a_thread(
    measure: Callable[[], Mapping[int, UncommittedLag]], now: Callable[[], float]
) -> tuple[LagCollector, PeriodicThread]:
    """Return a collector whose thread measures once, and then only when it is asked to."""
    collector = LagCollector(measure, now)

    def update() -> float:
        collector.update()
        return 3600.0

    thread = PeriodicThread("lag", update, lambda: None)
    collector.request_update = thread.wake
    return collector, thread


def test_scrape_measures_lag_that_is_old() -> None:
    now, measured = [1000.0], [0]

    def measure() -> Mapping[int, UncommittedLag]:
        measured[0] += 1
        return {0: lag_of(measured[0], None)}

    collector, thread = _measured_by_a_thread(measure, lambda: now[0])
    thread.start()
    wait_until(lambda: collector.total is not None, 30)
    now[0] += 0.9
    assert _values(collector)["analytics_lag_messages", "0"] == 1
    now[0] += 0.2
    # A scrape waits for a moment only, so that one on a busy machine may still get the old values.
    wait_until(lambda: _values(collector)["analytics_lag_messages", "0"] > 1, 30)
    assert _values(collector)["analytics_lag_updated_timestamp_seconds", ""] == now[0]
    thread.stop()


def test_scrape_of_unmeasurable_lag_requests_nothing() -> None:
    def fail() -> Mapping[int, UncommittedLag]:
        raise Unavailable("no broker")

    answers: list[Callable[[], Mapping[int, UncommittedLag]]] = [lambda: {0: lag_of(5, None)}, fail]
    now, requests = [1000.0], [0]
    collector = LagCollector(lambda: answers.pop(0)(), lambda: now[0])

    def request() -> None:
        requests[0] += 1

    collector.request_update = request
    collector.update()
    collector.update()
    now[0] += 60.0
    assert _values(collector)["analytics_lag_messages", "0"] == 5
    assert requests == [0]


def test_scrape_does_not_wait_for_ever() -> None:
    now = [1000.0]
    collector = LagCollector(lambda: {0: lag_of(5, None)}, lambda: now[0])
    collector.request_update = lambda: None
    collector.update()
    now[0] += 60.0
    assert _values(collector)["analytics_lag_updated_timestamp_seconds", ""] == 1000.0


def test_lag_stays_while_kafka_is_unavailable() -> None:
    answers: list[Mapping[int, UncommittedLag] | Unavailable] = [
        {0: lag_of(5, 990.0, 4)},
        Unavailable("no broker"),
        {0: lag_of(0, None)},
    ]

    def measure() -> Mapping[int, UncommittedLag]:
        answer = answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    collector = LagCollector(measure, lambda: 1000.0)
    totals = [collector.total]
    usual_seconds = collector.update()
    totals.append(collector.total)
    retry_seconds = collector.update()
    totals.append(collector.total)
    assert usual_seconds < retry_seconds
    assert totals == [None, (5, 4), None]
    assert _values(collector)["analytics_lag_messages", "0"] == 5
    assert collector.update() == usual_seconds
    assert _values(collector)["analytics_lag_messages", "0"] == 0


def test_window_is_absent_until_its_first_update() -> None:
    def fail() -> int:
        raise Unavailable("away")

    assert DedupWindowCollector(fail).update() > 0
    assert _values(DedupWindowCollector(fail)) == {}
    collector = DedupWindowCollector(lambda: 10_000)
    collector.update()
    assert _values(collector) == {("analytics_deduplication_window_inserts", ""): 10_000}
