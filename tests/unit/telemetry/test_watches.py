"""Lag and the deduplication window, as they are shown while they are known and while they are not."""

from collections.abc import Mapping

from octane_analytics.errors import Unavailable
from octane_analytics.telemetry.dedup_window import DedupWindowCollector
from octane_analytics.telemetry.lag_metrics import LagCollector
from octane_analytics.types import Committed, UncommittedLag


def _values(watch: LagCollector | DedupWindowCollector) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("partition", "")): sample.value
        for family in watch.collect()
        for sample in family.samples
    }


def behind(messages: int, oldest_at: float | None, held_back: int = 0) -> UncommittedLag:
    return UncommittedLag(Committed(7, ""), 0, 7 + messages, 7 + messages - held_back, oldest_at)


def test_lag_in_seconds_grows_while_nobody_looks() -> None:
    now = [1000.0]
    seen = {0: behind(5, 990.0), 1: behind(0, None), 2: behind(3, None, 2)}
    watch = LagCollector(lambda: seen, lambda: now[0])
    watch.update()
    now[0] = 1030.0
    assert _values(watch) == {
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


def test_lag_stays_as_it_was_seen_while_kafka_is_away() -> None:
    answers: list[Mapping[int, UncommittedLag] | Unavailable] = [
        {0: behind(5, 990.0, 4)},
        Unavailable("no broker"),
        {0: behind(0, None)},
    ]

    def ask() -> Mapping[int, UncommittedLag]:
        answer = answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    watch = LagCollector(ask, lambda: 1000.0)
    totals = [watch.total]
    often = watch.update()
    totals.append(watch.total)
    rarely = watch.update()
    totals.append(watch.total)
    assert often < rarely
    assert totals == [None, (5, 4), None]
    assert _values(watch)["analytics_lag_messages", "0"] == 5
    assert watch.update() == often
    assert _values(watch)["analytics_lag_messages", "0"] == 0


def test_window_is_absent_until_clickhouse_has_told() -> None:
    def fail() -> int:
        raise Unavailable("away")

    assert DedupWindowCollector(fail).update() > 0
    assert _values(DedupWindowCollector(fail)) == {}
    watch = DedupWindowCollector(lambda: 10_000)
    watch.update()
    assert _values(watch) == {("analytics_deduplication_window_inserts", ""): 10_000}
