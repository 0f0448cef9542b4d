"""Limits shared by processes; here one process stands for several."""

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


def test_burst_is_followed_by_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(keys=4, processes=2, monotonic=clock)
    rate = TokenRate(10, 3)
    assert [limiter.acquire_token(A, rate) for _ in range(3)] == [0, 0, 0]
    assert limiter.acquire_token(A, rate) == 0.1 or abs(limiter.acquire_token(A, rate) - 0.1) < 1e-6
    assert limiter.acquire_token(B, rate) == 0
    clock.now += 0.1
    assert limiter.acquire_token(A, rate) == 0
    assert limiter.acquire_token(A, rate) > 0
    clock.now += 100
    assert [limiter.acquire_token(A, rate) > 0 for _ in range(4)] == [False, False, False, True]


def test_lower_rate_applies_at_once() -> None:
    clock = Clock()
    limiter = RateLimiter(keys=4, processes=2, monotonic=clock)
    for _ in range(1000):
        limiter.acquire_token(A, TokenRate(1, 1000))
    # Requests that the larger burst allowed must not lock the token out for minutes.
    assert limiter.acquire_token(A, TokenRate(1, 1)) <= 1


@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_interval_never_exceeds_rate_and_burst(
    per_second: int, burst: int, pauses: list[float]
) -> None:
    clock = Clock()
    limiter = RateLimiter(keys=1, processes=1, monotonic=clock)
    admitted: list[float] = []
    for pause in pauses:
        clock.now += pause
        if limiter.acquire_token(A, TokenRate(per_second, burst)) == 0:
            admitted.append(clock.now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            count = last - first + 1
            assert count <= burst + (admitted[last] - start) * per_second + 1e-6


def test_returned_wait_is_sufficient() -> None:
    clock = Clock()
    limiter = RateLimiter(keys=1, processes=1, monotonic=clock)
    rate = TokenRate(0.01, 1)
    assert limiter.acquire_token(A, rate) == 0
    clock.now += limiter.acquire_token(A, rate)
    assert limiter.acquire_token(A, rate) == 0


def test_requests_in_progress_are_counted_across_processes() -> None:
    limiter = RateLimiter(keys=4, processes=2)
    limiter.attach_process(0)
    assert limiter.acquire_slot(A, 2)
    limiter.attach_process(1)
    assert limiter.acquire_slot(A, 2)
    assert not limiter.acquire_slot(A, 2)
    assert limiter.acquire_slot(B, 2)
    limiter.release_slot(A)
    assert limiter.acquire_slot(A, 2)


def test_replaced_process_starts_with_zero_count() -> None:
    limiter = RateLimiter(keys=4, processes=2)
    limiter.attach_process(1)
    assert limiter.acquire_slot(A, 1)
    limiter.attach_process(0)
    assert not limiter.acquire_slot(A, 1)
    limiter.attach_process(1)
    assert limiter.acquire_slot(A, 1)


def test_count_of_killed_process_is_cleared_without_successor() -> None:
    limiter = RateLimiter(keys=4, processes=2)
    limiter.attach_process(1)
    assert limiter.acquire_slot(A, 1)
    limiter.attach_process(0)
    assert not limiter.acquire_slot(A, 1)
    limiter.forget_process(1)
    limiter.forget_process(2)  # a number after the last one has no count of its own
    assert limiter.acquire_slot(A, 1)
    assert not limiter.acquire_slot(A, 1)


def test_processes_after_the_last_share_its_count() -> None:
    limiter = RateLimiter(keys=4, processes=2)
    limiter.attach_process(1)
    assert limiter.acquire_slot(A, 1)
    limiter.attach_process(7)
    assert not limiter.acquire_slot(A, 1)


def test_key_without_state_is_replaced() -> None:
    clock = Clock()
    limiter = RateLimiter(keys=2, processes=1, monotonic=clock)
    assert limiter.acquire_token(A, TokenRate(1, 1)) == 0
    assert limiter.acquire_slot(B, 1)
    assert limiter.acquire_token(C, TokenRate(1, 1)) == 1.0  # both entries hold state
    assert not limiter.acquire_slot(C, 1)
    clock.now += 2
    assert limiter.acquire_token(C, TokenRate(1, 1)) == 0
    limiter.release_slot(B)
    assert limiter.acquire_token(C, TokenRate(1, 1)) > 0


def test_release_without_acquire_changes_nothing() -> None:
    limiter = RateLimiter(keys=2, processes=1)
    limiter.release_slot(A)
    assert limiter.acquire_slot(A, 1)
    limiter.release_slot(A)
    limiter.release_slot(A)
    assert limiter.acquire_slot(A, 1)
    assert not limiter.acquire_slot(A, 1)
