"""Throttle for librdkafka's log: an unreachable broker must not fill ours."""

import logging
import re
import time
from collections.abc import Callable

_REPEAT_SECONDS = 30.0
_MAX_MESSAGES = 100
_TIMES = re.compile(r"\(after .*\)")
"""Durations and repetition counts, which differ between repetitions of one message."""


class LogThrottle:
    """Logger of one client: passes each warning or error once in half a minute.

    librdkafka throttles its messages itself, but not those about an unreachable bootstrap server, which
    it logs some thirty times a second. Messages below a warning pass, as requested by an operator's
    `debug`.
    """

    def __init__(
        self,
        log: Callable[..., None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log` receives the messages that pass; None is the logger `librdkafka`."""
        self._log = log or logging.getLogger("librdkafka").log
        self._now = now
        self._logged: dict[str, tuple[float, int]] = {}
        """Time at which each message was logged, and the number dropped since."""

    def log(self, level: int, message: str, *arguments: object) -> None:
        if level < logging.WARNING:
            self._log(level, message, *arguments)
            return
        key, now = _TIMES.sub("", message % arguments), self._now()
        logged_at, dropped = self._logged.get(key, (-_REPEAT_SECONDS, 0))
        if now - logged_at < _REPEAT_SECONDS:
            self._logged[key] = (logged_at, dropped + 1)
            return
        if len(self._logged) >= _MAX_MESSAGES:
            self._logged.clear()
        self._logged[key] = (now, 0)
        if dropped:
            self._log(level, f"{message} (%d more like it)", *arguments, dropped)
        else:
            self._log(level, message, *arguments)
