"""Settings of raw queries: the service's limits, adapted to the profile of the query user.

A profile may pin or bound a setting, and rejects a query with another value; with `readonly=1` it
rejects every setting that is not listed as changeable. The server's constraints are therefore read
first. A pinned setting is the operator's decision and is kept.
"""

import logging
import threading
import time
from collections.abc import Mapping

from octane_analytics.api.connection_pool import PooledConnection
from octane_analytics.api.limits import QueryLimits
from octane_analytics.telemetry.logging import fields

SELECT_CONSTRAINTS = (
    "SELECT name, value, min, max, toUInt8(readonly) FROM system.settings "
    "WHERE has({names:Array(String)}, name)"
)
REFRESH_SECONDS = 60.0

log = logging.getLogger(__name__)


class QuerySettings:
    """Negotiated settings, shared by the threads of a pool and refreshed every minute."""

    def __init__(self, limits: QueryLimits) -> None:
        self._wanted = limits.settings()
        self._lock = threading.Lock()
        self._negotiated: dict[str, object] | None = None
        self._negotiated_at = 0.0
        self._logged_names: set[str] = set()

    def negotiate(self, connection: PooledConnection, comment: str) -> dict[str, object]:
        """Return the settings to send; `comment` appears in system.query_log. Raises as `select`."""
        with self._lock:
            negotiated = self._negotiated
            is_fresh = time.monotonic() - self._negotiated_at < REFRESH_SECONDS
        if negotiated is None or not is_fresh:
            names = [*self._wanted, "log_comment"]
            found = connection.select(SELECT_CONSTRAINTS, {"names": names}).rows
            negotiated = self._allowed({row[0]: row[1:] for row in found})
            with self._lock:
                self._negotiated, self._negotiated_at = negotiated, time.monotonic()
        if "log_comment" in negotiated:
            return negotiated | {"log_comment": comment}
        return negotiated

    def forget(self) -> None:
        """Negotiate again at the next query."""
        with self._lock:
            self._negotiated = None

    def _allowed(
        self, known: Mapping[str, tuple[str, str | None, str | None, int]]
    ) -> dict[str, object]:
        allowed: dict[str, object] = {"log_comment": ""}
        for name, wanted in self._wanted.items():
            if name in known:
                value, low, high, is_pinned = known[name]
                if is_pinned:
                    self._log_pinned(name, wanted, value)
                else:
                    allowed[name] = _clamp(wanted, low, high)
        if "log_comment" not in known or known["log_comment"][3]:
            del allowed["log_comment"]
        return allowed

    def _log_pinned(self, name: str, wanted: object, pinned: str) -> None:
        if str(wanted) != pinned and name not in self._logged_names:
            self._logged_names.add(name)
            log.warning(
                "setting pinned by the query user's profile; the service's value is not sent",
                extra=fields(setting=name, wanted=wanted, pinned=pinned),
            )


def without_limit(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the settings for the service's own statements, which `limit` would truncate."""
    return {name: value for name, value in settings.items() if name != "limit"}


def _clamp(wanted: object, low: str | None, high: str | None) -> object:
    """Return the number within the server's bounds, which are text; other values unchanged."""
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
