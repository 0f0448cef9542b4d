"""Limits that processes keep together; here one process stands for several."""

from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.api.auth.rate_limits import RateLimiter
from octane_analytics.api.auth.tokens import TokenRate

A, B, C = (bytes([n]) * 16 for n in (1, 2, 3))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_burst_passes_then_the_rate() -> None:
    clock = Clock()
    allowances = RateLimiter(keys=4, processes=2, monotonic=clock)
    rate = TokenRate(10, 3)
    assert [allowances.acquire_token(A, rate) for _ in range(3)] == [0, 0, 0]
    assert (
        allowances.acquire_token(A, rate) == 0.1
        or abs(allowances.acquire_token(A, rate) - 0.1) < 1e-6
    )
    assert allowances.acquire_token(B, rate) == 0
    clock.now += 0.1
    assert allowances.acquire_token(A, rate) == 0
    assert allowances.acquire_token(A, rate) > 0
    clock.now += 100
    assert [allowances.acquire_token(A, rate) > 0 for _ in range(4)] == [False, False, False, True]


def test_lower_rate_applies_at_once() -> None:
    clock = Clock()
    allowances = RateLimiter(keys=4, processes=2, monotonic=clock)
    for _ in range(1000):
        allowances.acquire_token(A, TokenRate(1, 1000))
    # What the larger burst had let through must not shut the token out for minutes.
    assert allowances.acquire_token(A, TokenRate(1, 1)) <= 1


@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_no_span_of_time_sees_more_than_rate_and_burst(
    per_second: int, burst: int, pauses: list[float]
) -> None:
    clock = Clock()
    allowances = RateLimiter(keys=1, processes=1, monotonic=clock)
    admitted: list[float] = []
    for pause in pauses:
        clock.now += pause
        if allowances.acquire_token(A, TokenRate(per_second, burst)) == 0:
            admitted.append(clock.now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            count = last - first + 1
            assert count <= burst + (admitted[last] - start) * per_second + 1e-6


def test_wait_that_is_told_is_enough() -> None:
    clock = Clock()
    allowances = RateLimiter(keys=1, processes=1, monotonic=clock)
    rate = TokenRate(0.01, 1)
    assert allowances.acquire_token(A, rate) == 0
    clock.now += allowances.acquire_token(A, rate)
    assert allowances.acquire_token(A, rate) == 0


def test_requests_under_way_are_counted_over_processes() -> None:
    allowances = RateLimiter(keys=4, processes=2)
    allowances.open(0)
    assert allowances.acquire_slot(A, 2)
    allowances.open(1)
    assert allowances.acquire_slot(A, 2)
    assert not allowances.acquire_slot(A, 2)
    assert allowances.acquire_slot(B, 2)
    allowances.release_slot(A)
    assert allowances.acquire_slot(A, 2)


def test_process_that_died_takes_its_count_along() -> None:
    allowances = RateLimiter(keys=4, processes=2)
    allowances.open(1)
    assert allowances.acquire_slot(A, 1)
    allowances.open(0)
    assert not allowances.acquire_slot(A, 1)
    allowances.open(1)
    assert allowances.acquire_slot(A, 1)


def test_what_a_killed_process_had_under_way_is_forgotten_without_a_successor() -> None:
    allowances = RateLimiter(keys=4, processes=2)
    allowances.open(1)
    assert allowances.acquire_slot(A, 1)
    allowances.open(0)
    assert not allowances.acquire_slot(A, 1)
    allowances.forget(1)
    allowances.forget(2)  # one beyond the last has none of its own
    assert allowances.acquire_slot(A, 1)
    assert not allowances.acquire_slot(A, 1)


def test_processes_beyond_the_last_share_its_count() -> None:
    allowances = RateLimiter(keys=4, processes=2)
    allowances.open(1)
    assert allowances.acquire_slot(A, 1)
    allowances.open(7)
    assert not allowances.acquire_slot(A, 1)


def test_key_that_nothing_is_known_of_gives_way() -> None:
    clock = Clock()
    allowances = RateLimiter(keys=2, processes=1, monotonic=clock)
    assert allowances.acquire_token(A, TokenRate(1, 1)) == 0
    assert allowances.acquire_slot(B, 1)
    assert allowances.acquire_token(C, TokenRate(1, 1)) == 1.0  # both slots hold something
    assert not allowances.acquire_slot(C, 1)
    clock.now += 2
    assert allowances.acquire_token(C, TokenRate(1, 1)) == 0
    allowances.release_slot(B)
    assert allowances.acquire_token(C, TokenRate(1, 1)) > 0


def test_leaving_what_nobody_entered_counts_nothing() -> None:
    allowances = RateLimiter(keys=2, processes=1)
    allowances.release_slot(A)
    assert allowances.acquire_slot(A, 1)
    allowances.release_slot(A)
    allowances.release_slot(A)
    assert allowances.acquire_slot(A, 1)
    assert not allowances.acquire_slot(A, 1)
