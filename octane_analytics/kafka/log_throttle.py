"""librdkafka's own log, so that a broker that is away does not fill ours."""

import logging
import re
import time
from collections.abc import Callable

_REPEAT_SECONDS = 30.0
_COMPLAINTS = 100
_TIMES = re.compile(r"\(after .*\)")
"""After how long it failed, and how many of them librdkafka left out."""


class LogThrottle:
    """One client's log, as librdkafka writes to it: the same complaint once in a while, not each time.

    librdkafka keeps to that itself, but not for a bootstrap server that is away: of that it tells some
    thirty times a second. What is below a warning goes through, as what an operator's `debug` asked for.
    """

    def __init__(
        self,
        log: Callable[..., None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log` takes what is told; None is the logger `librdkafka`."""
        self._log = log or logging.getLogger("librdkafka").log
        self._now = now
        self._told: dict[str, tuple[float, int]] = {}
        """When each was told, and how often it was left out since."""

    def log(self, level: int, message: str, *arguments: object) -> None:
        if level < logging.WARNING:
            self._log(level, message, *arguments)
            return
        key, now = _TIMES.sub("", message % arguments), self._now()
        told_at, left_out = self._told.get(key, (-_REPEAT_SECONDS, 0))
        if now - told_at < _REPEAT_SECONDS:
            self._told[key] = (told_at, left_out + 1)
            return
        if len(self._told) >= _COMPLAINTS:
            self._told.clear()
        self._told[key] = (now, 0)
        if left_out:
            self._log(level, f"{message} (%d more like it)", *arguments, left_out)
        else:
            self._log(level, message, *arguments)
