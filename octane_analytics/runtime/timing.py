"""The system's clock, and how long to wait before the next attempt."""

import random
import time


class SystemClock:
    """See `types.Clock`."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Backoff:
    """Doubles from `first_seconds` up to `cap_seconds`, each with up to half taken off at random.

    The jitter keeps processes that failed together from coming back together.
    """

    def __init__(
        self, first_seconds: float, cap_seconds: float, source: random.Random | None = None
    ) -> None:
        self._first_seconds = first_seconds
        self._cap_seconds = cap_seconds
        self._random = source or random.Random()  # noqa: S311  # no secret hangs on it
        self.attempts = 0

    def next_seconds(self) -> float:
        ceiling = min(self._cap_seconds, self._first_seconds * 2.0 ** min(self.attempts, 32))
        self.attempts += 1
        return ceiling * (1.0 - self._random.random() / 2.0)

    def fresh(self) -> "Backoff":
        """Another one like this that has not waited yet."""
        return Backoff(self._first_seconds, self._cap_seconds, self._random)

    def reset(self) -> None:
        self.attempts = 0
