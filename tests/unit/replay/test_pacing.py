"""Waits of a replay end with the awaited event, at the deadline, or when a stop is requested."""

from collections.abc import Callable

import pytest

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.replay.pacing import (
    MAX_RETRY_SECONDS,
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


def test_rate_limit_waits_until_events_are_due() -> None:
    clock = FakeClock(BEGIN)
    pace = RateLimit(100.0, clock)
    pace.wait(50)
    assert clock.now() == pytest.approx(BEGIN + 0.5)
    pace.wait(50_000)
    assert clock.now() == pytest.approx(BEGIN + 500.5)


def test_rate_limit_requests_one_second_of_events() -> None:
    clock = FakeClock(BEGIN)
    assert [RateLimit(rate, clock).available for rate in (None, 0.5, 100.0, 1e6)] == [
        10_000,
        1,
        100,
        10_000,
    ]


def test_rate_limit_stop_ends_the_wait() -> None:
    clock = FakeClock(BEGIN)
    RateLimit(100.0, clock, _after(clock, 3.0)).wait(50_000)
    assert clock.now() < BEGIN + 3.5


def test_retry_repeats_until_the_call_succeeds() -> None:
    clock = FakeClock(BEGIN)
    answers: list[Exception | int] = [Unavailable("away"), Unavailable("away"), 7]

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry_while_unavailable(call, clock, _never) == 7
    assert answers == []


def test_retry_raises_after_its_deadline() -> None:
    clock = FakeClock(BEGIN)

    def call() -> None:
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        retry_while_unavailable(call, clock, _never)
    assert BEGIN + MAX_RETRY_SECONDS <= clock.now() <= BEGIN + MAX_RETRY_SECONDS + 5.0


def test_retry_stop_raises_interrupted() -> None:
    clock = FakeClock(BEGIN)
    calls = []

    def call() -> None:
        calls.append(clock.now())
        raise Unavailable("away")

    with pytest.raises(Interrupted):
        retry_while_unavailable(call, clock, _after(clock, 10.0))
    assert clock.now() < BEGIN + 10.5
    assert calls[-1] < BEGIN + 10.0


def test_retry_raises_needs_operator_at_once() -> None:
    clock = FakeClock(BEGIN)

    def call() -> None:
        raise NeedsOperator("grant it")

    with pytest.raises(NeedsOperator):
        retry_while_unavailable(call, clock, _never)
    assert clock.now() == BEGIN
