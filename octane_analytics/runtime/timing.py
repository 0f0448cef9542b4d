"""System clock, and exponential backoff with jitter."""

import random
import time


class SystemClock:
    """Monotonic clock (see `interfaces.Clock`)."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Backoff:
    """Delays that double from `first_seconds` to `cap_seconds`, each reduced by up to half at random.

    The jitter keeps processes that failed together from retrying together.
    """

    def __init__(
        self, first_seconds: float, cap_seconds: float, source: random.Random | None = None
    ) -> None:
        self._first_seconds = first_seconds
        self._cap_seconds = cap_seconds
        self._random = source or random.Random()  # noqa: S311  # jitter needs no secure randomness
        self.attempts = 0

    def next_seconds(self) -> float:
        ceiling_seconds = min(
            self._cap_seconds, self._first_seconds * 2.0 ** min(self.attempts, 32)
        )
        self.attempts += 1
        return ceiling_seconds * (1.0 - self._random.random() / 2.0)

    def fresh(
        self, first_seconds: float | None = None, cap_seconds: float | None = None
    ) -> "Backoff":
        """Return a backoff without attempts, with the same limits unless others are given."""
        return Backoff(
            self._first_seconds if first_seconds is None else first_seconds,
            self._cap_seconds if cap_seconds is None else cap_seconds,
            self._random,
        )

    def reset(self) -> None:
        self.attempts = 0
