"""Replacement of a month: not while a batch of it is in progress, or an insert that began before."""

import itertools
from collections.abc import Callable, Mapping

import pytest

from octane_analytics.errors import OctaneError, StatementRejected
from octane_analytics.replay.fill import FillOutcome, FillReplay, ReplayControl
from octane_analytics.replay.pacing import Interrupted
from octane_analytics.replay.rebuild import MonthFacts, RebuildReplay
from tests.fakes.clock import FakeClock

MONTH = 202602
Inserts = frozenset[tuple[str, str]]
OLD, NEW = ("ch1a:9000", "octane-insert-old"), ("ch1b:9000", "octane-insert-new")


class FakeFill(FillReplay):
    """Workers that have committed everything; the journal may be dropped."""

    def __init__(self) -> None:
        self.has_journal = True

    def start(self) -> dict[int, int]:
        return {0: 10}

    def stage_committed(self) -> dict[int, int]:
        return {0: 10}

    def stage_intents(self, limits: Mapping[int, int]) -> dict[int, int]:
        return dict(limits)

    def note_replacement(self, month: int) -> None:
        if not self.has_journal:
            raise StatementRejected(60, "UNKNOWN_TABLE", "the journal does not exist")


class FakeMonths:
    """Records what is replaced; `in_progress` are the counts of events between limits and ends."""

    def __init__(self) -> None:
        self.replaced: list[int] = []
        self.builds = 0
        self.in_progress: list[int] = []

    def month_facts(self, month: int, limits: Mapping[int, int]) -> MonthFacts:
        return MonthFacts(10, 0, 0, 10)

    def build(self, month: int, limits: Mapping[int, int]) -> int:
        self.builds += 1
        return 10

    def count_between(self, month: int, limits: Mapping[int, int], ends: Mapping[int, int]) -> int:
        return self.in_progress.pop(0) if self.in_progress else 0

    def replace(self, month: int) -> None:
        self.replaced.append(month)

    def mark_month_undecided(
        self, number: int, month: int, limits: Mapping[int, int], ends: Mapping[int, int]
    ) -> None:
        raise AssertionError("nothing is in progress")


class Rig:
    def __init__(self, running: Callable[[float], Inserts] = lambda _: frozenset()) -> None:
        """`running` returns the inserts that run at a time, in seconds from the beginning."""
        self.clock, self.fill, self.months = FakeClock(0.0), FakeFill(), FakeMonths()
        self.stops_at = 1e9
        control = ReplayControl(lambda _: None, lambda: self.clock.now() >= self.stops_at)
        self.rebuild = RebuildReplay(
            self.fill,
            self.months,
            self.clock,
            control,
            running_inserts=lambda: running(self.clock.now()),
            is_forced=False,
        )

    def run(self) -> FillOutcome:
        return self.rebuild.run((MONTH,), {0: 10}, is_dry=False)


def test_month_waits_for_inserts_that_began_before() -> None:
    rig = Rig(lambda now: frozenset([OLD, NEW] if now < 7.0 else [NEW] if now < 8.0 else []))
    assert rig.run().inserted == 10
    assert rig.months.replaced == [MONTH]
    assert 8.0 <= rig.clock.now() < 9.0


def test_month_does_not_wait_for_later_inserts() -> None:
    """Busy workers insert all the time; their batches are pending, or after the limits."""
    numbers = itertools.count()
    rig = Rig(lambda _: frozenset([("ch1a:9000", f"octane-insert-{next(numbers)}")]))
    rig.run()
    assert rig.clock.now() == 0.0


def test_month_is_kept_beside_a_stalled_insert() -> None:
    rig = Rig(lambda _: frozenset([OLD]))
    with pytest.raises(OctaneError, match="insert octane-insert-old on ch1a:9000 does not end"):
        rig.run()
    assert rig.months.replaced == []
    assert rig.clock.now() < 60.0


def test_stop_ends_the_wait_for_inserts() -> None:
    rig = Rig(lambda _: frozenset([OLD]))
    rig.stops_at = 2.0
    with pytest.raises(Interrupted):
        rig.run()
    assert rig.months.replaced == []
    assert rig.clock.now() < 3.0


def test_month_is_built_again_until_workers_pause() -> None:
    rig = Rig()
    rig.months.in_progress = [3, 1]
    rig.run()
    assert (rig.months.builds, rig.months.replaced) == (3, [MONTH])


def test_month_is_kept_if_the_journal_was_dropped() -> None:
    """Another replay took this one for dead and may be at work."""
    rig = Rig()
    rig.fill.has_journal = False
    with pytest.raises(StatementRejected):
        rig.run()
    assert rig.months.replaced == []
