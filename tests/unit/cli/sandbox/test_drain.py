from collections.abc import Mapping

import pytest

from octane_analytics.cli.sandbox.drain import STALL_SECONDS, DeliveryWaiter, Stored
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.results import Result
from octane_analytics.errors import Unavailable
from octane_analytics.settings.connections import ClickHouseSettings


class FakeClickHouse(ClickHouse):
    """Each count finds some rows more, as far as there are any."""

    def __init__(self, before: int, each: int, most: int) -> None:
        super().__init__(ClickHouseSettings(), client_name="test")
        self.rows, self.each, self.most = before, 0, before + most
        self.later = each

    def select(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
    ) -> Result:
        self.rows = min(self.most, self.rows + self.each)
        self.each = self.later
        return Result((), [(self.rows,)])


class FakeClock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def pause(self, seconds: float) -> bool:
        self.sleep(seconds)
        return False


def _watch(clickhouse: FakeClickHouse, clock: FakeClock, dead: int = 0) -> DeliveryWaiter:
    counts = iter([7, *[7 + dead] * 10_000])
    watch = DeliveryWaiter(clickhouse, lambda: next(counts), clock)
    watch.begin()
    return watch


def test_watch_counts_from_where_it_began() -> None:
    clock = FakeClock()
    watch = _watch(FakeClickHouse(before=500, each=30, most=98), clock, dead=2)
    told: list[Stored] = []
    stored = watch.wait(100, pause=clock.pause, on_progress=told.append)
    assert stored == Stored(98, 2)
    assert told[-1] == stored


def test_watch_gives_up_when_nothing_moves() -> None:
    clock = FakeClock()
    watch = _watch(FakeClickHouse(before=0, each=50, most=90), clock)
    with pytest.raises(Unavailable, match="10 of 100 events are neither"):
        watch.wait(100, pause=clock.pause, on_progress=lambda stored: None)
    assert clock.now() == pytest.approx(STALL_SECONDS, abs=1.0)


def test_watch_shows_rows_that_are_too_many() -> None:
    clock = FakeClock()
    watch = _watch(FakeClickHouse(before=0, each=101, most=101), clock)
    assert watch.wait(100, pause=clock.pause, on_progress=lambda stored: None).rows == 101


def test_watch_ends_when_asked() -> None:
    clock = FakeClock()
    watch = _watch(FakeClickHouse(before=0, each=1, most=1), clock)
    stored = watch.wait(100, pause=lambda seconds: True, on_progress=lambda stored: None)
    assert stored.rows == 1
