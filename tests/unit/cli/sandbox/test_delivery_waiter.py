from collections.abc import Mapping

import pytest

from octane_analytics.cli.sandbox.delivery_waiter import (
    STALL_SECONDS,
    DeliveryCounts,
    DeliveryWaiter,
)
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.results import Result
from octane_analytics.errors import Unavailable
from octane_analytics.settings.connections import ClickHouseSettings


class FakeClickHouse(ClickHouse):
    """Table that gains `each` rows per count, up to `most`."""

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


def _waiter(clickhouse: FakeClickHouse, clock: FakeClock, dead: int = 0) -> DeliveryWaiter:
    counts = iter([7, *[7 + dead] * 10_000])
    waiter = DeliveryWaiter(clickhouse, lambda: next(counts), clock)
    waiter.begin()
    return waiter


def test_waiter_counts_from_begin() -> None:
    clock = FakeClock()
    waiter = _waiter(FakeClickHouse(before=500, each=30, most=98), clock, dead=2)
    reported: list[DeliveryCounts] = []
    counts = waiter.wait(100, pause=clock.pause, on_progress=reported.append)
    assert counts == DeliveryCounts(98, 2)
    assert reported[-1] == counts


def test_waiter_without_progress_raises_unavailable() -> None:
    clock = FakeClock()
    waiter = _waiter(FakeClickHouse(before=0, each=50, most=90), clock)
    with pytest.raises(Unavailable, match="10 of 100 events are neither"):
        waiter.wait(100, pause=clock.pause, on_progress=lambda counts: None)
    assert clock.now() == pytest.approx(STALL_SECONDS, abs=1.0)


def test_waiter_returns_excess_rows() -> None:
    clock = FakeClock()
    waiter = _waiter(FakeClickHouse(before=0, each=101, most=101), clock)
    assert waiter.wait(100, pause=clock.pause, on_progress=lambda counts: None).rows == 101


def test_waiter_ends_when_pause_returns_true() -> None:
    clock = FakeClock()
    waiter = _waiter(FakeClickHouse(before=0, each=1, most=1), clock)
    counts = waiter.wait(100, pause=lambda seconds: True, on_progress=lambda counts: None)
    assert counts.rows == 1
