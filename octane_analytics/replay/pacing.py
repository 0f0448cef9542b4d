"""How a replay waits, for its pace or for a server that is away: no longer than it is to go on."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.interfaces import Clock
from octane_analytics.runtime.timing import Backoff

PATIENCE_SECONDS = 60.0
_FIRST_BACKOFF_SECONDS, _CAP_BACKOFF_SECONDS = 0.2, 5.0
_SLICE_SECONDS = 0.2
"""How soon a wait hears that it is to end."""
_MOST_AT_ONCE = 10_000

_T = TypeVar("_T")


class Interrupted(Exception):
    """It was asked to stop, and has, between two chunks."""


class RateLimit:
    """Holds a rate of events; None is none."""

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
        """How many events to ask for, so that they come evenly."""
        if self._rate is None:
            return _MOST_AT_ONCE
        return max(1, min(_MOST_AT_ONCE, int(self._rate)))

    def wait(self, events: int) -> None:
        """Blocks until so many more are due, or until it is to stop."""
        self._done += events
        if self._rate is not None:
            due = self._started + self._done / self._rate
            _wait_until(due, self._clock, self._is_stopping)


class AttemptFailed(NamedTuple, Generic[_T]):
    value: _T
    was_repeated: bool
    """Whether the first attempt failed, so that nobody knows what it did."""


def retry_while_unavailable(
    call: Callable[[], _T], clock: Clock, is_stopping: Callable[[], bool]
) -> AttemptFailed[_T]:
    """Repeats a call that may be repeated while it raises Unavailable, for a minute.

    What waiting does not mend is raised at once, and Interrupted in place of a further attempt once
    it is to stop.
    """
    backoff = Backoff(_FIRST_BACKOFF_SECONDS, _CAP_BACKOFF_SECONDS)
    deadline = clock.now() + PATIENCE_SECONDS
    while True:
        try:
            return AttemptFailed(call(), backoff.attempts > 0)
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
