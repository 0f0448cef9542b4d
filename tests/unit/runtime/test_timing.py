"""Backoff: growing, capped and random; and the system clock."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.runtime.timing import Backoff, SystemClock


class FixedRandom(random.Random):
    """Random source that returns one number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self._number = number

    def random(self) -> float:
        return self._number


def test_backoff_doubles_up_to_its_cap() -> None:
    backoff = Backoff(0.5, 4.0, FixedRandom(0.0))
    assert [backoff.next_seconds() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert backoff.attempts == 6


def test_backoff_is_reduced_by_up_to_half() -> None:
    backoff = Backoff(1.0, 8.0, FixedRandom(1.0))
    assert [backoff.next_seconds() for _ in range(4)] == [0.5, 1.0, 2.0, 4.0]


def test_backoff_starts_again_after_a_reset() -> None:
    backoff = Backoff(1.0, 8.0, FixedRandom(0.0))
    backoff.next_seconds()
    backoff.next_seconds()
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next_seconds() == 1.0


def test_fresh_backoff_has_its_own_attempts() -> None:
    backoff = Backoff(1.0, 8.0, FixedRandom(0.0))
    backoff.next_seconds()
    other = backoff.fresh()
    assert (other.next_seconds(), other.next_seconds(), other.next_seconds()) == (1.0, 2.0, 4.0)
    assert backoff.attempts == 1


def test_backoffs_of_two_processes_differ() -> None:
    first, second = (Backoff(1.0, 8.0) for _ in range(2))
    assert [first.next_seconds() for _ in range(8)] != [second.next_seconds() for _ in range(8)]


@given(st.floats(0.001, 10.0), st.floats(10.0, 1000.0), st.integers(0, 2000), st.integers(0, 2**32))
def test_backoff_stays_within_its_bounds(
    first: float, cap: float, attempts: int, seed: int
) -> None:
    backoff = Backoff(first, cap, random.Random(seed))
    backoff.attempts = attempts
    seconds = backoff.next_seconds()
    assert min(cap, first) / 2 <= seconds <= cap


def test_system_clock_goes_forward() -> None:
    clock = SystemClock()
    before = clock.now()
    clock.sleep(0.0)
    assert clock.now() >= before


def test_system_clock_refuses_to_sleep_backwards() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        SystemClock().sleep(-1.0)
