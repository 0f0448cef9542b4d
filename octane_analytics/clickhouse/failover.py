"""Order in which the replicas of one shard are tried, and the time of the return to the preferred one.

Does not depend on a connection.
"""

import time
from collections.abc import Callable, Sequence

from octane_analytics.runtime.timing import Backoff
from octane_analytics.settings.topology import Address

_FIRST_RETURN_SECONDS = 60.0
_CAP_RETURN_SECONDS = 900.0
"""Longest time between two attempts to return: each may cost a repeated insert."""


class FailoverList:
    """Servers in the order of the next connection's attempts; the first of the settings is preferred."""

    def __init__(
        self,
        hosts: Sequence[Address],
        now: Callable[[], float] = time.monotonic,
        pauses: Backoff | None = None,
    ) -> None:
        self._preferred = tuple(hosts)
        self._hosts = list(hosts)
        self._now = now
        self._pauses = pauses or Backoff(_FIRST_RETURN_SECONDS, _CAP_RETURN_SECONDS)
        self._return_at: float | None = None
        """Time of the next return; None while the preferred server is used."""
        self._returned_at: float | None = None

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def hosts(self) -> tuple[Address, ...]:
        return tuple(self._hosts)

    @property
    def preferred(self) -> Address:
        return self._preferred[0]

    def fail_over(self) -> None:
        """Try the next server first from now on."""
        self._hosts = [*self._hosts[1:], self._hosts[0]]

    def return_to_preferred(self, current: Address) -> bool:
        """Restore the order of the settings if that is due; return whether it was.

        `current` is the server in use. The pauses grow while the preferred server fails again soon.
        """
        now = self._now()
        if current == self.preferred:
            if self._returned_at is not None and now - self._returned_at >= _FIRST_RETURN_SECONDS:
                self._pauses.reset()
                self._returned_at = None
            self._return_at = None
            return False
        if self._return_at is None:
            self._return_at = now + self._pauses.next_seconds()
        if now < self._return_at:
            return False
        self._hosts = list(self._preferred)
        self._return_at, self._returned_at = None, now
        return True
