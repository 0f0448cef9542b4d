"""Which settings a raw query is sent with: what the service wants, as far as the user's profile allows.

A profile may pin a setting, or bound it, and refuses a query that says otherwise; with `readonly=1` it
refuses all that it does not list as changeable. So the server is asked first. What it pins is the
operator's decision and stands.
"""

import logging
import threading
import time
from collections.abc import Mapping

from octane_analytics.api.connection_pool import PooledConnection
from octane_analytics.api.limits import QueryLimits
from octane_analytics.telemetry.logging import fields

ASK = (
    "SELECT name, value, min, max, toUInt8(readonly) FROM system.settings "
    "WHERE has({names:Array(String)}, name)"
)
KEEP_SECONDS = 60.0

log = logging.getLogger(__name__)


class QuerySettings:
    """Shared by the threads of a pool; asks again after a minute, for profiles change."""

    def __init__(self, limits: QueryLimits) -> None:
        self._wanted = limits.settings()
        self._lock = threading.Lock()
        self._settled: dict[str, object] | None = None
        self._settled_at = 0.0
        self._told: set[str] = set()

    def negotiate(self, connection: PooledConnection, comment: str) -> dict[str, object]:
        """What to send with a query; `comment` goes into system.query_log. Raises as `select`."""
        with self._lock:
            settled = self._settled
            is_fresh = time.monotonic() - self._settled_at < KEEP_SECONDS
        if settled is None or not is_fresh:
            names = [*self._wanted, "log_comment"]
            found = connection.select(ASK, {"names": names}).rows
            settled = self._allowed({row[0]: row[1:] for row in found})
            with self._lock:
                self._settled, self._settled_at = settled, time.monotonic()
        if "log_comment" in settled:
            return settled | {"log_comment": comment}
        return settled

    def forget(self) -> None:
        with self._lock:
            self._settled = None

    def _allowed(
        self, known: Mapping[str, tuple[str, str | None, str | None, int]]
    ) -> dict[str, object]:
        chosen: dict[str, object] = {"log_comment": ""}
        for name, wanted in self._wanted.items():
            if name in known:
                value, low, high, is_pinned = known[name]
                if is_pinned:
                    self._tell(name, wanted, value)
                else:
                    chosen[name] = _within(wanted, low, high)
        if "log_comment" not in known or known["log_comment"][3]:
            del chosen["log_comment"]
        return chosen

    def _tell(self, name: str, wanted: object, pinned: str) -> None:
        if str(wanted) != pinned and name not in self._told:
            self._told.add(name)
            log.warning(
                "the query user's profile pins a setting to another value",
                extra=fields(setting=name, wanted=wanted, pinned=pinned),
            )


def _within(wanted: object, low: str | None, high: str | None) -> object:
    """Bounds are the server's text; a setting that is no number has none that we would know."""
    if not isinstance(wanted, (int, float)):
        return wanted
    try:
        if high is not None and wanted > float(high):
            return high
        if low is not None and wanted < float(low):
            return low
    except ValueError:
        return wanted
    return wanted
