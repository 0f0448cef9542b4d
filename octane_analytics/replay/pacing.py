"""Rate limit and retries of a replay; both stop waiting as soon as the replay is stopped."""

from collections.abc import Callable
from typing import TypeVar

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.interfaces import Clock
from octane_analytics.runtime.timing import Backoff

MAX_RETRY_SECONDS = 60.0
_FIRST_BACKOFF_SECONDS, _CAP_BACKOFF_SECONDS = 0.2, 5.0
_SLICE_SECONDS = 0.2
"""Longest delay until a wait notices a stop."""
_MAX_EVENTS_AT_ONCE = 10_000

_T = TypeVar("_T")


class Interrupted(Exception):
    """The replay stopped between two chunks, as requested."""


class RateLimit:
    """Limit to a number of events per second; None is unlimited."""

    def __init__(
        self, rate: float | None, clock: Clock, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._is_stopping = is_stopping
        self._started = clock.now()
        self._done = 0

    @property
    def available(self) -> int:
        """Number of events to request at once for an even rate."""
        if self._rate is None:
            return _MAX_EVENTS_AT_ONCE
        return max(1, min(_MAX_EVENTS_AT_ONCE, int(self._rate)))

    def wait(self, events: int) -> None:
        """Block until `events` more are due, or until a stop is requested."""
        self._done += events
        if self._rate is not None:
            due = self._started + self._done / self._rate
            _wait_until(due, self._clock, self._is_stopping)


def retry_while_unavailable(
    call: Callable[[], _T], clock: Clock, is_stopping: Callable[[], bool]
) -> _T:
    """Repeat an idempotent call while it raises Unavailable, for MAX_RETRY_SECONDS at most.

    NeedsOperator is raised at once. Interrupted is raised in place of a further attempt once a stop
    is requested.
    """
    backoff = Backoff(_FIRST_BACKOFF_SECONDS, _CAP_BACKOFF_SECONDS)
    deadline = clock.now() + MAX_RETRY_SECONDS
    while True:
        try:
            return call()
        except NeedsOperator:
            raise
        except Unavailable as error:
            if clock.now() >= deadline:
                raise
            _wait_until(clock.now() + backoff.next_seconds(), clock, is_stopping)
            if is_stopping():
                raise Interrupted from error


def _wait_until(due: float, clock: Clock, is_stopping: Callable[[], bool]) -> None:
    while (left := due - clock.now()) > 0 and not is_stopping():
        clock.sleep(min(left, _SLICE_SECONDS))
