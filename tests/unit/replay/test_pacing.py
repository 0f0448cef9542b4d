"""A replay's waits end when what is waited for comes, when patience ends, or when it is to stop."""

from collections.abc import Callable

import pytest

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.replay.pacing import (
    PATIENCE_SECONDS,
    Interrupted,
    RateLimit,
    retry_while_unavailable,
)
from tests.fakes.clock import FakeClock

BEGIN = 1000.0


def _after(clock: FakeClock, seconds: float) -> Callable[[], bool]:
    return lambda: clock.now() >= BEGIN + seconds


def _never() -> bool:
    return False


def test_pace_waits_until_its_events_are_due() -> None:
    clock = FakeClock(BEGIN)
    pace = RateLimit(100.0, clock)
    pace.wait(50)
    assert clock.now() == pytest.approx(BEGIN + 0.5)
    pace.wait(50_000)
    assert clock.now() == pytest.approx(BEGIN + 500.5)


def test_pace_asks_for_no_more_than_a_second_s_events() -> None:
    clock = FakeClock(BEGIN)
    assert [RateLimit(rate, clock).available for rate in (None, 0.5, 100.0, 1e6)] == [
        10_000,
        1,
        100,
        10_000,
    ]


def test_pace_does_not_wait_on_once_it_is_to_stop() -> None:
    clock = FakeClock(BEGIN)
    RateLimit(100.0, clock, _after(clock, 3.0)).wait(50_000)
    assert clock.now() < BEGIN + 3.5


def test_call_is_repeated_until_it_works() -> None:
    clock = FakeClock(BEGIN)
    answers: list[Exception | int] = [Unavailable("away"), Unavailable("away"), 7]

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry_while_unavailable(call, clock, _never) == (7, True)
    assert retry_while_unavailable(lambda: 8, clock, _never) == (8, False)


def test_patience_ends() -> None:
    clock = FakeClock(BEGIN)

    def call() -> None:
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        retry_while_unavailable(call, clock, _never)
    assert BEGIN + PATIENCE_SECONDS <= clock.now() <= BEGIN + PATIENCE_SECONDS + 5.0


def test_outage_is_not_waited_for_once_it_is_to_stop() -> None:
    clock = FakeClock(BEGIN)
    calls = []

    def call() -> None:
        calls.append(clock.now())
        raise Unavailable("away")

    with pytest.raises(Interrupted):
        retry_while_unavailable(call, clock, _after(clock, 10.0))
    assert clock.now() < BEGIN + 10.5
    assert calls[-1] < BEGIN + 10.0


def test_what_an_operator_has_to_mend_is_raised_at_once() -> None:
    clock = FakeClock(BEGIN)

    def call() -> None:
        raise NeedsOperator("grant it")

    with pytest.raises(NeedsOperator):
        retry_while_unavailable(call, clock, _never)
    assert clock.now() == BEGIN
